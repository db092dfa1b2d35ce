"""What was measured about a network and an opening on this machine, kept in the cache folder beside the stored values.

A later study takes it over: it starts at once, and as its numerics are those of the earlier one, it finds that one's stored values
and repeats its numbers. Measured again is what depends on something else: other software, another processor or number of threads,
other image or batch sizes, more than twice or less than half as much room for stored values. `searchft cache --clear` forgets it all.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

from searchft.errors import StorageError
from searchft.features import MICRO_BATCH
from searchft.files import write_json
from searchft.machine import processor_name
from searchft.recipe import Keeping, Numerics, digest

VERSION = 2
"""Raised whenever something else is measured, or measured otherwise."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What `train.numerics.measure_opening` found."""

    numerics: Numerics
    keeping: Keeping
    note: str
    """A line for people."""
    frozen_part: Numerics | None = None
    """How the frozen part runs fastest by itself; None: there is none, or exact fp32 left no choice."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """What stored values may take of this machine, in bytes. It is never quite the same twice: near is near enough."""

    memory_bytes: int
    disk_bytes: int

    def is_near(self, other: Budget) -> bool:
        """Neither more than twice the other's nor less than half of it."""
        pairs = ((self.memory_bytes, other.memory_bytes), (self.disk_bytes, other.disk_bytes))
        return all(max(pair) <= 2 * min(pair) for pair in pairs)


def measurement_name(asked: dict[str, Any]) -> str:
    """32 hex digits that stand for a question (plain data), this machine and its software."""
    ground = {
        "version": VERSION,
        "software": [torch.__version__, torchvision.__version__, timm.__version__, MICRO_BATCH],
        "processor": [platform.machine(), processor_name(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()],
        "cards": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }
    return digest({"asked": asked, **ground})[:32]


def recall(folder: Path, name: str, budget: Budget) -> Measurement | None:
    """The measurement of that name; None if there is none, if it was made under another budget or if its file cannot be read."""
    try:
        found = json.loads((folder / f"{name}.json").read_text())
        if not budget.is_near(Budget(**found["budget"])):
            return None
        way = found["frozen_part"]
        return Measurement(
            Numerics(**found["numerics"]), Keeping(**found["keeping"]), str(found["note"]), way and Numerics(**way)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(folder: Path, name: str, measurement: Measurement, budget: Budget) -> None:
    """Writes a measurement. A disk that refuses is no reason to stop: the next study measures again."""
    try:
        write_json(folder / f"{name}.json", dataclasses.asdict(measurement) | {"budget": dataclasses.asdict(budget)})
    except (StorageError, OSError):
        return
