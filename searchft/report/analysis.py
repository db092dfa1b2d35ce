"""What a study's records say, as plain rows and as an Optuna study: the report's figures and tables are drawn from these alone.

Pure functions of the record. The rows leave duplicates out: they cost nothing and say nothing new.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState

from searchft.recipe import SpaceFacts
from searchft.report.words import find_opening, opening_in_words
from searchft.search.records import COMPLETE, FAILED, PRUNED, RUNNING, TrialRecord
from searchft.space import Space

FEWEST = 20
"""Complete trials below which there are no importances: they compare the best tenth with the rest, and one trial is no tenth."""

_STATES = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAILED: TrialState.FAIL, RUNNING: TrialState.RUNNING}


class Cost(NamedTuple):
    """What a complete trial cost and reached; on the front, no other trial was both cheaper and better."""

    trial: int
    seconds: float
    trained_parameters: int
    val_accuracy: float
    on_front: bool


class Effect(NamedTuple):
    """How the trials with one choice of one dimension did."""

    dimension: str
    choice: str
    trials: int
    mean: float
    worst: float
    best: float


class OpeningTime(NamedTuple):
    """What the trials of one opening took."""

    opening: str
    trials: int
    epochs: int
    seconds: float
    best: float | None


def own_trials(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials that computed something, by number."""
    return sorted((r for r in records if r.answered_from is None), key=lambda r: r.number)


def reached(record: TrialRecord) -> float | None:
    """The best validation accuracy that a trial came to: also a pruned one's, which stopped early."""
    return record.value if record.state == COMPLETE or not record.curve else max(record.curve)


def costs(records: Sequence[TrialRecord]) -> list[Cost]:
    """Complete trials with training time and accuracy, those on the Pareto front marked."""
    done = [(r, r.value) for r in own_trials(records) if r.state == COMPLETE and r.value is not None]
    front, highest = set(), -1.0
    for record, value in sorted(done, key=lambda pair: (pair[0].seconds, -pair[1])):
        if value > highest:
            front.add(record.number)
            highest = value
    return [
        Cost(r.number, round(r.seconds, 3), int(r.extra.get("trained_parameters", 0)), value, r.number in front)
        for r, value in done
    ]


def effects(space: Space, records: Sequence[TrialRecord]) -> list[Effect]:
    """Per dimension and choice, how trials did; choices without a result are left out.

    Pruned trials count with the best that they reached: to leave them out would flatter choices whose bad trials were stopped.
    """
    found = []
    results = [(r, reached(r)) for r in own_trials(records) if r.state in (COMPLETE, PRUNED)]
    for dimension in space.dimensions:
        values: dict[str, list[float]] = {}  # by repr: True is not 1
        for record, value in results:
            if dimension.name in record.params and value is not None:
                values.setdefault(repr(record.params[dimension.name]), []).append(value)
        for label in dimension.labels:
            if seen := values.get(repr(label)):
                mean = round(statistics.fmean(seen), 4)
                found.append(Effect(dimension.name, str(label), len(seen), mean, min(seen), max(seen)))
    return found


def time_by_opening(records: Sequence[TrialRecord], facts: SpaceFacts) -> list[OpeningTime]:
    """Computing time by how much of the backbone trained, from the head alone to everything."""
    groups: dict[tuple[int, str], list[TrialRecord]] = {}
    for record in own_trials(records):
        _, _, opening = find_opening(record.recipe, facts)
        place = len(opening.parameters) if opening else 0
        groups.setdefault((place, opening_in_words(record.recipe, facts)), []).append(record)
    rows = []
    for (_, name), members in sorted(groups.items()):
        best = max((r.value for r in members if r.state == COMPLETE and r.value is not None), default=None)
        epochs, seconds = sum(len(r.curve) for r in members), round(sum(r.seconds for r in members), 3)
        rows.append(OpeningTime(name, len(members), epochs, seconds, best))
    return rows


def optuna_study(space: Space, records: Sequence[TrialRecord]) -> optuna.Study:
    """An Optuna study in memory with the trials, values and choices of the persistent one: what Optuna's own figures read."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    choices: dict[str, BaseDistribution] = {d.name: CategoricalDistribution(d.labels) for d in space.dimensions}
    for record in sorted(records, key=lambda r: r.number):
        trial = optuna.create_trial(
            state=_STATES[record.state],
            value=record.value if record.state == COMPLETE else None,
            params=dict(record.params),
            distributions={name: choices[name] for name in record.params},
        )
        study.add_trial(trial)
    return study


def importances(study: optuna.Study) -> dict[str, float]:
    """How much each dimension tells the best trials from the others, largest first, 1 in all; empty: not enough trials to say.

    PED-ANOVA (Watanabe et al. 2023) over all complete trials: optuna-dashboard shows the same numbers.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < FEWEST or len({trial.value for trial in complete}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
    return dict(sorted(found.items(), key=lambda item: -item[1]))
