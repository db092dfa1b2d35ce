"""The study: what to try next, when to stop a trial, and what is remembered.

records, suggest, prune    what a trial is; what to try next and whether to stop: pure functions, without a database
databases, storage, claims which databases are served; opened, each transaction checked; who may decide, who owns a trial
study, ledger, translate   a study in its database; its trials, and the only place that writes them; from and to Optuna's words
driver, events, folders    the loop that joins them with workers; what it yields; which files it keeps
session, ground            from a space to a running search; what it stands on, and how that has changed
"""
