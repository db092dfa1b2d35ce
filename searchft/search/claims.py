"""Who may decide, and who owns a running trial.

A study in a SQLite file has one driver, which locks the study's folder and its name beside the file. On PostgreSQL several drivers
may share a study, by session advisory locks: one for the right to decide which trial comes next, one for each trial that runs. A
lock goes with its connection: at once when the process dies, within a minute when its machine does, and when the server restarts.
So a trial without a lock is taken over when its owner is known to be dead, or has not come back within `GRACE_S`; and every write
looks, in its own transaction, whether its trial is still its own. A pooler that shares sessions (pgbouncer) breaks such locks.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import psutil

from searchft.errors import StorageError
from searchft.faults import fault
from searchft.files import lock_file, read_json, write_json
from searchft.search.databases import mask_url
from searchft.search.storage import KEEPALIVES, SERVER_KEEPALIVES, ServerAwayError

GRACE_S = 60.0  # how long a trial's owner has to come back before others may take a trial whose lock is gone
DECISION_PATIENCE_S = 180.0
"""How long another driver may take to decide; it needs milliseconds, but its machine may have gone silent."""

_OURS = "classid = %s::bigint::oid AND locktype = 'advisory' AND objsubid = 2"
"""In pg_locks: the locks of this study's trials; `objid` is a trial's number."""

LOCK_NAME, HOLDER_NAME = "driver.lock", "driver.json"
"""In a study's folder: the lock of its driver, and who holds it. They mark the folder as ours."""


class ClaimLostError(StorageError):
    """A trial that this driver ran is another's now."""


class DecisionLostError(StorageError):
    """Another driver has begun a trial since this one read the records: it must decide again."""


def identity(process: psutil.Process | None = None) -> dict[str, Any]:
    """Who a process (this one) is: `pid`, `host`, `boot_id` (of the machine's current run), `since` (its start, UTC)."""
    process = process or psutil.Process()
    since = datetime.datetime.fromtimestamp(process.create_time(), datetime.UTC).isoformat(timespec="seconds")
    return {"pid": process.pid, "host": socket.gethostname(), "boot_id": boot_id(), "since": since}


def boot_id() -> str:
    """A text that changes when the machine restarts; empty where none is to be had."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # macOS
        command = ["sysctl", "-n", "kern.bootsessionuuid"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return ""


def owner_is_gone(owner: Mapping[str, Any]) -> bool:
    """Whether a trial's owner (an `identity`) ran on this machine and does so no longer; False where that is not known.

    This very process counts as gone: it knows by other means what it runs.
    """
    if not owner or owner.get("host") != socket.gethostname():
        return False
    if owner.get("boot_id") != boot_id() or owner.get("pid") == os.getpid():
        return True
    try:
        return bool(identity(psutil.Process(int(owner["pid"])))["since"] != owner.get("since"))
    except (psutil.Error, ValueError, KeyError):
        return True


class DriverLock:
    """A lock that one driver holds; a file beside it says who. The kernel frees it with its holder.

    `folder` is the study's, or with the lock's `name` its database's.
    """

    def __init__(self, folder: Path, name: str = "driver") -> None:
        self._study = str(folder if name == "driver" else folder / name)
        self._holder = folder / f"{name}.json"
        self._lock = lock_file(folder / f"{name}.lock")

    def acquire(self) -> None:
        """Takes the lock. Raises StorageError naming the holder if another process has it."""
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            holder = self._living_holder()
            who = f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= set(holder) else "another process"
            since = f" since {holder['since']}" if "since" in holder else ""
            rule = f"the study {self._study} is being run by {who}{since}: wait for it, or stop it first. One driver at a time."
            raise StorageError(rule, self._study) from None
        fault("lock.taken")
        try:
            write_json(self._holder, identity())
        except BaseException:
            self._lock.release()
            raise

    def _living_holder(self) -> Mapping[str, Any]:
        """The holder, given a moment to write its name over that of one long dead; empty if it has not come to that."""
        for _ in range(20):
            with contextlib.suppress(OSError, StorageError, AttributeError, LookupError, ValueError):
                holder: dict[str, Any] = read_json(self._holder)
                if holder.get("boot_id") != boot_id() or psutil.pid_exists(int(holder["pid"])):
                    return holder
            time.sleep(0.05)
        return {}

    def release(self) -> None:
        """Gives the lock back; again: nothing."""
        if self._lock.is_locked:
            self._holder.unlink(missing_ok=True)
            self._lock.release()


class Claims:
    """What a ledger asks before it writes. This one is a reader's: it holds nothing and keeps nobody out."""

    shared = False  # whether other drivers may run trials of the same study
    alone = False  # whether nobody else may write at all

    def ensure(self) -> None:
        """Sees to it that everything held is still held. Called before every action on the storage."""

    def deciding(self) -> contextlib.AbstractContextManager[None]:
        """Within, no other driver adds a trial."""
        return contextlib.nullcontext()

    def claim(self, number: int) -> bool:
        """Takes a trial; False if another driver has it."""
        return True

    def owns(self, number: int) -> bool:
        """Whether the trial is this driver's, as far as it knows."""
        return True

    def check_owner(self, connection: Any, number: int, trial_id: int) -> None:
        """In a write's own transaction: keeps others from the trial until it ends. Raises ServerAwayError if its lock is gone."""

    def drop(self, number: int) -> None:
        """Gives a trial up; again: nothing."""

    def orphans(self, owners: Mapping[int, Mapping[str, Any]]) -> set[int]:
        """Of running trials (number to its owner's `identity`) those that nobody runs any more."""
        return set(owners)

    def release(self) -> None:
        """Gives everything back; again: nothing."""


class FolderClaims(Claims):
    """One driver for the whole study: the lock on its folder, and where its SQLite file lies elsewhere, one beside that."""

    alone = True

    def __init__(self, folder: Path, database: Path, study: str) -> None:
        """Takes the locks. Raises StorageError naming the holder if another process has one."""
        database = database.resolve()
        self._locks = [DriverLock(folder)]
        if database.parent != folder.resolve():
            self._locks.append(DriverLock(database.parent, f".{database.name}.{study}"))
        try:
            for lock in self._locks:
                lock.acquire()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        for lock in self._locks:
            lock.release()


class PostgresClaims(Claims):
    """Session advisory locks of one driver. Lost when their connection is, taken again by `ensure`. Raises psycopg's errors."""

    shared = True

    def __init__(self, url: str, study: str) -> None:
        digest = hashlib.sha256(f"searchft study {study}".encode()).digest()
        self._url, self._where, self._study = url, mask_url(url), study
        self._study_key = int.from_bytes(digest[:8], "big", signed=True)
        self._class = int.from_bytes(digest[8:12], "big", signed=True)  # first half of the trials' keys; the second is a number
        me = identity()
        # Processes in containers may agree in host name and process id
        self._name = f"searchft {me['pid']} {secrets.token_hex(6)} on {me['host']}"[:63]
        self._held: set[int] = set()
        self._unlocked_since: dict[int, float] = {}
        """By the number of a running trial without a lock: when this driver first saw it so."""
        self._deciding = False
        self._connection = self._connect()

    def _connect(self) -> Any:
        import psycopg
        import sqlalchemy

        target = sqlalchemy.make_url(self._url).set(drivername="postgresql").render_as_string(hide_password=False)
        options: dict[str, Any] = {**KEEPALIVES, "options": f"{SERVER_KEEPALIVES} -c lock_timeout=2s"}
        return psycopg.connect(target, autocommit=True, application_name=self._name, **options)

    def _ask(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._connection.execute(question, values).fetchall()
        return rows

    def ensure(self) -> None:
        """Asks the server (one round trip). After a broken connection: a new one, and the locks again but those taken meanwhile."""
        if self._connection is not None:
            try:
                self._ask("SELECT 1")
                return
            except Exception:
                with contextlib.suppress(Exception):
                    self._connection.close()
        connection = self._connection = self._connect()
        before, self._held = self._held, set()
        try:
            if self._deciding:
                self._lock_decisions()
            for number in sorted(before):
                self._end_namesakes()
                self.claim(number)
        except BaseException:
            self._held |= before
            self._connection = None
            connection.close()
            raise

    def _end_namesakes(self) -> None:
        """Ends our own old session, which the server may still believe alive: it would keep us out for a minute."""
        self._ask(
            "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.pid <> pg_backend_pid()"
            " AND a.datname = current_database() AND a.application_name = current_setting('application_name')"
            f" AND EXISTS (SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND {_OURS})",
            self._class % 2**32,
        )

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        self._lock_decisions()
        self._deciding = True
        try:
            yield
        finally:
            self._deciding = False
            with contextlib.suppress(Exception):  # a connection that broke has given the lock back already
                self._ask("SELECT pg_advisory_unlock(%s)", self._study_key)

    def _lock_decisions(self) -> None:
        import psycopg

        deadline = time.monotonic() + DECISION_PATIENCE_S
        while True:
            try:
                self._ask("SELECT pg_advisory_lock(%s)", self._study_key)  # in turn; gives up after lock_timeout
                return
            except psycopg.errors.LockNotAvailable:
                if time.monotonic() > deadline:
                    rule = f"another driver of {self._study} has held the right to decide for {DECISION_PATIENCE_S:.0f} s"
                    raise StorageError(f"{self._where}: {rule}: end it and run again", self._where) from None

    def claim(self, number: int) -> bool:
        if number not in self._held and self._ask("SELECT pg_try_advisory_lock(%s, %s)", self._class, number)[0][0]:
            self._held.add(number)
        return number in self._held

    def owns(self, number: int) -> bool:
        return number in self._held

    def check_owner(self, connection: Any, number: int, trial_id: int) -> None:
        process = self._connection.info.backend_pid
        found = connection.exec_driver_sql(
            f"SELECT EXISTS (SELECT 1 FROM pg_locks WHERE {_OURS} AND granted AND objid = %s::bigint::oid AND pid = %s)"
            " FROM trials WHERE trial_id = %s FOR UPDATE",
            (self._class % 2**32, number, process, trial_id),
        ).scalar()
        if found is False:
            raise ServerAwayError(f"{self._where}: the lock of trial {number} is gone. Run again.", self._where)

    def drop(self, number: int) -> None:
        if number in self._held:
            self._held.discard(number)
            with contextlib.suppress(Exception):
                self._ask("SELECT pg_advisory_unlock(%s, %s)", self._class, number)

    def orphans(self, owners: Mapping[int, Mapping[str, Any]]) -> set[int]:
        rows = self._ask(
            f"SELECT objid FROM pg_locks WHERE {_OURS} AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            self._class % 2**32,
        )
        locked = self._held | {int(row[0]) for row in rows}
        now = time.monotonic()
        self._unlocked_since = {n: self._unlocked_since.get(n, now) for n in owners if n not in locked}
        return {n for n, since in self._unlocked_since.items() if now - since >= GRACE_S or owner_is_gone(owners[n])}

    def release(self) -> None:
        self._held = set()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
