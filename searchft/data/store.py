"""The store: every picture decoded and resized once, into one uint8 file that all workers and later studies map.

A store is a folder named by what determines its pixels: the digests of the source files in their order, the
preprocessing, the decoder's and Pillow's versions. It holds

- `pixels.npy`: uint8 [N, S, S, 3], the splits one after the other, and
- `index.sealed`: its SHA-256, and which files turned out to be unreadable.

It is built in a folder of another name, synced and renamed under a lock: whoever comes second waits and finds it
ready. Damage (a flipped byte, a cut file) is noticed on opening, and the driver builds it again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from searchft.data.decode import DECODER_VERSION, UnreadableImage, decode_image
from searchft.data.hashes import thread_count
from searchft.data.records import Record
from searchft.errors import InputError, Problem, StorageError
from searchft.faults import fault
from searchft.files import lock_file, sha256_of, write_atomic
from searchft.recipe import digest

FULL_CHECK_BYTES = 512 * 1024 * 1024
"""Stores up to this size are hashed on every opening (about a second a gigabyte); larger ones if size or time changed."""

_CHUNK = 32
"""Pictures per task: enough to hide a task's own cost, few enough to keep all threads busy to the end."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture before it is stored."""

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


def store_key(digests: Sequence[str], preprocessing: Preprocessing) -> str:
    """Name of the store of these source files, in this order."""
    rows = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return digest([rows, preprocessing.parts(), PIL.__version__])[:32]


def open_store(
    records: Sequence[Record],
    digests: Sequence[str],
    preprocessing: Preprocessing,
    root: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Pixels:
    """The store of these records under `root`, built if it is not there or damaged.

    `progress` hears (decoded, all) now and then. Raises InputError if a file changes while it is read, StorageError
    where the disk is full.
    """
    key = store_key(digests, preprocessing)
    folder = root / key
    with lock_file(root / "locks" / f"{key}.lock"):
        try:
            pixels = read_store(folder)
        except (StorageError, FileNotFoundError):
            shutil.rmtree(folder, ignore_errors=True)
            _build(records, digests, preprocessing, folder, progress)
            pixels = read_store(folder)
    os.utime(folder)  # what was used last goes last when the cache is cleared
    return pixels


def read_store(folder: Path) -> Pixels:
    """Opens a finished store. Raises FileNotFoundError if there is none, StorageError if it is damaged."""
    index = read_sealed(folder / "index.sealed")
    path = folder / "pixels.npy"
    state = path.stat()
    stamp = [state.st_size, state.st_mtime_ns]
    if state.st_size != index["stamp"][0] or (
        (state.st_size <= FULL_CHECK_BYTES or stamp != index["stamp"]) and sha256_of(path) != index["sha256"]
    ):
        raise StorageError(f"{path} is damaged: run again and it is built anew", str(path))
    values = np.load(path, mmap_mode="c", allow_pickle=False)
    return Pixels(folder, values, {int(row): str(reason) for row, reason in index["rejected"]})


def read_sealed(path: Path) -> Any:
    """The value that `write_sealed` wrote. Raises FileNotFoundError, or StorageError if it is not what was written."""
    seal, _, text = path.read_bytes().partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != seal:
        raise StorageError(f"{path} is damaged: run again and it is built anew", str(path))
    return json.loads(text)


def write_sealed(path: Path, value: Any) -> None:
    """Writes the SHA-256 of a value's JSON in one line and the JSON in the next, atomically."""
    text = json.dumps(value, separators=(",", ":")).encode()
    write_atomic(path, hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def _build(
    records: Sequence[Record],
    digests: Sequence[str],
    preprocessing: Preprocessing,
    folder: Path,
    progress: Callable[[int, int], None] | None,
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    for stale in folder.parent.glob(f".{folder.name}.*"):  # left by a killed builder: we hold the lock, so nobody is at it
        shutil.rmtree(stale, ignore_errors=True)
    making = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        path = making / "pixels.npy"
        size = preprocessing.size
        rejected = _decode_all(records, digests, preprocessing, path, progress)
        if rejected:
            kept = [i for i in range(len(records)) if i not in rejected]
            whole = np.load(path, mmap_mode="r")
            part = _new_array(making / "kept.npy", len(kept), size)
            for row, i in enumerate(kept):
                part[row] = whole[i]
            part.flush()
            os.replace(making / "kept.npy", path)
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        state = path.stat()
        write_sealed(
            making / "index.sealed",
            {
                "sha256": sha256_of(path),
                "stamp": [state.st_size, state.st_mtime_ns],
                "rejected": sorted(rejected.items()),
                "preprocessing": preprocessing.parts(),
                "pillow": PIL.__version__,
            },
        )
        fault("images.writing", folder.name)
        os.chmod(making, 0o755)
        os.rename(making, folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG):
            raise StorageError(
                f"cannot write {folder}: {error.strerror}. Free some space and run again.", str(folder)
            ) from error
        raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _new_array(path: Path, count: int, size: int) -> np.memmap:
    """A new uint8 [count, size, size, 3] file whose disk space is taken now.

    A sparse file on a full disk kills the process when its mapping is written to; reserving it raises OSError instead.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, size, size, 3))
    with open(path, "r+b") as file:
        length = os.fstat(file.fileno()).st_size
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, length)
        else:
            file.seek(length - array.nbytes)
            for start in range(0, array.nbytes, 1 << 24):
                file.write(bytes(min(1 << 24, array.nbytes - start)))
    return array


def _decode_all(
    records: Sequence[Record],
    digests: Sequence[str],
    preprocessing: Preprocessing,
    path: Path,
    progress: Callable[[int, int], None] | None,
) -> dict[int, str]:
    """Decodes into a new file at `path`; returns the rows that stayed empty, with reasons.

    Threads suffice: Pillow lets go of the interpreter while it decodes and resizes, and nothing has to be started,
    imported or sent to another process.
    """
    rejected: dict[int, str] = {}
    array = _new_array(path, len(records), preprocessing.size)

    def some_rows(start: int) -> int:
        stop = min(start + _CHUNK, len(records))
        for row in range(start, stop):
            try:
                array[row] = _decode(records[row], digests[row], preprocessing)
            except UnreadableImage as error:
                rejected[row] = error.reason
        return stop - start

    pool = ThreadPoolExecutor(thread_count())
    try:
        done = 0
        for count in pool.map(some_rows, range(0, len(records), _CHUNK)):
            done += count
            if progress is not None:
                progress(done, len(records))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    array.flush()
    return rejected


def _decode(record: Record, expected: str, preprocessing: Preprocessing) -> np.ndarray:
    settings = (preprocessing.size, preprocessing.resize, preprocessing.interpolation)
    if isinstance(record.content, Path):
        try:
            content = record.content.read_bytes()
        except OSError as error:
            raise UnreadableImage(f"cannot be read: {error.strerror or error}") from error
        if hashlib.sha256(content).hexdigest() != expected:
            raise InputError(Problem(record.place, "data.source", "changed while it was read; run again"))
        return decode_image(content, *settings)
    if isinstance(record.content, np.ndarray):
        return decode_image(record.content, *settings)
    return decode_image(record.content(), *settings)
