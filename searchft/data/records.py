"""What every source returns: images that are not decoded yet, each with its class and, if the source says so, its split.

A record's content is a path, an array in memory, or a function that fetches the image, so that a folder, a CSV file and a
packaged data set go the same way from here on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SPLITS = ("train", "val", "test")
"""The splits, in the order in which they stand in the store."""

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What people call the splits."""

Content = Path | np.ndarray | Callable[[], Any]
"""A file; a uint8 array [H, W] or [H, W, 3]; or a function without arguments that returns a PIL image."""


@dataclass(frozen=True)
class Record:
    """One image that a source knows of."""

    name: str
    """Unique and stable within the source, for people and for the split: `cat/0001.jpg`. Never an absolute path."""
    label: int
    """Index into `Records.classes`."""
    split: str | None
    """`train`, `val` or `test` where the source has a split of its own."""
    content: Content

    @property
    def place(self) -> str:
        """Where a person finds it: the path, or the name of an image that is no file."""
        return printable(str(self.content)) if isinstance(self.content, Path) else self.name


@dataclass
class Records:
    """All images of a source."""

    where: str
    """The folder, file or package that was read, for messages."""
    classes: tuple[str, ...]
    records: list[Record]
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """(path, reason) of image files that are known to be unreadable without opening them."""
    notes: list[str] = field(default_factory=list)


def some(items: Iterable[Any], limit: int = 10) -> str:
    """The first items in one line, and how many more there are."""
    listed = [str(item) for item in items]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def printable(text: str) -> str:
    """A file name as text that can be printed and saved: bytes that are not UTF-8 become a replacement sign."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
