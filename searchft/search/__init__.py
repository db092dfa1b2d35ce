"""The study: what to try next, when to stop a trial, and what is remembered.

    records    what a trial is, once Optuna's words are taken off it; which record answers a key; which trial is best
    suggest    what to try next: a pure function of space, facts, records and trial number
    prune      whether to stop a trial: pure functions of validation curves
    storage    opening them, their errors in our words, what each transaction checks from within
    claims     who may decide, who owns a running trial: file locks, PostgreSQL advisory locks
    study      a study in its database, but for its trials: opened, pinned, waited for
    ledger     its trials: the only place that writes them (translate: from and to Optuna's)
    driver     the loop that joins them with workers

This file imports nothing, so that `prune` and `records` can be used without waiting for Optuna to load.
"""
