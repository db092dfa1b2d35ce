"""What the driver knows of a trial that a worker has, and what stays of it in the record."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from searchft.search.records import TrialRecord

_CURVES = ("train_loss", "train_accuracy", "val_loss", "seconds", "stored_s")
"""Kept per epoch beside the validation accuracy: written when the trial ends, a checkpoint has them until then."""


@dataclass
class RunningTrial:
    """A dispatched trial."""

    record: TrialRecord
    """As it stood when it was dispatched."""
    values: dict[int, float]
    """Validation accuracy by epoch, as the storage has it."""
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Epoch results seen in this session (replayed ones included)."""
    pruned: bool = False
    halted: bool = False
    """Told to stop, or another driver's now: how it ends is not to be recorded."""
    heard_at: float = field(default_factory=time.monotonic)
    noted_silent: bool = False

    @property
    def number(self) -> int:
        return self.record.number

    @property
    def last_epoch_s(self) -> float:
        """0: none has ended in this session."""
        return float(self.results[max(self.results)]["seconds"]) if self.results else 0.0

    def summarize(self) -> tuple[float | None, dict[str, Any]]:
        """The value at the earliest best epoch (None: no epoch ended), and what is kept beside it."""
        results = [self.results[e] for e in sorted(self.results)]
        if not results:
            return None, {}
        top = max(results, key=lambda r: (r["val_accuracy"], -r["epoch"]))
        extra: dict[str, Any] = {name: top[name] for name in ("train_accuracy", "val_loss", "val_balanced_accuracy")}
        extra["best_epoch"] = top["epoch"]
        extra["curves"] = {name: [r[name] for r in results] for name in _CURVES if name in results[0]}
        steps = [point for r in results for point in r["step_curve"]]
        return float(top["val_accuracy"]), extra | ({"step_curve": steps} if steps else {})
