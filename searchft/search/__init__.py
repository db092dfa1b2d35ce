"""The study: what to try next, when to stop a trial, and what is remembered.

    records   what a trial is, once Optuna's words are taken off it; which record answers a key; which trial is best
    suggest   what to try next: a pure function of space, facts, records and trial number
    prune     whether to stop a trial: pure functions of validation curves
    storage   opening databases, masking passwords, listing studies, turning database errors into ours
    lock      one driver per study: file lock, PostgreSQL advisory lock, who holds it
    ledger    the persistent study: the only place that writes trials
    driver    the loop that joins them with workers

This file imports nothing, so that `prune` and `records` can be used without waiting for Optuna to load.
"""
