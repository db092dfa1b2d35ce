"""What is remembered of a trial, free of Optuna's types: plain values that suggest, prune and the reports read.

`answer_to` and `best` stand here because they are questions to the record alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from searchft.recipe import Recipe

RUNNING = "running"
COMPLETE = "complete"
PRUNED = "pruned"
FAILED = "failed"

Label = str | int | float | bool | None
"""How a choice is written in the persistent study: 0.5, 128, "layer4", "256+128"."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the study holds it."""

    number: int
    name: str
    """Of the enqueued row; empty for what the sampler chose."""
    state: str
    """`running`, `complete`, `pruned` or `failed`."""
    params: Mapping[str, Label]
    """What was chosen: the active dimensions only."""
    recipe: Recipe
    """What ran."""
    key: str
    """`Recipe.key` under the study's facts."""
    value: float | None = None
    """Best validation accuracy in [0, 1]; of a pruned trial what it had reached; None where there is none."""
    curve: tuple[float, ...] = ()
    """Validation accuracy of epochs 1..k; empty for a trial answered from another."""
    answered_from: int | None = None
    """Number of the trial whose result this one repeats; None: it ran itself."""
    infeasible: bool = False
    """Whether it could not run here at all (out of memory): the sampler avoids its neighbourhood."""
    reason: str = ""
    """Why it was pruned or failed."""
    seconds: float = 0.0
    """Computing time of its epochs."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """`train_accuracy`, `best_epoch`, `trained_parameters`, `val_balanced_accuracy` …; `curves`: per-epoch lists."""

    @property
    def finished(self) -> bool:
        """Whether nothing more will be added to it."""
        return self.state != RUNNING

    @property
    def answers(self) -> bool:
        """Whether its configuration need not be computed again: complete, pruned or infeasible; other failures are no answer."""
        return self.state in (COMPLETE, PRUNED) or (self.state == FAILED and self.infeasible)


def answer_to(key: str, records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The memo: the earliest trial with that key that ran itself and answers it; None if none does."""
    answers = (r for r in records if r.key == key and r.answered_from is None and r.answers)
    return min(answers, key=lambda r: r.number, default=None)


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
