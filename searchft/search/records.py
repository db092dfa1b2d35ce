"""What is remembered of trials, free of Optuna's types: plain values that suggest, prune and the reports read."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from searchft.recipe import Recipe

RUNNING, COMPLETE, PRUNED, FAILED = "running", "complete", "pruned", "failed"

Label = str | int | float | bool | None  # how a choice is written in the persistent study: 0.5, 128, "layer4", "256+128"

_CURVES = ("train_loss", "train_accuracy", "val_loss", "seconds", "stored_s")
"""Kept per epoch beside the validation accuracy: written when the trial ends, a checkpoint has them until then."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the study holds it."""

    number: int
    name: str  # of the enqueued row; empty for what the sampler chose
    state: str
    params: Mapping[str, Label]  # what was chosen: the active dimensions only
    recipe: Recipe  # what ran
    key: str
    value: float | None = None
    """Best validation accuracy in [0, 1]; of a pruned trial what it had reached; None where there is none."""
    curve: tuple[float, ...] = ()  # validation accuracy of epochs 1..k; empty for a trial answered from another
    answered_from: int | None = None  # number of the trial whose result this one repeats; None: it ran itself
    infeasible: bool = False  # whether it could not run here at all (out of memory): the sampler avoids its neighbourhood
    reason: str = ""  # why it was pruned or failed
    seconds: float = 0.0  # computing time of its epochs
    extra: Mapping[str, Any] = field(default_factory=dict)
    """`train_accuracy`, `best_epoch`, `trained_parameters`, `val_balanced_accuracy` …; `curves`: per-epoch lists."""

    @property
    def finished(self) -> bool:
        return self.state != RUNNING

    @property
    def answers(self) -> bool:
        """Whether its configuration need not be computed again: complete, pruned or infeasible; other failures are no answer."""
        return self.state in (COMPLETE, PRUNED) or (self.state == FAILED and self.infeasible)


class Trials(Sequence[TrialRecord]):
    """Records by number, ascending. `put` adds one or replaces the one with its number; nothing is ever taken out.

    What every decision asks of them is kept beside them: at ten thousand trials looking through all would cost more than deciding.
    """

    def __init__(self, records: Iterable[TrialRecord] = ()) -> None:
        self._numbers: list[int] = []
        self._records: list[TrialRecord] = []
        self.rows: dict[str, int] = {}  # enqueued rows that were begun: name to number
        self.tried: set[str] = set()  # keys of all trials, whatever came of them
        self.running: dict[int, TrialRecord] = {}  # by number, in the order in which they were begun
        self.own = 0  # how many ran or run themselves; the others were answered
        self._answers: dict[str, TrialRecord] = {}
        self._ranking: list[tuple[float, float, int]] = []
        self._finished: list[tuple[int, int]] = []
        self._complete: list[tuple[float, int]] = []
        for record in sorted(records, key=lambda r: r.number):
            self.put(record)

    def put(self, record: TrialRecord) -> None:
        """Takes a record in. One that has finished stays as it is."""
        known = self.numbered(record.number)
        if known is not None and known.finished:
            return
        place = bisect.bisect_left(self._numbers, record.number)
        if known is not None:
            self._records[place] = record
        else:
            self._numbers.insert(place, record.number)
            self._records.insert(place, record)
            if record.name:
                self.rows[record.name] = record.number
            self.tried.add(record.key)
            self.own += record.answered_from is None
        if not record.finished:
            self.running[record.number] = record
            return
        self.running.pop(record.number, None)
        scattered = record.number * 2654435761 % 2**32  # Knuth's multiplicative hash; a SHA-256 for each would cost more
        bisect.insort(self._finished, (scattered, record.number))
        scored = record.state == COMPLETE and record.value is not None
        if scored:
            bisect.insort(self._complete, (-(record.value or 0.0), record.number))
        if record.answered_from is None:
            if scored:
                bisect.insort(self._ranking, _rank(record))
            answer = self._answers.get(record.key)
            if record.answers and (answer is None or record.number < answer.number):
                self._answers[record.key] = record

    def __getitem__(self, place: Any) -> Any:
        """By position, not by number: see `numbered`."""
        return self._records[place]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[TrialRecord]:
        return iter(self._records)

    def numbered(self, number: int) -> TrialRecord | None:
        """The trial with that number, if there is one."""
        place = bisect.bisect_left(self._numbers, number)
        return self._records[place] if place < len(self._numbers) and self._numbers[place] == number else None

    def answer_to(self, key: str) -> TrialRecord | None:
        """The earliest trial with that key that ran itself and answers it; None if none does."""
        return self._answers.get(key)

    def best_numbers(self, count: int) -> list[int]:
        """Numbers of the best trials that ran themselves, in the order of `ranked`."""
        return [number for _, _, number in self._ranking[:count]]

    def sample(self, best: int, others: int) -> set[int]:
        """Numbers of the `best` complete trials (answered ones count) and of `others` more finished ones, drawn by a hash."""
        chosen = {number for _, number in self._complete[:best]}
        rest = (number for _, number in self._finished if number not in chosen)
        return chosen.union(itertools.islice(rest, others))


def best(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The complete trial with the highest value; ties: fewer trained parameters, then the lower number. None: none completed."""
    return next(iter(ranked(records)), None)


def ranked(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The complete trials that ran themselves, best first, in the order that `best` says."""
    candidates = [r for r in records if r.state == COMPLETE and r.value is not None and r.answered_from is None]
    return sorted(candidates, key=_rank)


def _rank(record: TrialRecord) -> tuple[float, float, int]:
    assert record.value is not None
    return -record.value, float(record.extra.get("trained_parameters", float("inf"))), record.number


def summarize_epochs(results: Mapping[int, Mapping[str, Any]]) -> tuple[float | None, dict[str, Any]]:
    """Of a trial's epoch results by epoch: the value at the earliest best one (None: no epoch ended), and what is kept beside it."""
    if not results:
        return None, {}
    ordered = [results[epoch] for epoch in sorted(results)]
    top = max(ordered, key=lambda r: r["val_accuracy"])
    extra: dict[str, Any] = {name: top[name] for name in ("train_accuracy", "val_loss", "val_balanced_accuracy")}
    extra["best_epoch"] = top["epoch"]
    extra["curves"] = {name: [r[name] for r in ordered] for name in _CURVES if name in ordered[0]}
    steps = [point for r in ordered for point in r["step_curve"]]
    return float(top["val_accuracy"]), extra | ({"step_curve": steps} if steps else {})


def stored_seconds(record: TrialRecord) -> float:
    """What a trial did not spend because its frozen part's values were stored; 0 where its worker does not say."""
    return float(sum(s for s in record.extra.get("curves", {}).get("stored_s", ()) if s))


def saved_seconds(records: Iterable[TrialRecord]) -> dict[str, float]:
    """Seconds not spent, by `store`, `memo` and `pruning`, estimated from the trials' own epochs."""
    by_number = {r.number: r for r in records}
    own = [r for r in by_number.values() if r.answered_from is None]
    memo = sum(by_number[r.answered_from].seconds for r in by_number.values() if r.answered_from in by_number)
    pruned = [r for r in own if r.state == PRUNED and r.curve]
    pruning = sum(r.seconds / len(r.curve) * (r.recipe.epochs - len(r.curve)) for r in pruned)
    return {"store": sum(map(stored_seconds, own)), "memo": memo, "pruning": pruning}
