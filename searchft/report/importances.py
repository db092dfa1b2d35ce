"""Which dimensions mattered: Optuna's importances over the real values of the trials.

Optuna's own function leaves out every dimension that some trial does not have. Here a dimension without meaning in a
trial has the value `–` there, so that conditional ones (the dropout of a hidden layer) are judged too.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from searchft.report.analysis import own_trials, reached, unused_values
from searchft.search.records import COMPLETE, PRUNED, TrialRecord
from searchft.space import Space

FEWEST = 6
"""Trials below which an importance is noise."""


@dataclass(frozen=True)
class Importances:
    """How much each dimension tells good trials from the others, largest first; they add up to 1."""

    shares: tuple[tuple[str, float], ...]
    trials: int
    note: str
    """What they are computed from, or why there are none."""


def importances(space: Space, records: Sequence[TrialRecord], seed: int = 0) -> Importances:
    """PED-ANOVA (Watanabe et al. 2023) over complete and pruned trials; a pruned one counts with the best it reached.

    It asks which values the better trials share; optuna-dashboard shows the same measure.
    """
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution

    trials = [r for r in own_trials(records) if r.state in (COMPLETE, PRUNED) and reached(r) is not None]
    values = [reached(r) or 0.0 for r in trials]
    rows = [unused_values(space, r) for r in trials]
    labels = {d.name: list(dict.fromkeys(row[d.name] for row in rows)) for d in space.dimensions}
    varying = [name for name, seen in labels.items() if len(seen) > 1]
    if len(trials) < FEWEST or not varying or max(values) == min(values):
        return Importances((), len(trials), f"too little to judge by: {len(trials)} trials")
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed))
            distributions: dict[str, BaseDistribution] = {
                name: CategoricalDistribution([str(v) for v in labels[name]]) for name in varying
            }
            for row, value in zip(rows, values, strict=True):
                params = {name: str(row[name]) for name in varying}
                study.add_trial(optuna.create_trial(value=value, params=params, distributions=distributions))
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except Exception as error:  # an evaluator's own trouble must not cost the report
        return Importances((), len(trials), f"Optuna could not compute them: {' '.join(str(error).split())[:200]}")
    finally:
        optuna.logging.set_verbosity(level)
    shares = tuple(sorted(found.items(), key=lambda item: -item[1]))
    return Importances(shares, len(trials), f"PED-ANOVA over {len(trials)} trials, pruned ones with what they reached")
