"""The image store: every image decoded and resized once, into one uint8 file that all workers and later studies map.

An entry of `cache.Cache`, its key made of what determines its pixels: the digests of the source files in their order, the
preprocessing, the decoder's and Pillow's versions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL

from searchft.cache import Cache, Opened
from searchft.data.decode import DECODER_VERSION, UnreadableImage, decode_image
from searchft.data.hashes import Progress, in_threads
from searchft.data.records import Record, refusal
from searchft.errors import StorageError
from searchft.faults import fault
from searchft.recipe import digest

PIXELS = "pixels.bin"

_CHUNK = 32
"""Images per task: enough to hide a task's own cost, few enough to keep all threads busy to the end."""


class Preprocessing(NamedTuple):
    """What is done to an image before it is stored: the side of the stored square in pixels, and how it comes about."""

    size: int
    resize: str
    interpolation: str

    def parts(self) -> list[Any]:
        """What keys are made of."""
        return [*self, DECODER_VERSION]


class Pixels(NamedTuple):
    """An open store."""

    folder: Path
    values: np.ndarray
    """uint8 [N, S, S, 3], memory-mapped copy-on-write: writing to it never reaches the file."""
    rejected: Mapping[int, str]
    """Position among the records that were asked for, and why that one could not be decoded: it has no row."""


def open_store(
    records: Sequence[Record],
    digests: Sequence[str],
    preprocessing: Preprocessing,
    root: Path,
    progress: Progress | None = None,
) -> Pixels:
    """The store of these records under `root`, built if it is not there or damaged.

    Raises InputError if a file changes while it is read, StorageError where the disk is full.
    """

    def decode(places: range) -> list[np.ndarray | str]:
        return [_decode(records[row], digests[row], preprocessing) for row in places]

    def build(reserve: Callable[[int], Path]) -> dict[str, Any]:
        shape = [preprocessing.size, preprocessing.size, 3]
        path = reserve(len(records) * math.prod(shape)) / PIXELS
        rejected: list[tuple[int, str]] = []
        decoded = 0
        with open(path, "wb") as file:
            # Threads suffice: Pillow lets go of the interpreter while it decodes and resizes.
            for chunk in in_threads(decode, len(records), _CHUNK):
                for pixels in chunk:
                    if isinstance(pixels, str):
                        rejected.append((decoded, pixels))
                    else:
                        file.write(pixels.data)
                    decoded += 1
                if progress is not None:
                    progress(decoded, len(records))
        fault("images.writing", path.parent.name)
        files = [{"name": PIXELS, "dtype": "uint8", "shape": [decoded - len(rejected), *shape], "layout": "contiguous"}]
        return {"files": files, "rejected": rejected}

    rows = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    opened = Cache(root).open(digest([rows, preprocessing.parts(), PIL.__version__])[:32], build)
    assert opened is not None  # it was built, or something was raised
    return _pixels(opened)


def read_store(folder: Path) -> Pixels:
    """Opens a finished store. Raises StorageError if it is gone or damaged."""
    opened = Cache(folder.parent).open(folder.name)
    if opened is None:
        raise StorageError(f"{folder} is gone or damaged: run again and it is built anew", str(folder))
    return _pixels(opened)


def _pixels(opened: Opened) -> Pixels:
    values = opened.arrays[0].reshape(opened.manifest["files"][0]["shape"])
    return Pixels(opened.folder, values, dict(opened.manifest["rejected"]))


def _decode(record: Record, expected: str, preprocessing: Preprocessing) -> np.ndarray | str:
    """The record's pixels, or why it cannot be decoded."""
    content: Any = record.content
    try:
        if isinstance(content, Path):
            content = content.read_bytes()
            if hashlib.sha256(content).hexdigest() != expected:
                raise refusal(record.place, "changed while it was read; run again")
        elif not isinstance(content, np.ndarray):
            content = content()
        return decode_image(content, *preprocessing)
    except UnreadableImage as error:
        return error.reason
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
