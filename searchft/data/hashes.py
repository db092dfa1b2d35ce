"""SHA-256 of every source image, remembered so that a second start does not read 100,000 files again.

A remembered digest holds while path, size, modification and change time are what they were, if the file had been left alone for
a while when it was hashed (a file written twice within one tick of the clock looks unchanged).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from searchft.data.decode import MAX_FILE_BYTES
from searchft.data.records import Record
from searchft.errors import StorageError
from searchft.files import read_json, sha256_of, write_atomic

SETTLED_NS = 2_000_000_000
"""A file changed less than this before it was hashed is hashed again next time."""

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Receives (done, all) now and then."""


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
