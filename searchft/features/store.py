"""Keeps frozen values on disk: computed once, by whoever comes first, and shared by every trial, worker and study.

    <root>/<key>/0.bin, 1.bin, …   one raw file per crossing value, row after row
    <root>/<key>/manifest.json     shapes, dtypes, layouts, SHA-256 of each file; written last
    <root>/<key>/held              shared lock (flock) of every process that has the values mapped
    <root>/.building-<key>/        what a builder is writing (its `held` is locked); renamed when whole
    <root>/.locks/<key>.lock       who holds it builds, others wait

Values come back as torch tensors over private memory maps: read on demand by the system, shared between processes as
long as nobody writes, and a write by mistake changes no file. numpy has no bfloat16: files are raw bytes, so nothing
is converted. 4-D values in channels_last lie on disk in that order and come back in it.

Damage: sizes are compared on every opening; the SHA-256 on the first opening in a process and whenever a file's time,
size or inode differs from what this process verified. What is damaged is built again.

Budget: before writing, entries least recently used (the time of `held`) go until the new one fits; what a living
process has mapped never goes. All locks are the kernel's: they vanish with their holder.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from searchft.errors import StorageError
from searchft.faults import fault
from searchft.files import lock_file, read_json, write_json

FORMAT = 1
"""Layout of the files; another number is another cache."""

CHUNK = 256
"""Images computed and written together: whole micro-batches, so that only the last one is padded."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Entry:
    """One stored set of values, for `searchft cache`."""

    key: str
    size_bytes: int
    used: float
    """Unix time of the last opening."""
    held: bool
    """Whether a living process has it mapped."""


class _Timed:
    """A `compute` that knows how long it took altogether: what using the values again saves."""

    def __init__(self, compute: Callable[[int, int], tuple[Tensor, ...]]) -> None:
        self._compute = compute
        self.seconds = 0.0

    def __call__(self, start: int, stop: int) -> tuple[Tensor, ...]:
        began = time.perf_counter()
        try:
            return self._compute(start, stop)
        finally:
            self.seconds += time.perf_counter() - began


class FeatureStore:
    """Frozen values by key, within a disk budget."""

    def __init__(self, root: Path, budget_bytes: int) -> None:
        self.root = Path(root)
        self.budget_bytes = budget_bytes
        self.refusal = ""
        """Why the last `values` gave None."""
        self.computed_s: dict[str, float] = {}
        """By key, of the values opened: how long computing them took, once."""
        self._verified: dict[Path, tuple[int, int, int]] = {}

    def values(self, key: str, count: int, compute: Callable[[int, int], tuple[Tensor, ...]] | None) -> list[Tensor] | None:
        """The values of `key`: CPU tensors [count, …] over memory maps, built by `compute` if they are not there.

        `compute(start, stop)` gives the rows start … stop-1 of every value, each [stop-start, …]. It is called for
        ascending, adjacent ranges, under a lock: other processes wait for the result. Gives None, with the reason in
        `refusal`, where the values do not fit the budget or the disk: then compute them batch by batch; also where
        `compute` is None and nothing usable is there. Whatever `compute` raises goes through and nothing remains.
        """
        if not key or any(c not in "0123456789abcdef" for c in key):
            raise ValueError(f"key must be lower-case hex but got {key!r}")
        if count < 1:
            raise ValueError(f"count must be at least 1 but got {count}")
        self.refusal = ""
        found = self._open(key, count)
        if found is not None or compute is None:
            self.refusal = "" if found is not None else "nothing is stored"
            return found
        with lock_file(self.root / ".locks" / f"{key}.lock"):
            found = self._open(key, count)
            if found is None and self._build(key, count, _Timed(compute)):
                found = self._open(key, count)
                if found is None:
                    self.refusal = "the disk gives back other bytes than were written"
            return found

    def entries(self) -> list[Entry]:
        """What is stored, least recently used first."""
        found = []
        for folder in self._folders():
            try:
                manifest = read_json(folder / "manifest.json")
                used = (folder / "held").stat().st_mtime
                size = sum(int(value["bytes"]) for value in manifest["values"])
            except Exception:  # half gone or damaged: counts with what it takes up, and goes first
                used, size = 0.0, _disk_bytes(folder)
            lock = _try_exclusive(folder / "held")
            if lock is not None:
                os.close(lock)
            found.append(Entry(folder.name, size, used, lock is None))
        return sorted(found, key=lambda entry: (entry.used, entry.key))

    def clear(self) -> int:
        """Removes all that no living process holds; gives the bytes freed."""
        with lock_file(self.root / ".locks" / "budget.lock"):
            self._sweep()
            return sum(entry.size_bytes for entry in self.entries() if not entry.held and self._remove(entry.key))

    # Opening

    def _open(self, key: str, count: int) -> list[Tensor] | None:
        folder = self.root / key
        hold = _hold(folder / "held")
        if hold is None:
            return None
        try:
            manifest = self._checked(folder, count)
            if manifest is None:
                os.close(hold)
                return None
            maps = [_mapped(folder / value["file"], value) for value in manifest["values"]]
        except BaseException:
            os.close(hold)
            raise
        os.utime(hold)
        self.computed_s[key] = float(manifest.get("seconds", 0.0))
        release = _Release(hold, len(maps))
        for raw, _ in maps:
            weakref.finalize(raw, release)
        return [tensor for _, tensor in maps]

    def _checked(self, folder: Path, count: int) -> dict[str, Any] | None:
        """The manifest, if everything it says is true."""
        try:
            manifest = json.loads((folder / "manifest.json").read_bytes())
            if manifest["format"] != FORMAT or manifest["count"] != count or not manifest["values"]:
                return None
            for value in manifest["values"]:
                path = folder / value["file"]
                stat = path.stat()
                if stat.st_size != value["bytes"] or stat.st_size != _bytes(value, count):
                    return None
                seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                if self._verified.get(path) != seen:
                    with open(path, "rb") as file:
                        if hashlib.file_digest(file, "sha256").hexdigest() != value["sha256"]:
                            return None
                    self._verified[path] = seen
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return manifest

    # Building

    def _build(self, key: str, count: int, compute: Callable[[int, int], tuple[Tensor, ...]]) -> bool:
        rows = [_host(t) for t in compute(0, min(CHUNK, count))]
        described = [_described(i, t, count) for i, t in enumerate(rows)]
        need = sum(value["bytes"] for value in described)
        building = self.root / f".building-{key}"
        with lock_file(self.root / ".locks" / "budget.lock"):
            self._sweep()
            self._remove(key)
            if not self._make_room(need):
                return False
            try:
                building.mkdir(parents=True)
                hold = os.open(building / "held", os.O_CREAT | os.O_RDWR, 0o644)
                fcntl.flock(hold, fcntl.LOCK_SH)
            except OSError as error:
                return self._full(error, building)
            try:
                write_json(building / "reserved.json", need)
            except (OSError, StorageError) as error:
                os.close(hold)
                return self._full(error, building)
        try:
            self._write(building, count, rows, described, compute)
            os.unlink(building / "reserved.json")
            fault("store.written", key)
            with lock_file(self.root / ".locks" / "budget.lock"):
                os.rename(building, self.root / key)
            fault("store.renamed", key)
            _sync_folder(self.root)
            return True
        except (OSError, StorageError) as error:
            return self._full(error, building)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        finally:
            os.close(hold)

    def _full(self, error: OSError | StorageError, building: Path) -> bool:
        shutil.rmtree(building, ignore_errors=True)
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError) or cause.errno not in _NO_SPACE:
            raise error
        self.refusal = f"the disk is full ({self.root})"
        return False

    @staticmethod
    def _write(
        folder: Path,
        count: int,
        rows: list[Tensor],
        described: list[dict[str, Any]],
        compute: Callable[[int, int], tuple[Tensor, ...]],
    ) -> None:
        files = [open(folder / value["file"], "wb") for value in described]  # noqa: SIM115 - closed below
        digests = [hashlib.sha256() for _ in files]
        try:
            start = 0
            while True:
                stop = min(start + CHUNK, count)
                for i, (tensor, value) in enumerate(zip(rows, described, strict=True)):
                    if _described(i, tensor, count) != value or len(tensor) != stop - start:
                        raise ValueError(
                            f"rows {start} to {stop} of value {i} have another shape, dtype or layout than the first"
                        )
                    raw = _raw(tensor)
                    files[i].write(raw)
                    digests[i].update(raw)
                fault("store.writing", folder.name)
                start = stop
                if start == count:
                    break
                rows = [_host(t) for t in compute(start, min(start + CHUNK, count))]
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        finally:
            for file in files:
                file.close()
        values = [value | {"sha256": digest.hexdigest()} for value, digest in zip(described, digests, strict=True)]
        seconds = round(getattr(compute, "seconds", 0.0), 4)
        write_json(folder / "manifest.json", {"format": FORMAT, "count": count, "values": values, "seconds": seconds})

    # Budget (all under budget.lock)

    def _make_room(self, need: int) -> bool:
        if need > self.budget_bytes:
            self.refusal = f"needs {need} bytes, the budget is {self.budget_bytes}"
            return False
        entries = self.entries()
        taken = sum(entry.size_bytes for entry in entries) + self._reserved()
        free = [entry for entry in entries if not entry.held]
        kept = taken - sum(entry.size_bytes for entry in free)
        if kept + need > self.budget_bytes:
            self.refusal = f"needs {need} bytes, of the budget of {self.budget_bytes} others hold {kept}"
            return False
        for entry in free:
            if taken + need <= self.budget_bytes:
                break
            if self._remove(entry.key):
                taken -= entry.size_bytes
        if taken + need > self.budget_bytes:
            self.refusal = f"needs {need} bytes, of the budget of {self.budget_bytes} others hold {taken}"
            return False
        return True

    def _reserved(self) -> int:
        """Bytes that living builders are about to take."""
        total = 0
        for folder in self.root.glob(".building-*"):
            try:
                total += int(read_json(folder / "reserved.json"))
            except Exception:
                total += _disk_bytes(folder)
        return total

    def _sweep(self) -> None:
        """Removes what dead builders and half-done removals left."""
        for folder in [*self.root.glob(".building-*"), *self.root.glob(".gone-*")]:
            lock = _try_exclusive(folder / "held")
            if lock is not None or not (folder / "held").exists():
                shutil.rmtree(folder, ignore_errors=True)
            if lock is not None:
                os.close(lock)

    def _remove(self, key: str) -> bool:
        folder = self.root / key
        lock = _try_exclusive(folder / "held")
        if lock is None and (folder / "held").exists():
            return False
        if not folder.exists():
            if lock is not None:
                os.close(lock)
            return False
        gone = self.root / f".gone-{key}-{os.getpid()}"
        os.rename(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)
        if lock is not None:
            os.close(lock)
        return True

    def _folders(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        return [f for f in self.root.iterdir() if f.is_dir() and not f.name.startswith(".")]


class _Release:
    """Gives up a hold when the last of its maps is gone."""

    def __init__(self, hold: int, maps: int) -> None:
        self._hold, self._left = hold, maps

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.close(self._hold)


def _hold(path: Path) -> int | None:
    """A shared lock on an entry, or None where there is no entry (any more)."""
    while True:
        try:
            hold = os.open(path, os.O_RDWR)
        except OSError:
            return None
        fcntl.flock(hold, fcntl.LOCK_SH)
        try:
            if os.stat(path).st_ino == os.fstat(hold).st_ino:
                return hold
        except OSError:
            pass
        os.close(hold)  # it was removed, or replaced, between opening and locking: look again


def _try_exclusive(path: Path) -> int | None:
    """An exclusive lock on an entry that nobody holds, else None."""
    try:
        lock = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock
    except OSError:
        os.close(lock)
        return None


def _host(tensor: Tensor) -> Tensor:
    """On the CPU, in one of the two layouts that files know."""
    tensor = tensor.detach().cpu()
    if _is_channels_last(tensor) or tensor.is_contiguous():
        return tensor
    return tensor.contiguous()


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def _described(place: int, tensor: Tensor, count: int) -> dict[str, Any]:
    value = {
        "file": f"{place}.bin",
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape[1:]),
        "channels_last": _is_channels_last(tensor),
    }
    return value | {"bytes": _bytes(value, count)}


def _bytes(value: dict[str, Any], count: int) -> int:
    return int(np.prod([count, *value["shape"]], dtype=np.int64)) * getattr(torch, value["dtype"]).itemsize


def _raw(tensor: Tensor) -> memoryview:
    if _is_channels_last(tensor):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _mapped(path: Path, value: dict[str, Any]) -> tuple[np.ndarray, Tensor]:
    """The map, whose life is the hold's, and the tensor over it."""
    raw = np.memmap(path, dtype=np.uint8, mode="c")
    flat = torch.from_numpy(raw).view(getattr(torch, value["dtype"]))
    shape = value["shape"]
    if value["channels_last"]:
        return raw, flat.view(-1, shape[1], shape[2], shape[0]).permute(0, 3, 1, 2)
    return raw, flat.view(-1, *shape)


def _disk_bytes(folder: Path) -> int:
    total = 0
    for path in folder.glob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
