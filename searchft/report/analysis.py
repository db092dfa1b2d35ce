"""What a study's records say, as plain rows: the report's figures and tables are drawn from these and nothing else.

Pure functions of the record. Duplicates are left out: they cost nothing and say nothing new.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from searchft.recipe import HEAD, SpaceFacts, open_parameters, trained_parameters
from searchft.search.records import COMPLETE, PRUNED, Label, TrialRecord
from searchft.space import Space


def own_trials(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials that computed something, by number."""
    return sorted((r for r in records if r.answered_from is None), key=lambda r: r.number)


def reached(record: TrialRecord) -> float | None:
    """The best validation accuracy that a trial came to: also a pruned one's, which stopped early."""
    return record.value if record.state == COMPLETE or not record.curve else max(record.curve)


class HistoryPoint(NamedTuple):
    """A trial in the order of the search."""

    trial: int
    state: str
    value: float | None
    best_so_far: float | None
    """The best complete value up to here."""
    seconds_so_far: float
    """Computing time of this and all earlier trials."""


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
    """Positions of the (cost, value) pairs that no other beats in both, cheapest first.

    >>> pareto_front([(1.0, 0.5), (2.0, 0.4), (3.0, 0.9)])
    [0, 2]
    """
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


class Cost(NamedTuple):
    """What a complete trial cost, and what it reached."""

    trial: int
    seconds: float
    trained_parameters: int
    val_accuracy: float
    on_front: bool
    """Whether no other trial was both cheaper and better."""


def costs(records: Sequence[TrialRecord], facts: SpaceFacts) -> list[Cost]:
    """Complete trials with training time and accuracy, those on the Pareto front marked."""
    done = [(r, r.value) for r in own_trials(records) if r.state == COMPLETE and r.value is not None]
    front = set(pareto_front([(r.seconds, value) for r, value in done]))
    return [Cost(r.number, round(r.seconds, 3), _parameters(r, facts), v, i in front) for i, (r, v) in enumerate(done)]


class Effect(NamedTuple):
    """How the trials with one choice of one dimension did."""

    dimension: str
    choice: Label
    trials: int
    mean: float
    worst: float
    best: float


def effects(space: Space, records: Sequence[TrialRecord]) -> list[Effect]:
    """Per dimension and choice, how trials did. Pruned trials count with the best that they reached: to leave them out
    would flatter the choices whose bad trials were stopped. Choices without a result are left out."""
    found = []
    for dimension in space.dimensions:
        values: dict[str, list[float]] = {}  # by repr: True is not 1
        for record in own_trials(records):
            value = reached(record)
            if record.state in (COMPLETE, PRUNED) and dimension.name in record.params and value is not None:
                values.setdefault(repr(record.params[dimension.name]), []).append(value)
        for label in dimension.labels:
            seen = values.get(repr(label))
            if seen:
                found.append(Effect(dimension.name, label, len(seen), statistics.fmean(seen), min(seen), max(seen)))
    return found


class Depth(NamedTuple):
    """How much of the backbone trained, and what that took."""

    trained: str
    trials: int
    epochs: int
    seconds: float
    best: float | None


def time_by_depth(records: Sequence[TrialRecord], facts: SpaceFacts) -> list[Depth]:
    """Computing time by how much of the backbone trained, from the head alone to everything."""
    groups: dict[tuple[int, str], list[TrialRecord]] = {}
    for record in own_trials(records):
        groups.setdefault(_depth(record, facts), []).append(record)
    rows = []
    for (_, name), members in sorted(groups.items()):
        best = max((r.value for r in members if r.state == COMPLETE and r.value is not None), default=None)
        rows.append(Depth(name, len(members), sum(len(r.curve) for r in members), sum(r.seconds for r in members), best))
    return rows


def _parameters(record: TrialRecord, facts: SpaceFacts) -> int:
    try:
        return trained_parameters(record.recipe, facts)
    except (KeyError, ValueError):
        return int(record.extra.get("trained_parameters", 0))


def _depth(record: TrialRecord, facts: SpaceFacts) -> tuple[int, str]:
    """(trainable tensors of the backbone, in words)."""
    recipe = record.recipe
    try:
        backbone = facts.backbones[recipe.architecture()]
        opening = open_parameters(recipe, backbone)
    except (KeyError, ValueError):
        return 0, str(recipe.unfrozen)
    count = len(opening.parameters)
    if not count:
        return 0, "head only"
    if opening.spelling == "all":
        return count, "everything"
    if opening.spelling not in (None, HEAD):
        stages = len(backbone.stage_names) - backbone.stage_names.index(str(opening.spelling))
        return count, f"last {stages} stages" if stages > 1 else "last stage"
    return count, f"{count} tensors"
