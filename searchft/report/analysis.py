"""What a study's records say, as plain numbers: the figures and tables of the report are drawn from these and nothing else.

Pure functions of the record. Trials answered from another are left out everywhere: they cost nothing and say nothing new.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from searchft.recipe import HEAD, SpaceFacts, open_parameters, trained_parameters
from searchft.report.progress import stored_seconds
from searchft.search.records import COMPLETE, PRUNED, Label, TrialRecord
from searchft.space import Space

INACTIVE = "–"
"""Label of a dimension that has no meaning in a configuration (the dropout of a head without hidden layers)."""


def own_trials(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials that computed something, by number."""
    return sorted((r for r in records if r.answered_from is None), key=lambda r: r.number)


def reached(record: TrialRecord) -> float | None:
    """The best validation accuracy that a trial came to: also a pruned one's, which stopped early."""
    if record.state == COMPLETE:
        return record.value
    return max(record.curve) if record.curve else record.value


@dataclass(frozen=True)
class HistoryPoint:
    """A trial in the order of the search."""

    number: int
    state: str
    value: float | None
    best: float | None
    """The best complete value up to here."""
    seconds: float
    """Computing time of this and all earlier trials."""


def history(records: Sequence[TrialRecord]) -> list[HistoryPoint]:
    """The search in its order, with the best so far."""
    points, best, spent = [], None, 0.0
    for record in own_trials(records):
        spent += record.seconds
        if record.state == COMPLETE and record.value is not None and (best is None or record.value > best):
            best = record.value
        points.append(HistoryPoint(record.number, record.state, reached(record), best, spent))
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


@dataclass(frozen=True)
class Cost:
    """What a complete trial cost, and what it reached."""

    number: int
    seconds: float
    parameters: int
    value: float
    on_front: bool
    """Whether no other trial was both cheaper and better."""


def costs(records: Sequence[TrialRecord], facts: SpaceFacts) -> list[Cost]:
    """Complete trials with training time and accuracy, those on the Pareto front marked."""
    done = [r for r in own_trials(records) if r.state == COMPLETE and r.value is not None]
    front = set(pareto_front([(r.seconds, r.value or 0.0) for r in done]))
    return [Cost(r.number, r.seconds, _parameters(r, facts), r.value or 0.0, i in front) for i, r in enumerate(done)]


@dataclass(frozen=True)
class Effect:
    """One choice of one dimension: how the trials with it did."""

    label: Label
    count: int
    mean: float
    low: float
    high: float
    """Worst and best of them."""
    middle: tuple[float, float]
    """The quartiles."""
    values: tuple[float, ...]


def effects(space: Space, records: Sequence[TrialRecord]) -> dict[str, list[Effect]]:
    """Per dimension and choice, how trials did. Pruned trials count with the best that they reached: to leave them out
    would flatter the choices whose bad trials were stopped. Dimensions without a result are left out."""
    found: dict[str, list[Effect]] = {}
    for dimension in space.dimensions:
        rows = []
        for label in dimension.labels:
            values = sorted(
                v
                for r in own_trials(records)
                if r.state in (COMPLETE, PRUNED) and dimension.name in r.params and _same(r.params[dimension.name], label)
                for v in [reached(r)]
                if v is not None
            )
            if values:
                quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
                rows.append(
                    Effect(
                        label,
                        len(values),
                        statistics.fmean(values),
                        values[0],
                        values[-1],
                        (quartiles[0], quartiles[2]),
                        tuple(values),
                    )
                )
        if rows:
            found[dimension.name] = rows
    return found


@dataclass(frozen=True)
class Depth:
    """How much was open, and what that took."""

    depth: str
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
        values = [r.value for r in members if r.state == COMPLETE and r.value is not None]
        rows.append(
            Depth(
                name,
                len(members),
                sum(len(r.curve) for r in members),
                sum(r.seconds for r in members),
                max(values, default=None),
            )
        )
    return rows


def saved_seconds(records: Sequence[TrialRecord]) -> dict[str, float]:
    """Seconds not spent, estimated from the trials' own epochs: by the store of frozen values, the memo, and pruning."""
    by_number = {r.number: r for r in records}
    memo = sum(by_number[r.answered_from].seconds for r in records if r.answered_from in by_number)
    pruning = sum(
        r.seconds / len(r.curve) * (r.recipe.epochs - len(r.curve))
        for r in own_trials(records)
        if r.state == PRUNED and r.curve
    )
    store = sum(stored_seconds(r) for r in own_trials(records))
    return {"store": store, "memo": memo, "pruning": pruning}


def unused_values(space: Space, record: TrialRecord) -> Mapping[str, Label]:
    """A trial's labels for all dimensions; those without meaning in it are `–`."""
    return {d.name: record.params.get(d.name, INACTIVE) for d in space.dimensions}


def _same(a: Label, b: Label) -> bool:
    return type(a) is type(b) and a == b


def _parameters(record: TrialRecord, facts: SpaceFacts) -> int:
    try:
        return trained_parameters(record.recipe, facts)
    except (KeyError, ValueError):
        return int(record.extra.get("trained_parameters", 0))


def _depth(record: TrialRecord, facts: SpaceFacts) -> tuple[int, str]:
    """(open tensors, in words)."""
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
