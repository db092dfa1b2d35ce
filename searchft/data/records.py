"""What every source returns: images that are not decoded yet, each with its class and, if the source says so, its split."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from searchft.errors import InputError, Problem

SPLITS = ("train", "val", "test")  # the splits, in the order in which they stand in the store
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What people call the splits."""

Content = Path | np.ndarray | Callable[[], Any]
"""A file; a uint8 array [H, W] or [H, W, 3]; or a function without arguments that returns a PIL image."""


@dataclass(frozen=True)
class Record:
    """One image that a source knows of."""

    name: str  # unique and stable within the source, for people and for the split: `cat/0001.jpg`. Never an absolute path.
    label: int  # index into `Records.classes`
    split: str | None  # `train`, `val` or `test` where the source has a split of its own
    content: Content

    @property
    def place(self) -> str:
        """Where a person finds it: the path, or the name of an image that is no file."""
        return printable(self.content) if isinstance(self.content, Path) else self.name


@dataclass
class Records:
    """All images of a source."""

    where: str  # the folder, file or package that was read, for messages
    classes: tuple[str, ...]
    records: list[Record]
    unreadable: list[tuple[str, str]] = field(default_factory=list)  # (path, reason), known without opening the file
    notes: list[str] = field(default_factory=list)


def refusal(where: Path | str, rule: str, key: str = "data.source") -> InputError:
    """The error of a source that breaks a rule."""
    return InputError(Problem(str(where), key, rule))


def some(items: Iterable[Any], limit: int = 10) -> str:
    """The first items in one line, and how many more there are."""
    listed = [str(item) for item in items]
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")


def printable(path: Path | str) -> str:
    """A file name as text that can be printed and saved: bytes that are not UTF-8 become a replacement sign."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def find_place(written: str, root: str, kind: str, key: str = "data.source") -> Path:
    """The existing `folder` or `file` that `written` means: in `root` (the space's folder), else in the current folder.

    Raises InputError naming every place that was looked at.
    """
    path = Path(written).expanduser()
    if not written.strip():
        raise refusal(root, f"must name a {kind} after the colon but got nothing", key)
    tried = [path] if path.is_absolute() else list(dict.fromkeys([(Path(root) / path).absolute(), path.absolute()]))
    for place in tried:
        if place.is_dir() if kind == "folder" else place.is_file():
            return place
    for place in tried:
        if place.exists():
            raise refusal(place, f"must be a {kind} but is a {'file' if kind == 'folder' else 'folder'}", key)
    raise refusal(written, f"must be an existing {kind}; looked at {' and at '.join(map(str, tried))}", key)
