"""Content-keyed arrays on the disk: built once by whoever comes first, then mapped by every process that needs them.

    <root>/<key>/NAME               one file per array, raw
    <root>/<key>/manifest.sealed    name, dtype, shape, layout and SHA-256 of each file, and the builder's notes; written last
    <root>/<key>/held               shared lock (flock) of every process that has the arrays mapped; it holds the bytes reserved,
                                    and its time is the last opening's
    <root>/.building-<key>/         what a builder writes; renamed when whole
    <root>/locks/<key>.lock         its holder builds, others wait; `budget.lock` guards removing and reserving

Maps are private (copy on write): a write by mistake reaches no file. All locks are the kernel's: they vanish with their holder.
Sizes are compared on every opening, the SHA-256 on the first of a `Cache` and whenever a file's size, time or inode is not what
was verified; what is damaged is built again. Entries least recently used go until a new one fits the budget; what a living
process has mapped never goes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path
from typing import Any

import numpy as np

from searchft.errors import StorageError
from searchft.faults import fault
from searchft.files import disk_bytes, is_disk_error, lock_file, read_sealed, sha256_of, sync_folder, write_sealed

FORMAT = 2  # layout of an entry; another number is another cache
FULL_CHECK_BYTES = 1 << 30
"""Files up to this size (about a second) are hashed on the first opening; larger ones only if their time is not the builder's."""

MANIFEST = "manifest.sealed"
_HELD = "held"
_MARKS = (_HELD, MANIFEST, "manifest.json", "index.sealed")  # the last two: entries of earlier versions
_KEY = re.compile(r"[0-9a-f]+")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Builder = Callable[[Callable[[int], Path]], dict[str, Any]]
"""Calls its argument, once, with the bytes that its files will take, writes them into the folder that it gets, and returns
{"files": [{"name", "dtype", "shape", "layout"}, …], and notes of its own as JSON}."""


class CacheRefusal(StorageError):
    """An entry cannot be kept: the budget or the disk is full. Nothing is lost. `reason` says why, without the path."""

    def __init__(self, reason: str, path: Path) -> None:
        super().__init__(f"cannot write {path}: {reason}. Free some space and run again.", str(path))
        self.reason = reason


@dataclass(frozen=True)
class Opened:
    """An entry, which nobody removes as long as one of its arrays (or a view of one) lives."""

    folder: Path
    manifest: Mapping[str, Any]
    arrays: list[np.ndarray]  # uint8 [bytes], one per file of the manifest


@dataclass(frozen=True)
class Entry:
    """What is known of an entry without opening it."""

    key: str
    size_bytes: int
    used: float  # Unix time of the last opening
    held: bool  # whether a living process has it mapped


class Cache:
    """The entries below a folder, within a budget (None: what the disk has)."""

    def __init__(self, root: Path, budget_bytes: int | None = None) -> None:
        self.root = Path(root)
        self.budget_bytes = budget_bytes
        self._verified: dict[Path, tuple[int, ...]] = {}

    def open(
        self, key: str, build: Builder | None = None, fits: Callable[[Mapping[str, Any]], bool] = lambda manifest: True
    ) -> Opened | None:
        """The entry of `key`; where it is missing, damaged or its manifest does not fit, `build` makes it, under a lock for which
        others wait. None where there is none and no `build`.

        Raises CacheRefusal where it cannot be kept, StorageError where the disk fails, and what `build` raises; nothing remains then.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"key must be lower-case hex but got {key!r}")
        found = self._map(key, fits)
        if found is None and build is not None:
            with self._lock(key):
                found = self._map(key, fits) or self._build(key, build, fits)
        return found

    def entries(self) -> list[Entry]:
        """What is stored, least recently used first."""
        folders = [f for f in self.root.iterdir() if _KEY.fullmatch(f.name)] if self.root.is_dir() else []
        found = [_entry(f) for f in folders if not f.is_symlink() and any((f / mark).exists() for mark in _MARKS)]
        return sorted(found, key=lambda entry: (entry.used, entry.key))

    def clear(self) -> int:
        """Removes all that no living process holds; gives the bytes freed."""
        if not self.root.is_dir():
            return 0
        with self._lock("budget"):
            self._sweep()
            return sum(entry.size_bytes for entry in self.entries() if self._remove(self.root / entry.key))

    def _lock(self, name: str) -> contextlib.AbstractContextManager[Any]:
        return lock_file(self.root / "locks" / f"{name}.lock")

    # Opening

    def _map(self, key: str, fits: Callable[[Mapping[str, Any]], bool]) -> Opened | None:
        folder = self.root / key
        hold = _lock_held(folder, LOCK_SH)
        manifest = self._checked(folder) if hold is not None else None
        if hold is None or manifest is None or not fits(manifest):
            return None
        with contextlib.suppress(OSError):  # a cache that this user may only read
            os.utime(hold.handle)
        return Opened(folder, manifest, [_mapped(folder / file["name"], file["bytes"], hold) for file in manifest["files"]])

    def _checked(self, folder: Path) -> dict[str, Any] | None:
        """The manifest, if everything it says is true."""
        try:
            manifest: dict[str, Any] = read_sealed(folder / MANIFEST)
            if manifest["format"] != FORMAT:
                return None
            for file in manifest["files"]:
                path = folder / file["name"]
                state = path.stat()
                stamp = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
                if state.st_size != file["bytes"]:
                    return None
                if self._verified.get(path) == stamp:
                    continue
                spared = state.st_size > FULL_CHECK_BYTES and state.st_mtime_ns == file["mtime_ns"]
                if not spared and sha256_of(path) != file["sha256"]:
                    return None
                self._verified[path] = stamp
        except (OSError, StorageError, KeyError, TypeError):
            return None
        return manifest

    # Building (under the key's lock)

    def _build(self, key: str, build: Builder, fits: Callable[[Mapping[str, Any]], bool]) -> Opened:
        folder, building = self.root / key, self.root / f".building-{key}"
        hold: _Hold | None = None

        def reserve(need: int) -> Path:
            nonlocal hold
            with self._lock("budget"):
                self._sweep()
                self._remove(folder, damaged=True)
                self._remove(building, damaged=True)
                self._make_room(need, folder)
                building.mkdir()
                hold = _Hold(os.open(building / _HELD, os.O_CREAT | os.O_RDWR, 0o666))
                flock(hold.handle, LOCK_SH)
                os.write(hold.handle, str(need).encode())
            return building

        try:
            manifest = build(reserve) | {"format": FORMAT}
            for file in manifest["files"]:
                file.update(_synced(building / file["name"]))
            write_sealed(building / MANIFEST, manifest)
            fault("cache.written", key)
            with self._lock("budget"):
                building.rename(folder)
            fault("cache.renamed", key)
            sync_folder(self.root)
            found = self._map(key, fits)  # while the builder's hold keeps it from being removed
        except (OSError, StorageError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if isinstance(cause, OSError) and cause.errno in _NO_SPACE:
                raise CacheRefusal(f"the disk is full ({self.root})", folder) from error
            if isinstance(error, OSError) and is_disk_error(error):
                rule = f"cannot write {folder}: {error.strerror}. Mend the disk and run again."
                raise StorageError(rule, str(folder)) from error
            raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
        if found is None:
            raise CacheRefusal("the disk gives back other bytes than were written", folder)
        return found

    # Removing (under budget.lock)

    def _make_room(self, need: int, path: Path) -> None:
        if self.budget_bytes is None:
            return
        entries = self.entries()
        free = [entry for entry in entries if not entry.held]
        taken = sum(entry.size_bytes for entry in (*entries, *map(_entry, self.root.glob(".building-*"))))
        kept = taken - sum(entry.size_bytes for entry in free)
        if kept + need <= self.budget_bytes:
            while free and taken + need > self.budget_bytes:
                entry = free.pop(0)
                taken -= entry.size_bytes if self._remove(self.root / entry.key) else 0
            kept = taken  # one that another process has opened meanwhile stays
        if kept + need > self.budget_bytes:
            others = f", of which others hold {kept}" if kept else ""
            raise CacheRefusal(f"needs {need} bytes, the budget is {self.budget_bytes}{others}", path)

    def _sweep(self) -> None:
        """Removes what dead builders and half-done removals left."""
        for folder in [*self.root.glob(".building-*"), *self.root.glob(".gone-*")]:
            self._remove(folder)

    def _remove(self, folder: Path, damaged: bool = False) -> bool:
        """Moves a folder out of sight, then deletes it. What a process holds stays, unless it is damaged: maps outlive their names."""
        lock = _lock_held(folder, LOCK_EX | LOCK_NB)
        if not folder.exists() or (lock is None and (folder / _HELD).exists() and not damaged):
            return False
        gone = folder.rename(folder.with_name(f".gone-{os.urandom(8).hex()}"))
        shutil.rmtree(gone, ignore_errors=True)
        return True


class _Hold:
    """A lock on an entry, given up when nothing refers to it any more."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __del__(self) -> None:
        os.close(self.handle)


def _lock_held(folder: Path, kind: int) -> _Hold | None:
    """A lock on an entry, or None: there is no entry (any more), or `kind` does not wait and somebody holds it."""
    while True:
        try:
            hold = _Hold(os.open(folder / _HELD, os.O_RDONLY if kind == LOCK_SH else os.O_RDWR))
            flock(hold.handle, kind)
        except OSError:
            return None
        with contextlib.suppress(OSError):
            if (folder / _HELD).stat().st_ino == os.fstat(hold.handle).st_ino:
                return hold
        # It was removed, or replaced, between opening and locking: look again.


def _entry(folder: Path) -> Entry:
    try:
        size, used = int((folder / _HELD).read_text()), (folder / _HELD).stat().st_mtime
    except (OSError, ValueError):  # half gone, damaged, or of an earlier version: counts with what it takes up, and goes first
        size, used = disk_bytes(folder), 0.0
    held = (folder / _HELD).exists() and _lock_held(folder, LOCK_EX | LOCK_NB) is None
    return Entry(folder.name, size, used, held)


def _mapped(path: Path, size: int, hold: _Hold) -> np.ndarray:
    """uint8 [size]; every view of it keeps it, and it keeps the hold."""
    if not size:
        return np.empty(0, np.uint8)
    array = np.memmap(path, dtype=np.uint8, mode="c")
    array.hold = hold  # type: ignore[attr-defined]
    return array


def _synced(path: Path) -> dict[str, Any]:
    """Size, time and SHA-256 of a file that is now on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    state = path.stat()
    return {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns, "sha256": sha256_of(path)}
