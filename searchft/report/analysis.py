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
from searchft.search.records import COMPLETE, FAILED, PRUNED, RUNNING, Label, TrialRecord
from searchft.space import Space

FEWEST = 20
"""Complete trials below which there are no importances: they compare the best tenth with the rest, and one trial is no tenth."""

_STATES = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAILED: TrialState.FAIL, RUNNING: TrialState.RUNNING}


class HistoryPoint(NamedTuple):
    """A trial in the order of the search, with the best complete value and the computing time up to here."""

    trial: int
    state: str
    value: float | None
    best_so_far: float | None
    seconds_so_far: float


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
    choice: Label
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


def history(records: Sequence[TrialRecord]) -> list[HistoryPoint]:
    """The search in its order, with the best so far."""
    points, best, spent = [], None, 0.0
    for record in own_trials(records):
        spent += record.seconds
        if record.state == COMPLETE and record.value is not None and (best is None or record.value > best):
            best = record.value
        points.append(HistoryPoint(record.number, record.state, reached(record), best, round(spent, 3)))
    return points


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the (cost, value) pairs that no other beats in both, cheapest first."""
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


def costs(records: Sequence[TrialRecord]) -> list[Cost]:
    """Complete trials with training time and accuracy, those on the Pareto front marked."""
    done = [(r, r.value) for r in own_trials(records) if r.state == COMPLETE and r.value is not None]
    front = set(pareto_front([(r.seconds, value) for r, value in done]))
    sizes = [int(r.extra.get("trained_parameters", 0)) for r, _ in done]
    return [Cost(r.number, round(r.seconds, 3), sizes[i], v, i in front) for i, (r, v) in enumerate(done)]


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
                found.append(Effect(dimension.name, label, len(seen), statistics.fmean(seen), min(seen), max(seen)))
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
        rows.append(OpeningTime(name, len(members), sum(len(r.curve) for r in members), sum(r.seconds for r in members), best))
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
