"""Who may decide, and whose a running trial is.

A study in a SQLite file has one driver: `FolderClaims` is the lock on its folder, and everything belongs to whoever holds it.

A study on PostgreSQL may have several drivers on several machines. `PostgresClaims` keeps them apart with session advisory locks
on a connection of its own: one for the right to decide what trial comes next (held for some milliseconds), and one for each trial
that the driver runs. A running trial whose lock nobody holds is an orphan, which another driver takes over.

Why no leases by database time, of which the design speaks: a lease needs a term, and a term is either shorter than an outage that
must be survived (then a living driver loses its trials) or the time that everybody waits after a crash. An advisory lock has no
term. It goes with its connection: at once when the process dies on this or another machine, within a minute (keepalives) when the
machine itself does, and with the server when that restarts. After a restart the owners get `GRACE_S`, by the server's own clock, to
take their locks again, and nobody else may; a driver that comes too late is told that its trial is another's now, and drops it.
What is left is the time between that look and a write, as with every lease: there a trial's epoch may be written by two drivers,
and as a trial is a function of its recipe, they write the same.

Who runs a trial (pid, host, boot id, start) is noted on it all the same: for people, and to know at once that an owner on this very
machine is dead.

A pooler that shares sessions between clients (pgbouncer's transaction mode) breaks advisory locks: connect to the server itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import psutil

from searchft.errors import StorageError
from searchft.search.lock import FolderLock, boot_id, identity
from searchft.search.storage import mask_url

GRACE_S = 60.0
"""After a server's start: how long its trials' owners have to come back before others may take their trials."""

DECISION_PATIENCE_S = 180.0
"""How long another driver may take to decide; it needs milliseconds, but its machine may have gone silent."""


class ClaimLostError(StorageError):
    """A trial that this driver ran is another's now: its connection was gone for too long."""


class Claims(Protocol):
    """What a ledger asks before it writes."""

    shared: bool
    """Whether other drivers may run trials of the same study."""

    alone: bool
    """Whether nobody else may write at all."""

    def ensure(self) -> None:
        """Sees to it that everything held is still held. Called before every action on the storage."""

    def deciding(self) -> contextlib.AbstractContextManager[None]:
        """Within, no other driver adds a trial."""

    def claim(self, number: int) -> bool:
        """Takes a trial; False if another driver has it."""

    def owns(self, number: int) -> bool:
        """Whether the trial is this driver's."""

    def drop(self, number: int) -> None:
        """Gives a trial up; again: nothing."""

    def orphans(self, owners: Mapping[int, Mapping[str, Any]]) -> set[int]:
        """Of running trials (number to its owner's `identity`) those that nobody runs any more."""

    def release(self) -> None:
        """Gives everything back; again: nothing."""


class FolderClaims:
    """One driver for the whole study: the lock on its folder."""

    shared = False
    alone = True

    def __init__(self, folder: Path) -> None:
        """Takes the lock. Raises StorageError naming the holder if another process has it."""
        self._lock = FolderLock(folder)
        self._lock.acquire()

    def ensure(self) -> None:
        """The kernel keeps it."""

    def deciding(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def claim(self, number: int) -> bool:
        return True

    def owns(self, number: int) -> bool:
        return True

    def drop(self, number: int) -> None:
        """All of them stay with the one driver."""

    def orphans(self, owners: Mapping[int, Mapping[str, Any]]) -> set[int]:
        return set(owners)

    def release(self) -> None:
        self._lock.release()


class NoClaims(FolderClaims):
    """A reader's: it never writes, others do."""

    alone = False

    def __init__(self) -> None:
        """Takes nothing."""

    def release(self) -> None:
        """Nothing is held."""


class PostgresClaims:
    """Session advisory locks of one driver. Lost when their connection is, taken again by `ensure`."""

    shared = True
    alone = False

    def __init__(self, url: str, study: str) -> None:
        """Connects. Raises psycopg's errors if it cannot."""
        digest = hashlib.sha256(f"searchft study {study}".encode()).digest()
        self._url, self._study = url, study
        self._study_key = int.from_bytes(digest[:8], "big", signed=True)
        self._class = int.from_bytes(digest[8:12], "big", signed=True)
        """First half of the trials' keys; the second is the trial's number."""
        me = identity()
        # Distinct for each driver: processes in containers may agree in host name and process id
        self._name = f"searchft {me['pid']} {secrets.token_hex(6)} on {me['host']}"[:63]
        self._held: set[int] = set()
        self._depth = 0
        self._connection = self._connect()

    def _connect(self) -> Any:
        import psycopg
        import sqlalchemy

        target = sqlalchemy.make_url(self._url).set(drivername="postgresql").render_as_string(hide_password=False)
        connection = psycopg.connect(
            target,
            autocommit=True,
            connect_timeout=10,
            application_name=self._name,
            keepalives_idle=15,
            keepalives_interval=5,
            keepalives_count=3,
            # The server notices within a minute when this machine is gone, and frees the locks.
            options="-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3 -c lock_timeout=2s",
        )
        return connection

    def _ask(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(question, values)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def ensure(self) -> None:
        """Asks the server (one round trip). After a broken connection: a new one, and the locks again. What another driver has
        taken meanwhile is no longer owned."""
        try:
            if self._connection is not None:
                self._ask("SELECT 1")
                return
        except Exception:
            with contextlib.suppress(Exception):
                self._connection.close()
            self._connection = None
        connection = self._connect()
        self._connection = connection
        before, self._held = self._held, set()
        try:
            if self._depth:
                self._lock_decisions()
            for number in sorted(before):
                # Our own old session, which the server may still believe alive, is ended: it would keep us out for a minute.
                self._end_namesakes()
                self.claim(number)
        except BaseException:
            self._held |= before
            self._connection = None
            connection.close()
            raise

    def _end_namesakes(self) -> None:
        self._ask(
            "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.pid <> pg_backend_pid()"
            " AND a.datname = current_database() AND a.application_name = current_setting('application_name')"
            " AND EXISTS (SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.objsubid = 2"
            " AND l.classid = %s::bigint::oid)",
            self._class % 2**32,
        )

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        if self._depth == 0:
            self._lock_decisions()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                # a connection that broke has given the lock back already
                with contextlib.suppress(Exception):
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
                    where = mask_url(self._url)
                    raise StorageError(
                        f"{where}: another driver of {self._study} has held the right to decide for {DECISION_PATIENCE_S:.0f} s: "
                        "end it and run again",
                        where,
                    ) from None

    def claim(self, number: int) -> bool:
        if number not in self._held and self._ask("SELECT pg_try_advisory_lock(%s, %s)", self._class, number)[0][0]:
            self._held.add(number)
        return number in self._held

    def owns(self, number: int) -> bool:
        return number in self._held

    def drop(self, number: int) -> None:
        if number in self._held:
            self._held.discard(number)
            with contextlib.suppress(Exception):
                self._ask("SELECT pg_advisory_unlock(%s, %s)", self._class, number)

    def orphans(self, owners: Mapping[int, Mapping[str, Any]]) -> set[int]:
        strangers = {number: owner for number, owner in owners.items() if number not in self._held}
        if not strangers:
            return set()
        claimed = {
            int(row[0])
            for row in self._ask(
                "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"
                " AND classid = %s::bigint::oid AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                self._class % 2**32,
            )
        }
        up_s = float(self._ask("SELECT extract(epoch FROM now() - pg_postmaster_start_time())")[0][0])
        return {n for n, owner in strangers.items() if n not in claimed and (up_s > GRACE_S or _dead_here(owner))}

    def release(self) -> None:
        self._held = set()
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _dead_here(owner: Mapping[str, Any]) -> bool:
    """Whether a trial's owner was a process of this machine that no longer lives: same host, and another boot, no such process,
    or one that started at another time (or this very process, which knows what it owns)."""
    me = identity()
    if not owner:
        return False
    if owner.get("host") != me["host"]:
        return False
    if owner.get("boot_id") != boot_id() or owner.get("pid") == os.getpid():
        return True
    try:
        process = psutil.Process(int(owner["pid"]))
        return identity(process)["since"] != owner.get("since")
    except (psutil.Error, ValueError, KeyError):
        return True
