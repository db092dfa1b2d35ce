"""SHA-256 of every source image, remembered so that a second start does not read 100,000 files again.

A file's digest is taken from memory only if path, size, modification and change time are what they were, and the file
had been left alone for a while when it was hashed (a file written twice within one tick of the clock looks unchanged).
Content decides everything else: touching a file costs one read and changes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from searchft.data.decode import MAX_FILE_BYTES
from searchft.data.records import Content, Record
from searchft.errors import StorageError
from searchft.files import read_json, sha256_of, write_atomic

SETTLED_NS = 2_000_000_000
"""A file changed less than this before it was hashed is hashed again next time."""

_CHUNK = 64
"""Files per task."""


def thread_count() -> int:
    """Threads for hashing and decoding: the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def digest_of(content: Content) -> str:
    """SHA-256 in hex of a file's bytes, an array's values and shape, or a fetched picture's. Raises OSError, ValueError."""
    if isinstance(content, Path):
        return sha256_of(content)
    array = content if isinstance(content, np.ndarray) else np.asarray(content())
    return hashlib.sha256(f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def source_digests(
    records: Sequence[Record], where: str, cache: Path, progress: Callable[[int, int], None] | None = None
) -> list[tuple[str, str]]:
    """For each record (digest, ""), or ("", reason) where it cannot be read.

    `where` names the source: each has a file of its own in `cache` (written atomically; a damaged one is ignored).
    """
    memory = cache / "hashes" / f"{hashlib.sha256(where.encode('utf-8', 'surrogateescape')).hexdigest()[:24]}.json"
    known = _load(memory)
    fresh: dict[str, list[object]] = {}
    found: list[tuple[str, str] | None] = [None] * len(records)
    todo: list[int] = []
    for i, record in enumerate(records):
        if isinstance(record.content, Path):
            path = str(record.content)
            old = known.get(path)
            # A missing file is the hashing's business, where it gets its reason.
            if isinstance(old, list) and len(old) == 4 and isinstance(old[3], str) and old[:3] == _stamp(path):
                found[i] = (old[3], "")
                fresh[path] = old
                continue
        todo.append(i)

    def hash_some(indices: Sequence[int]) -> list[tuple[int, tuple[str, str], list[object] | None]]:
        return [(i, *_hash(records[i].content)) for i in indices]

    pool = ThreadPoolExecutor(thread_count())
    try:
        chunks = [todo[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)]
        done = len(records) - len(todo)
        for results in pool.map(hash_some, chunks):
            for i, answer, remembered in results:
                found[i] = answer
                if remembered is not None:
                    fresh[str(records[i].content)] = remembered
            done += len(results)
            if progress is not None:
                progress(done, len(records))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if fresh and fresh != known:
        with contextlib.suppress(OSError, StorageError):  # only a memory: without it the next start reads the files again
            write_atomic(memory, json.dumps(fresh, separators=(",", ":")).encode("ascii"))
    return [answer for answer in found if answer is not None]


def _stamp(path: str) -> list[object] | None:
    """Size, modification and change time, or None where there is no file."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _hash(content: Content) -> tuple[tuple[str, str], list[object] | None]:
    """(digest, reason), and what to remember of a file that has settled."""
    if not isinstance(content, Path):
        try:
            return (digest_of(content), ""), None
        except (OSError, ValueError) as error:
            return ("", f"cannot be read: {error}"), None
    try:
        before = content.stat()
        if before.st_size > MAX_FILE_BYTES:
            return ("", f"is larger than {MAX_FILE_BYTES // 2**20} MiB"), None
        digest = digest_of(content)
        settled = time.time_ns() - max(before.st_mtime_ns, before.st_ctime_ns) > SETTLED_NS
        return (digest, ""), [before.st_size, before.st_mtime_ns, before.st_ctime_ns, digest] if settled else None
    except OSError as error:
        return ("", f"cannot be read: {error.strerror or error}"), None


def _load(memory: Path) -> dict[str, object]:
    try:
        value = read_json(memory)
    except (OSError, StorageError):
        return {}
    return value if isinstance(value, dict) else {}
