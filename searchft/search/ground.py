"""What a study stands on (its ground): images, labels, weights and processor; how they are looked at, and how they changed."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from searchft.errors import StorageError
from searchft.execution.local import Slot, plan_slots
from searchft.execution.worker import STAND_IN
from searchft.files import cache_folder
from searchft.recipe import ResolvedTrial, SpaceFacts
from searchft.space import Space


class Ground:
    """How data and backbones are looked at, and which processes train on them. Imports torch only where it looks."""

    def describe(self, space: Space, cache: Path, device: str) -> tuple[SpaceFacts, Path]:
        """Facts, and the folder of the decoded images, for trials on `device`. Raises InputError with every problem."""
        from searchft.facts import describe

        facts, images = describe(space, cache, device)
        return facts, images.folder

    def explain(self, space: Space, facts: SpaceFacts) -> list[str]:
        """A line for people about each opening."""
        from searchft.train.memory import explain_openings

        return explain_openings(space, facts, cache_folder() / "features")

    def plan_slots(self, devices: str, workers: int, per_device: int) -> list[Slot]:
        """As `execution.local.plan_slots`."""
        return plan_slots(devices, workers, per_device)

    def memory_of(self, image_size: int) -> Callable[[ResolvedTrial], int]:
        """An estimate of a trial's peak in bytes."""
        from searchft.train.memory import PeakMemory

        return PeakMemory(image_size)


def choose_ground() -> Ground:
    """The real ground, or that of the module which SEARCHFT_ANALYTIC names. Imports no torch."""
    if name := os.environ.get(STAND_IN):
        stand_in: Ground = importlib.import_module(name).GROUND
        return stand_in
    return Ground()


def processor_changes(old: SpaceFacts, new: SpaceFacts) -> list[str]:
    """A note where a study goes on on another processor than it was created on: it keeps its numerics, not every last bit."""
    if not old.processor.name or old.processor == new.processor:
        return []
    return [
        f"this study was created on {old.processor} and goes on on {new.processor}: its numerics stay those chosen then, "
        "but the last bits of a number may differ"
    ]


def ground_changes(
    old: SpaceFacts, new: SpaceFacts, old_images: Path | None = None, new_images: Path | None = None
) -> list[str]:
    """A sentence for each change of data or weights; empty: nothing has changed.

    `old_images`, `new_images`: folders of the decoded images; where both are still there, images are compared one by one.
    """
    changes: list[str] = []
    if old.data.classes != new.data.classes:
        gone, come = set(old.data.classes) - set(new.data.classes), set(new.data.classes) - set(old.data.classes)
        counts = f"the classes were {len(old.data.classes)} and are {len(new.data.classes)}"
        named = f"{counts} (gone: {_some(gone)}; new: {_some(come)})"
        changes.append(named if gone or come else "the classes changed their order")
    for split in ("train", "val", "test"):
        if old.data.size(split) != new.data.size(split):
            changes.append(f"the {split} split had {old.data.size(split)} images and has {new.data.size(split)}")
    if old.data.fingerprint != new.data.fingerprint:
        if old_images is not None and new_images is not None:
            with contextlib.suppress(StorageError, OSError):  # the cache was cleared: what the facts say must do
                changes += _image_changes(_load_rows(old_images), _load_rows(new_images))
        changes = changes or ["images, labels or preprocessing changed (same counts, another fingerprint)"]
    for name, is_now in new.backbones.items():
        was = old.backbones.get(name)
        if was is not None and was.weights_sha256 != is_now.weights_sha256:
            changes.append(
                f"the weights of {is_now.backbone} were {was.weights} from {was.weights_source} ({was.weights_sha256[:12]}) "
                f"and are {is_now.weights} from {is_now.weights_source} ({is_now.weights_sha256[:12]})"
            )
    return changes


_Row = tuple[str, str, Any]  # of an image: split, class, pixels uint8 [S, S, 3]


def _load_rows(folder: Path) -> dict[str, _Row]:
    """Every image's row by its name."""
    from searchft.data.images import reopen_images
    from searchft.data.records import SPLITS

    images = reopen_images(folder)
    rows: dict[str, _Row] = {}
    for split in SPLITS:
        part = images.split(split)
        for name, label, pixels in zip(part.names, part.labels, part.images, strict=True):
            rows[name] = (split, images.classes[int(label)], pixels)
    return rows


def _image_changes(old: dict[str, _Row], new: dict[str, _Row]) -> list[str]:
    both = [(name, old[name], new[name]) for name in old if name in new]
    kinds = (
        ("images are gone", [name for name in old if name not in new]),
        ("images are new", [name for name in new if name not in old]),
        ("images have another label", [f"{name} was {o[1]} and is {n[1]}" for name, o, n in both if o[1] != n[1]]),
        ("images stand in another split", [f"{name} was in {o[0]} and is in {n[0]}" for name, o, n in both if o[0] != n[0]]),
        ("images show other pixels", [name for name, o, n in both if not np.array_equal(o[2], n[2])]),
    )
    return [f"{len(names)} {what}: {_some(names)}" for what, names in kinds if names]


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return (", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")) or "none"
