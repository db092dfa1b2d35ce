"""One driver per study. Two would both suggest trial 7, and their workers write the same checkpoints.

The study's folder is locked by the operating system (released by the kernel the moment its holder dies, so no lease can be held
by the dead). A file beside the lock says who holds it, for the one who is turned away. A study on PostgreSQL may be driven from
folders on several machines: there a session advisory lock on a connection of its own does the same.

Why no leases by database time, of which the design speaks: a lease needs a term, and a term is either shorter than an outage that
must be survived (then a living driver loses its study) or the time that everybody waits after a crash. The advisory lock has no
term. It goes with its connection: at once when the process dies on this or another machine, within a minute (keepalives) when the
machine itself does, and with the server when that restarts. In the last case the driver takes it again before its next write,
and stops if another was quicker. What is left is the time between that look and the write, as with every lease; then the trial's
number tells: it is checked before and after a trial is added, and a number that somebody else took ends the run.

Who runs a trial (pid, host, boot id, start) is noted on it all the same, for people.
"""

from __future__ import annotations

import datetime
import hashlib
import os
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
from searchft.search.storage import ServerAwayError, mask_url

LOCK_NAME = "driver.lock"
HOLDER_NAME = "driver.json"

_NOTICE_S = 10.0
"""How long a server may take to notice that a process of this host is gone."""


def identity() -> dict[str, Any]:
    """Who this process is: `pid`, `host`, `boot_id` (of the machine's current run), `since` (its start, UTC)."""
    started = datetime.datetime.fromtimestamp(psutil.Process().create_time(), datetime.UTC)
    return {
        "pid": os.getpid(),
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


class _HeldByTheDead(StorageError):
    """The holder is gone, or went while we asked; its lock will follow."""


class PostgresLock:
    """A session advisory lock, keyed by the study's name, on a connection of its own. Lost when that connection is."""

    def __init__(self, url: str, study: str) -> None:
        self._url, self._study = url, study
        self._key = int.from_bytes(hashlib.sha256(f"searchft study {study}".encode()).digest()[:8], "big", signed=True)
        self._connection: Any = None

    def acquire(self, regaining: bool = False) -> None:
        """Takes the lock. Raises StorageError naming the holder if another process has it, psycopg2's errors if it cannot ask.

        A holder that has died on this host is waited for, for a moment: the server is about to notice.
        """
        deadline = time.monotonic() + _NOTICE_S
        while True:
            try:
                return self._try(regaining)
            except _HeldByTheDead as dead:
                if time.monotonic() > deadline:
                    raise StorageError(str(dead), dead.where) from None
            time.sleep(0.1)

    def _try(self, regaining: bool) -> None:
        import psycopg2
        import sqlalchemy

        me = identity()
        name = f"searchft {me['pid']} on {me['host']}"[:63]
        target = sqlalchemy.make_url(self._url).set(drivername="postgresql").render_as_string(hide_password=False)
        connection = psycopg2.connect(
            target,
            connect_timeout=10,
            application_name=name,
            # The server notices within a minute when this machine is gone, and frees the lock.
            options="-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3",
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_try_advisory_lock(%s)", (self._key,))
                if cursor.fetchone()[0]:
                    self._connection = connection
                    return
                cursor.execute(
                    "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)"
                    " WHERE locktype = 'advisory' AND granted AND objsubid = 1"
                    " AND ((classid::bigint << 32) | objid::bigint) = %s",
                    (self._key,),
                )
                row = cursor.fetchone()
        except BaseException:
            connection.close()
            raise
        connection.close()
        if regaining and row and row[0] == name:
            raise ServerAwayError(f"{mask_url(self._url)}: the server has not noticed yet that this driver's connection broke")
        words = (row[0] or "").removeprefix("searchft ").split(" on ") if row else []
        holder = {"pid": words[0], "host": words[1]} if len(words) == 2 else {}
        here = bool(holder) and me["host"].startswith(holder["host"]) and holder["pid"].isdigit()
        dead = not row or (here and not psutil.pid_exists(int(holder["pid"])))
        kind = _HeldByTheDead if dead else StorageError
        raise kind(_turned_away(f"{self._study} on {mask_url(self._url)}", holder), mask_url(self._url))

    def held(self) -> bool:
        """Whether the connection that holds the lock still lives: asks the server."""
        try:
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            return True
        except Exception:
            return False

    def regain(self) -> None:
        """Takes the lock again after its connection broke. Raises as `acquire`; ServerAwayError while our own old session,
        which the server still believes alive, has it."""
        self.release()
        self.acquire(regaining=True)

    def release(self) -> None:
        """Gives the lock back; again: nothing."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _turned_away(study: str, holder: Mapping[str, Any]) -> str:
    who = f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= set(holder) else "another process"
    since = f" since {holder['since']}" if "since" in holder else ""
    return f"the study {study} is being run by {who}{since}: wait for it, or stop it first. One driver at a time."
