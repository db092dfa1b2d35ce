"""The lock on a study's folder: one driver for a study that lives in a SQLite file.

Two would both suggest trial 7, and their workers write the same checkpoints. The operating system holds the lock and frees it the
moment its holder dies, so nothing can be held by the dead. A file beside it says who holds it, for the one who is turned away.
"""

from __future__ import annotations

import datetime
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import psutil

from searchft.errors import StorageError
from searchft.faults import fault
from searchft.files import lock_file, read_json, write_json

LOCK_NAME = "driver.lock"
HOLDER_NAME = "driver.json"


def identity(process: psutil.Process | None = None) -> dict[str, Any]:
    """Who a process of this machine (this one) is: `pid`, `host`, `boot_id` (of the machine's current run), `since` (its start, UTC)."""
    process = process or psutil.Process()
    started = datetime.datetime.fromtimestamp(process.create_time(), datetime.UTC)
    return {
        "pid": process.pid,
        "host": socket.gethostname(),
        "boot_id": boot_id(),
        "since": started.isoformat(timespec="seconds"),
    }


def boot_id() -> str:
    """A text that changes when the machine restarts; empty where none is to be had."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        pass
    try:  # macOS
        return subprocess.run(
            ["sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


class FolderLock:
    """The lock on a study's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._lock = lock_file(self.folder / LOCK_NAME)

    def acquire(self) -> None:
        """Takes the lock. Raises StorageError naming the holder if another process has it."""
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise StorageError(_turned_away(str(self.folder), self._living_holder()), str(self.folder)) from None
        fault("lock.taken")
        try:
            write_json(self.folder / HOLDER_NAME, identity())
        except BaseException:
            self._lock.release()
            raise

    def holder(self) -> Mapping[str, Any]:
        """What the holder wrote about itself; empty if it has not come to that yet."""
        try:
            found = read_json(self.folder / HOLDER_NAME)
        except (OSError, StorageError):
            return {}
        return found if isinstance(found, dict) else {}

    def _living_holder(self) -> Mapping[str, Any]:
        """The holder, given a moment to write its name over that of one long dead."""
        for _ in range(20):
            holder = self.holder()
            if holder and (holder.get("boot_id") != boot_id() or psutil.pid_exists(int(holder.get("pid", 0)))):
                return holder
            time.sleep(0.05)
        return {}

    def release(self) -> None:
        """Gives the lock back; again: nothing."""
        if self._lock.is_locked:
            (self.folder / HOLDER_NAME).unlink(missing_ok=True)
            self._lock.release()


def _turned_away(study: str, holder: Mapping[str, Any]) -> str:
    who = f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= set(holder) else "another process"
    since = f" since {holder['since']}" if "since" in holder else ""
    return f"the study {study} is being run by {who}{since}: wait for it, or stop it first. One driver at a time."
