"""The record as an Optuna study in memory, with the values that the persistent one holds: for Optuna's importances and figures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState

from searchft.search.records import COMPLETE, FAILED, PRUNED, RUNNING, TrialRecord
from searchft.space import Space

FEWEST = 20
"""Complete trials below which there are no importances: they compare the best tenth with the rest, and one trial is no tenth."""

_STATES = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAILED: TrialState.FAIL, RUNNING: TrialState.RUNNING}


def optuna_study(space: Space, records: Sequence[TrialRecord]) -> optuna.Study:
    """A study in memory with the same trials, values and choices; only what Optuna's own functions read is in it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    choices = {d.name: CategoricalDistribution(d.labels) for d in space.dimensions}
    for record in sorted(records, key=lambda r: r.number):
        distributions: dict[str, BaseDistribution] = {name: choices[name] for name in record.params}
        trial = optuna.create_trial(
            state=_STATES[record.state],
            value=record.value if record.state == COMPLETE else None,
            params=dict(record.params),
            distributions=distributions,
        )
        study.add_trial(trial)
    return study


def importances(study: optuna.Study) -> dict[str, float]:
    """How much each dimension tells the best trials from the others, largest first, 1 in all; empty: not enough trials to say.

    PED-ANOVA (Watanabe et al. 2023) over all complete trials: optuna-dashboard shows the same numbers.
    """
    values = {trial.value for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE}
    if complete_trials(study) < FEWEST or len(values) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def complete_trials(study: optuna.Study) -> int:
    """How many trials are complete, duplicates included."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
