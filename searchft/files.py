"""Files that matter: written whole or not at all, read with a word about what is wrong.

Every write goes to a temporary name in the same folder, is synced, and then renamed over the target: a kill or a full
disk leaves the old file or the new one. A sealed file ends with the SHA-256 of what stands before it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import filelock

from searchft.errors import StorageError
from searchft.faults import fault

LAST_CHECKPOINT = "last.ckpt"  # in a trial's folder: what its next epoch needs
BEST_WEIGHTS = "best.safetensors"  # in a trial's folder: what its best epoch changed in the network
_UMASK = os.umask(0o022)
os.umask(_UMASK)
_NETWORK = "nfs nfs4 cifs smb3 smbfs sshfs afs ceph lustre gpfs glusterfs beegfs pvfs2 orangefs"
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
_DIGEST_LENGTH = 64


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
        if sync:
            sync_folder(path.parent)
    except OSError as error:
        if is_disk_error(error):
            raise StorageError(f"cannot write {path}: {error.strerror}. Free some space and run again.", str(path)) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Makes renames in a folder outlive a power cut."""
    with _opened(path) as handle:
        os.fsync(handle)


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


class Sealing:
    """Writes to a file and knows the SHA-256 of what has passed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


@contextlib.contextmanager
def replacing_sealed(path: Path, sync: bool = True) -> Iterator[Sealing]:
    """As `replacing`; when the block ends, the file gets its seal."""
    with replacing(path, sync) as file:
        sealing = Sealing(file)
        yield sealing
        file.write(sealing.digest.hexdigest().encode())


def read_sealed_bytes(path: Path) -> bytes:
    """What was written before the seal. Raises FileNotFoundError, or StorageError if it is not what was written."""
    content = Path(path).read_bytes()
    payload, digest = content[:-_DIGEST_LENGTH], content[-_DIGEST_LENGTH:]
    if hashlib.sha256(payload).hexdigest().encode() != digest:
        raise StorageError(f"{path} is damaged: run again and it is built anew", str(path))
    return payload


def write_sealed(path: Path, value: Any, sync: bool = True) -> None:
    """Replaces `path` by a sealed JSON value."""
    with replacing_sealed(path, sync) as file:
        file.write(json.dumps(value, separators=(",", ":")).encode())


def read_sealed(path: Path) -> Any:
    """The JSON value that `write_sealed` wrote; raises as `read_sealed_bytes`."""
    return json.loads(read_sealed_bytes(path))


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


def disk_bytes(path: Path) -> int:
    """Bytes of a file or of all files below a folder; links are not followed, and what vanishes meanwhile counts nothing."""
    total = 0
    for file in (path, *path.rglob("*")):
        with contextlib.suppress(OSError):
            total += 0 if file.is_dir() and not file.is_symlink() else file.lstat().st_size
    return total


def cache_folder() -> Path:
    """Where stores shared by all studies live: `SEARCHFT_CACHE`, or `searchft` in the user's cache folder."""
    if chosen := os.environ.get("SEARCHFT_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "searchft"


def store_budget_bytes(folder: Path) -> int:
    """How much stored values may take: a quarter of what the disk under `folder` has free."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free // 4


@contextlib.contextmanager
def socket_timeout(seconds: float) -> Iterator[None]:
    """Within the block a server that says nothing for so long has failed: for libraries that take no timeout."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def lock_file(path: Path) -> filelock.FileLock:
    """A lock of the kernel on `path`, released when its holder dies. Raises StorageError where the file system has none."""
    # filelock would in silence let a file stand for a lock, which outlives its holder.
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _opened(path.parent) as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            rule = f"{path.parent} lies on a file system without locks ({error.strerror}): use a folder on another disk"
            raise StorageError(rule, str(path.parent)) from error
    return filelock.FileLock(path, mode=0o644)


def network_file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The kind of network file system that `folder` lies on (`nfs4`, say); empty: none, or `mounts` does not tell."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    found = ("", "")
    for _, point, kind, *_ in (line.split(" ") for line in lines):
        point = point.replace("\\040", " ")
        if folder.resolve().is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, kind)
    return found[1] if found[1].removeprefix("fuse.") in _NETWORK.split() else ""


def trial_folder(study_folder: Path, number: int) -> Path:
    """Where a trial keeps its checkpoint: `trials/0007`."""
    return study_folder / "trials" / f"{number:04d}"
