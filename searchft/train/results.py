"""What `fit` yields: one `EpochResult` per epoch, plain data that travels between processes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from searchft.errors import SearchftError


@dataclass(frozen=True)
class EpochResult:
    """One finished epoch."""

    epoch: int
    """1-based."""
    train_loss: float
    """Mean over the epoch's images, in train mode, while the weights moved; so is `train_accuracy`."""
    train_accuracy: float
    val_loss: float
    """Mean cross entropy (no smoothing, no class weights)."""
    val_accuracy: float
    """Top-1 share in [0, 1]: the study's objective."""
    val_balanced_accuracy: float
    """Mean over classes of the share classified right; classes without images left out."""
    seconds: float
    """Wall clock of this epoch, validation included; in the first one also preparing the network and its stored values."""
    stored_s: float = 0.0
    """What this epoch did not spend because the frozen part's values came from the store (estimated)."""
    step_curve: tuple[tuple[int, float, float], ...] = ()
    """(step, val_loss, val_accuracy) every `validate_every` steps."""
    replayed: bool = False
    """Read back from a checkpoint, not computed now."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data (`replayed` left out); NaN becomes None."""
        data = dataclasses.asdict(self)
        del data["replayed"]
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in data.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], replayed: bool = False) -> EpochResult:
        """The result that `to_json` wrote."""
        values: dict[str, Any] = {k: math.nan if v is None else v for k, v in data.items()}
        values["step_curve"] = tuple((int(s), float(loss), float(accuracy)) for s, loss, accuracy in data["step_curve"])
        return cls(**values, replayed=replayed)


class DivergedError(SearchftError):
    """The training loss became NaN or infinite: this recipe's own fault, not the program's."""

    kind = "diverged"
