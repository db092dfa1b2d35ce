"""The image store: every image decoded and resized once, into one uint8 file that all workers and later studies map.

An entry of `cache.Cache`, its key made of what determines its pixels: the digests of the source files in their order, the
preprocessing, the decoder's and Pillow's versions. Digests are remembered, so that a second start does not read 100,000 files again,
while path, size, modification and change time are what they were.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import PIL

from searchft.cache import Cache, Opened
from searchft.data.decode import DECODER_VERSION, MAX_FILE_BYTES, UnreadableImage, decode_image
from searchft.data.records import Record, refusal
from searchft.errors import StorageError
from searchft.faults import fault
from searchft.files import read_json, sha256_of, write_atomic
from searchft.recipe import digest

PIXELS = "pixels.bin"
_CHUNK = 32  # images per task: enough to hide a task's own cost, few enough to keep all threads busy to the end
SETTLED_NS = 2_000_000_000
"""A file changed less than this before it was hashed is hashed again: two writes in one tick of the clock look like one."""

T = TypeVar("T")
Progress = Callable[[int, int], None]  # receives (done, all) now and then


class Preprocessing(NamedTuple):
    """What is done to an image before it is stored."""

    size: int  # side of the stored square in pixels
    resize: str
    interpolation: str

    def parts(self) -> list[Any]:
        """What keys are made of."""
        return [*self, DECODER_VERSION]


class Pixels(NamedTuple):
    """An open store."""

    folder: Path
    values: np.ndarray  # uint8 [N, S, S, 3], memory-mapped copy-on-write: writing to it never reaches the file
    rejected: Mapping[int, str]  # position among the records asked for, and why that one has no row


def in_threads(work: Callable[[range], T], count: int, chunk: int) -> Iterator[T]:
    """`work` of each range of `chunk` numbers below `count`, in order, a thread per processor; few are done ahead of the reader."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(threads)
    pending: deque[Future[T]] = deque()
    try:
        for start in range(0, count, chunk):
            pending.append(pool.submit(work, range(start, min(start + chunk, count))))
            if len(pending) > 4 * threads:
                yield pending.popleft().result()
        for done in pending:
            yield done.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def source_digests(
    records: Sequence[Record], where: str, cache: Path, progress: Progress | None = None
) -> list[tuple[str, str]]:
    """For each record (digest in hex, ""), or ("", reason) where it cannot be read.

    `where` names the source: each has a file of its own in `cache`. An array's digest is of its values, shape and dtype.
    """
    memory = cache / "hashes" / f"{hashlib.sha256(where.encode('utf-8', 'surrogateescape')).hexdigest()[:24]}.json"
    known = _load(memory)
    found: list[tuple[str, str]] = [("", "")] * len(records)
    fresh: dict[str, list[Any]] = {}
    todo: list[int] = []
    for i, record in enumerate(records):
        old = known.get(str(record.content)) if isinstance(record.content, Path) else None
        if old is not None and old[:-1] == _stamp(record.content):
            found[i] = (old[-1], "")
            fresh[str(record.content)] = old
        else:
            todo.append(i)

    def hash_some(places: range) -> int:
        for i in (todo[place] for place in places):
            content = records[i].content
            try:
                if not isinstance(content, Path):
                    array = content if isinstance(content, np.ndarray) else np.asarray(content())
                    values = f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes()
                    found[i] = (hashlib.sha256(values).hexdigest(), "")
                    continue
                stamp = _stamp(content)
                if stamp is not None and stamp[0] > MAX_FILE_BYTES:
                    found[i] = ("", f"is larger than {MAX_FILE_BYTES // 2**20} MiB")
                    continue
                found[i] = (sha256_of(content), "")
                if stamp is not None and time.time_ns() - max(stamp[1:]) > SETTLED_NS:
                    fresh[str(content)] = [*stamp, found[i][0]]
            except (OSError, ValueError) as error:
                found[i] = ("", f"cannot be read: {getattr(error, 'strerror', None) or error}")
        return len(places)

    done = len(records) - len(todo)
    for count in in_threads(hash_some, len(todo), 64):
        done += count
        if progress is not None:
            progress(done, len(records))
    if fresh and fresh != known:
        with contextlib.suppress(OSError, StorageError):  # without it the next start only reads the files again
            write_atomic(memory, json.dumps(fresh, separators=(",", ":")).encode("ascii"))
    return found


def _stamp(path: Any) -> list[int] | None:
    """Size, modification and change time, or None where there is no file: hashing it will say why."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _load(memory: Path) -> dict[str, list[Any]]:
    """[size, modification time, change time, digest] by path; nothing where the file is missing or damaged."""
    try:
        return {path: row for path, row in read_json(memory).items() if len(row) == 4 and isinstance(row[3], str)}
    except (OSError, StorageError, AttributeError, TypeError):
        return {}


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
