"""Files that matter: written whole or not at all, read with a word about what is wrong.

Every write goes to a temporary name in the same folder, is synced, and then renamed over the target: a kill or a full
disk leaves the old file or the new one, never half of either.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import filelock

from searchft.errors import StorageError
from searchft.faults import fault

LAST_CHECKPOINT = "last.ckpt"
"""In a trial's folder: what its next epoch needs."""

BEST_WEIGHTS = "best.safetensors"
"""In a trial's folder: what its best epoch changed in the network."""

_UMASK = os.umask(0o022)
os.umask(_UMASK)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)


@contextlib.contextmanager
def replacing(path: Path, sync: bool = True) -> Iterator[IO[bytes]]:
    """Opens a binary file that replaces `path` when the block ends without an error.

    `sync=False` leaves the moment of writing to the operating system: safe against a kill, not against a power cut.

    Raises StorageError where the disk is full, read-only or failing; what stood at `path` is then untouched.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o666 & ~_UMASK)  # as any other program's files; mkstemp's are for their maker alone
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        fault("files.written", path.name)
        os.replace(temporary, path)
        temporary = None
        fault("files.replaced", path.name)
        if not sync:
            return
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise StorageError(f"cannot write {path}: {error.strerror}. Free some space and run again.", str(path)) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes) -> None:
    """Replaces `path` by `content`, whole or not at all. Raises StorageError where the disk refuses."""
    with replacing(path) as file:
        file.write(content)


def write_json(path: Path, value: Any) -> None:
    """Replaces `path` by JSON (UTF-8, indented, NaN refused with ValueError)."""
    write_atomic(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The JSON value in `path`. Raises StorageError naming the file if it is damaged, FileNotFoundError if absent."""
    try:
        return json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise StorageError(f"{path} is damaged: {error}", str(path)) from error


def is_disk_error(error: OSError) -> bool:
    """Whether the disk is full, read-only or failing: nothing that a trial has done."""
    return error.errno in _DISK_ERRORS


def remove_leftovers(folder: Path) -> None:
    """Removes what killed writers left in `folder` under temporary names. For whoever holds the folder's lock."""
    for path in Path(folder).glob(".*.part"):
        path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where stores shared by all studies live: `SEARCHFT_CACHE`, or `searchft` in the user's cache folder."""
    chosen = os.environ.get("SEARCHFT_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "searchft"


def store_budget_bytes(folder: Path) -> int:
    """How much stored values may take: a quarter of what the disk under `folder` has free."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free // 4


def lock_file(path: Path) -> filelock.FileLock:
    """An operating-system lock on `path` (released by the kernel when its holder dies)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(path, mode=0o644)
