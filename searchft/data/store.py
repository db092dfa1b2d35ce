"""The image store: every image decoded and resized once, into one uint8 file that all workers and later studies map.

An entry of `cache.Cache`, named by what determines its pixels: the digests of the source files in their order, the
preprocessing, the decoder's and Pillow's versions.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from searchft.cache import Cache, Opened
from searchft.data.decode import DECODER_VERSION, UnreadableImage, decode_image
from searchft.data.hashes import thread_count
from searchft.data.records import Record
from searchft.errors import InputError, Problem, StorageError
from searchft.faults import fault
from searchft.recipe import digest

PIXELS = "pixels.bin"

_CHUNK = 32
"""Images per task: enough to hide a task's own cost, few enough to keep all threads busy to the end."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before it is stored."""

    size: int
    """Side of the stored square in pixels."""
    resize: str
    interpolation: str

    def parts(self) -> list[Any]:
        """What keys are made of."""
        return [self.size, self.resize, self.interpolation, DECODER_VERSION]


@dataclass(frozen=True)
class Pixels:
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
    progress: Callable[[int, int], None] | None = None,
) -> Pixels:
    """The store of these records under `root`, built if it is not there or damaged.

    `progress` receives (decoded, all) now and then. Raises InputError if a file changes while it is read, StorageError
    where the disk is full.
    """

    def build(reserve: Callable[[int], Path]) -> dict[str, Any]:
        shape = [preprocessing.size, preprocessing.size, 3]
        path = reserve(len(records) * math.prod(shape)) / PIXELS
        rejected: list[tuple[int, str]] = []
        with open(path, "wb") as file:
            for row, pixels in enumerate(_decode_all(records, digests, preprocessing)):
                if isinstance(pixels, str):
                    rejected.append((row, pixels))
                else:
                    file.write(pixels.data)
                if progress is not None and (row + 1 == len(records) or (row + 1) % _CHUNK == 0):
                    progress(row + 1, len(records))
        fault("images.writing", path.parent.name)
        count = len(records) - len(rejected)
        files = [{"name": PIXELS, "dtype": "uint8", "shape": [count, *shape], "layout": "contiguous"}]
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


def _decode_all(records: Sequence[Record], digests: Sequence[str], preprocessing: Preprocessing) -> Iterator[np.ndarray | str]:
    """Each record's pixels, or why it cannot be decoded, in order.

    Threads suffice: Pillow lets go of the interpreter while it decodes and resizes. No more is decoded ahead of the disk than
    keeps them busy.
    """

    def decode_some(start: int) -> list[np.ndarray | str]:
        stop = min(start + _CHUNK, len(records))
        return [_decode(records[row], digests[row], preprocessing) for row in range(start, stop)]

    pool = ThreadPoolExecutor(thread_count())
    pending: deque[Future[list[np.ndarray | str]]] = deque()
    try:
        for start in range(0, len(records), _CHUNK):
            pending.append(pool.submit(decode_some, start))
            if len(pending) > 4 * thread_count():
                yield from pending.popleft().result()
        for done in pending:
            yield from done.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decode(record: Record, expected: str, preprocessing: Preprocessing) -> np.ndarray | str:
    content: Any = record.content
    try:
        if isinstance(content, Path):
            content = content.read_bytes()
            if hashlib.sha256(content).hexdigest() != expected:
                raise InputError(Problem(record.place, "data.source", "changed while it was read; run again"))
        elif not isinstance(content, np.ndarray):
            content = content()
        return decode_image(content, preprocessing.size, preprocessing.resize, preprocessing.interpolation)
    except UnreadableImage as error:
        return error.reason
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
