"""In which ways the ground under a study has changed, in sentences that name files and classes.

A study goes on only on the ground it was created on: other images, labels or weights would mix results that cannot be
compared. Where the images of then are still in the cache, they are compared with those of now, one by one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from searchft.errors import StorageError
from searchft.recipe import SpaceFacts


def ground_changes(
    old: SpaceFacts, new: SpaceFacts, old_images: Path | None = None, new_images: Path | None = None
) -> list[str]:
    """One sentence for each change of data or weights; empty: nothing has changed.

    `old_images`, `new_images`: folders of the decoded images (`Images.folder`), where they are still there.
    """
    return _data_changes(old, new, old_images, new_images) + _weights_changes(old, new)


def processor_changes(old: SpaceFacts, new: SpaceFacts) -> list[str]:
    """A note where a study goes on on another processor than it was created on: it keeps its numerics, not every last bit."""
    if not old.processor.name or old.processor == new.processor:
        return []
    return [
        f"this study was created on {old.processor} and goes on on {new.processor}: its numerics stay those chosen then, "
        "but the last bits of a number may differ"
    ]


def _data_changes(old: SpaceFacts, new: SpaceFacts, old_images: Path | None, new_images: Path | None) -> list[str]:
    found: list[str] = []
    if old.data.classes != new.data.classes:
        gone, come = set(old.data.classes) - set(new.data.classes), set(new.data.classes) - set(old.data.classes)
        counts = f"the classes were {len(old.data.classes)} and are {len(new.data.classes)}"
        found.append(
            f"{counts} (gone: {_some(gone)}; new: {_some(come)})" if gone or come else "the classes changed their order"
        )
    for split in ("train", "val", "test"):
        if old.data.size(split) != new.data.size(split):
            found.append(f"the {split} split had {old.data.size(split)} images and has {new.data.size(split)}")
    if old.data.fingerprint == new.data.fingerprint:
        return found
    if old_images is not None and new_images is not None:
        with contextlib.suppress(StorageError, OSError):  # the cache was cleared: what the facts say must do
            found += _image_changes(_rows(old_images), _rows(new_images))
    return found or ["images, labels or preprocessing changed (same counts, another fingerprint)"]


def _weights_changes(old: SpaceFacts, new: SpaceFacts) -> list[str]:
    found = []
    for name, backbone in new.backbones.items():
        before = old.backbones.get(name)
        if before is not None and before.weights_sha256 != backbone.weights_sha256:
            found.append(
                f"the weights of {backbone.backbone} were {before.weights} from {before.weights_source} "
                f"({before.weights_sha256[:12]}) and are {backbone.weights} from {backbone.weights_source} "
                f"({backbone.weights_sha256[:12]})"
            )
    return found


def _rows(folder: Path) -> dict[str, tuple[str, str, Any]]:
    """(split, class, pixels uint8 [S, S, 3]) of every image, by its name."""
    from searchft.data.images import reopen_images
    from searchft.data.records import SPLITS

    images = reopen_images(folder)
    rows: dict[str, tuple[str, str, Any]] = {}
    for split in SPLITS:
        part = images.split(split)
        for name, label, pixels in zip(part.names, part.labels, part.images, strict=True):
            rows[name] = (split, images.classes[int(label)], pixels)
    return rows


def _image_changes(old: dict[str, tuple[str, str, Any]], new: dict[str, tuple[str, str, Any]]) -> list[str]:
    both = [name for name in old if name in new]
    relabelled = [name for name in both if old[name][1] != new[name][1]]
    moved = [name for name in both if old[name][0] != new[name][0]]
    repainted = [
        name for name in both if old[name][2].shape != new[name][2].shape or not np.array_equal(old[name][2], new[name][2])
    ]
    kinds = (
        ("images are gone", [name for name in old if name not in new]),
        ("images are new", [name for name in new if name not in old]),
        ("images have another label", [f"{name} was {old[name][1]} and is {new[name][1]}" for name in relabelled]),
        ("images stand in another split", [f"{name} was in {old[name][0]} and is in {new[name][0]}" for name in moved]),
        ("images show other pixels", repainted),
    )
    return [f"{len(names)} {what}: {_some(names)}" for what, names in kinds if names]


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "") if ordered else "none"
