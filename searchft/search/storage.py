"""Optuna's storage on SQLite or PostgreSQL: opened safely, with errors that say what to do, each transaction checked from within.

SQLite is opened with WAL and synchronous=NORMAL: readers never block the driver, a crash of any process loses nothing, and a power
cut at most the last moments, which the checkpoints replay. On a network file system, where WAL damages files, a rollback journal
takes its place. PostgreSQL connections are tested before use and give up on a silent server in about half a minute.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchft.errors import InputError, StorageError
from searchft.files import lock_file, network_file_system
from searchft.search.databases import connect_read_only, default_url, mask_text, mask_url, postgres_url, sqlite_path

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

BUSY_TIMEOUT_S = 60.0  # how long SQLite waits for another process's write
KEEPALIVES = {"connect_timeout": 10, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}
"""libpq's: a server that has gone silent is given up after about 30 s."""
SERVER_KEEPALIVES = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
"""The server notices within a minute that this machine is gone, and frees its locks."""
TRANSACTION_TIMEOUT_S = 20  # how long a client that vanished inside a transaction may keep others waiting; these then ask again
CREATION_LOCK = 0x5EA2C4F7  # key of the PostgreSQL advisory lock held while tables and studies are created

_ADVICE = (
    (r"database or disk is full|disk i/o error|no space left|disk full|quota exceeded", "Free some space and run again."),
    (
        r"database is locked",
        f"Another process has held it for over {BUSY_TIMEOUT_S:.0f} s: end it (a shell, a copy) and run again.",
    ),
    (
        r"file is not a database|malformed|database corrupt",
        "The file is damaged: put back a copy of it, or start over with --fresh (the old one is kept aside).",
    ),
    (r"readonly database|read-only|permission denied|unable to open", "Check that the folder exists and may be written."),
    (r"password|authentication failed|pg_hba|access denied", "Check user and password in the storage URL."),
    (
        r"refused|timeout|timed out|could not translate|not known|unreachable|server closed|terminat|starting up|shutting down",
        "Check that the database server runs and can be reached, then run again: the study goes on where it was.",
    ),
    (r'database "[^"]*" does not exist|unknown database', "Create the database first, or correct its name in the storage URL."),
    (
        r"compatible with the table schema",
        "It was written by another version of Optuna: `optuna storage upgrade` brings it up.",
    ),
)
"""What to do, by what the database's message says."""


class ServerAwayError(StorageError):
    """A database server that cannot be reached now: worth trying again, unlike a damaged file."""


@contextlib.contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turns the errors of SQLAlchemy, its drivers, Optuna's storages and the file system within into StorageError."""
    import optuna
    import sqlalchemy.exc

    known = (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, optuna.exceptions.StorageInternalError, OSError)
    try:
        yield
    except Exception as error:
        psycopg = type(error).__module__.startswith("psycopg")  # met without importing it
        if isinstance(error, known) or psycopg or "table schema" in str(error):
            raise _explained(error, url) from error
        raise


def _explained(error: BaseException, url: str) -> StorageError:
    causes = [error]
    while (cause := getattr(causes[-1], "orig", None) or causes[-1].__cause__) is not None:
        causes.append(cause)
    text = " ".join(str(getattr(causes[-1], "orig", None) or causes[-1]).split())
    everything = " ".join(str(cause) for cause in causes).lower()
    advice = next((advice for pattern, advice in _ADVICE if re.search(pattern, everything)), "Run again when it is mended.")
    masked = mask_url(url)
    away = not url.lower().startswith("sqlite") and any(_is_outage(cause) for cause in causes)
    kind = ServerAwayError if away else StorageError
    return kind(f"{masked}: {mask_text(text, url).rstrip('.')}. {advice}", masked)


def _is_outage(error: BaseException) -> bool:
    # PendingRollbackError: Optuna tried another query in the transaction that the outage had broken. It has been rolled back since.
    names = ("OperationalError", "InterfaceError", "AdminShutdown", "PendingRollbackError")
    return type(error).__name__ in names or bool(getattr(error, "connection_invalidated", False))


def check_database(url: str) -> None:
    """Looks through a SQLite file for broken pages and indexes. Raises StorageError naming the file."""
    path = sqlite_path(url)
    if path is None or not path.is_file():
        return
    with storage_errors(url), contextlib.closing(connect_read_only(path)) as connection:
        found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
        if found != ["ok"]:
            raise sqlite3.DatabaseError(f"database corrupt: {'; '.join(found)}")


def study_exists(url: str, name: str) -> bool:
    """Whether the database holds a study of that name. Creates nothing. Raises StorageError where it cannot be asked."""
    import sqlalchemy

    path = sqlite_path(url)
    if path is not None and not path.is_file():
        return False
    with storage_errors(url):
        reading: Any = {"creator": lambda: connect_read_only(path), "poolclass": sqlalchemy.NullPool}  # type: ignore[arg-type]
        engine = _server_engine(url) if path is None else sqlalchemy.create_engine("sqlite://", **reading)
        try:
            with engine.connect() as connection:
                if not sqlalchemy.inspect(connection).has_table("studies"):
                    return False
                question = sqlalchemy.text("SELECT count(*) FROM studies WHERE study_name = :name")
                return bool(connection.execute(question, {"name": name}).scalar())
        finally:
            engine.dispose()


def open_storage(url: str, folder: Path, *, create: bool = True) -> BaseStorage:
    """Optuna's storage for a URL (empty: the SQLite file in `folder`); with `create`, its tables are made where there are none.

    Raises InputError for a missing SQLite file, StorageError when the database cannot be used.
    """
    import optuna
    import sqlalchemy

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings about outages are SQL; we say what there is to say
    url = url or default_url(folder)
    path = sqlite_path(url)
    with storage_errors(url):
        backend = _open_server(url) if path is None else _open_sqlite(path, create)
        sqlalchemy.event.listen(backend.engine, "handle_error", functools.partial(_leave_optuna, url))
        return optuna.storages.get_storage(backend)


def _leave_optuna(url: str, context: Any) -> None:
    """Raises our error at once. Optuna would try again to add a trial, and where only the first answer was lost, write it twice."""
    import sqlalchemy.exc

    error = context.sqlalchemy_exception or context.original_exception
    # A ping is there to find a lost connection, and connects again; Optuna makes sense of broken constraints.
    if not context.is_pre_ping and not isinstance(error, sqlalchemy.exc.IntegrityError):
        raise _explained(error, url) from context.original_exception


def _open_sqlite(path: Path, create: bool) -> Any:
    import optuna
    import sqlalchemy

    if not create and not path.is_file():
        raise InputError(f"there is no study database {path}", str(path))
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    pragmas = ("journal_mode=DELETE",) if network_file_system(path.parent) else ("journal_mode=WAL", "synchronous=NORMAL")

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
        try:
            for pragma in pragmas:
                connection.execute(f"PRAGMA {pragma}").close()
        except BaseException:
            connection.close()
            raise
        return connection

    # Optuna fills {} in URLs and SQLAlchemy splits them at ?: a path with such letters comes safely only through `creator`.
    arguments = {"creator": connect, "poolclass": sqlalchemy.QueuePool}
    opening = lock_file(path.parent / f".{path.name}.opening")
    with opening.acquire(timeout=BUSY_TIMEOUT_S) if create else contextlib.nullcontext():
        return optuna.storages.RDBStorage("sqlite:///study.db", engine_kwargs=arguments, skip_table_creation=not create)


def _server_arguments() -> dict[str, Any]:
    timeouts = (
        f"-c lock_timeout={TRANSACTION_TIMEOUT_S}s -c statement_timeout={3 * TRANSACTION_TIMEOUT_S}s"
        f" -c idle_in_transaction_session_timeout={TRANSACTION_TIMEOUT_S}s"
    )
    options = {**KEEPALIVES, "tcp_user_timeout": 30_000, "options": f"{SERVER_KEEPALIVES} {timeouts}"}
    return {"pool_pre_ping": True, "connect_args": options}


def _server_engine(url: str) -> Any:
    """An engine for a server's URL. Raises InputError for a URL that is none, or whose driver package is missing."""
    import sqlalchemy

    try:
        return sqlalchemy.create_engine(postgres_url(url), **_server_arguments())
    except (sqlalchemy.exc.ArgumentError, ValueError):
        rule = f"must be a database URL such as postgresql://user@host/database but got {mask_url(url)!r}"
        raise InputError(rule, "--storage") from None  # no cause: it may quote the URL
    except ImportError as error:
        raise InputError(f"needs a Python package for this database: {error}", mask_url(url)) from None


def _open_server(url: str) -> Any:
    import optuna
    import sqlalchemy

    engine = _server_engine(url)
    template = postgres_url(url).replace("{", "{{").replace("}", "}}")  # Optuna fills {} in URLs
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # Two drivers that create tables in one empty database at once both fail without this.
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": CREATION_LOCK})
            try:
                return optuna.storages.RDBStorage(template, engine_kwargs=_server_arguments())
            finally:
                connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": CREATION_LOCK})
    finally:
        engine.dispose()


class NumberTakenError(Exception):
    """A new trial would have had another number than the one that was asked for: nothing was written."""

    def __init__(self, number: int) -> None:
        super().__init__(f"the next trial's number is {number}")
        self.number = number


class WriteChecks:
    """What must hold inside a transaction of Optuna's storage, or it is rolled back; and several of its calls in one transaction."""

    def __init__(self, storage: Any) -> None:
        import sqlalchemy

        self._engine, self._sessions = storage._backend.engine, storage._backend.scoped_session
        self._at_begin: Callable[[Any], None] | None = None
        self._number: int | None = None
        self._sessions.remove()
        self._sessions.configure(autoflush=False)  # a trial's parameters are inserted together, not before each query
        sqlalchemy.event.listen(self._sessions, "after_begin", self._check_begin)
        sqlalchemy.event.listen(self._sessions, "before_commit", self._check_number)

    @contextlib.contextmanager
    def requiring(self, number: int | None = None, at_begin: Callable[[Any], None] | None = None) -> Iterator[None]:
        """Within, a trial is added as `number` or not at all (NumberTakenError), and `at_begin(connection)` runs first in every
        transaction, which ends with what it raises."""
        self._number, self._at_begin = number, at_begin
        try:
            yield
        finally:
            self._number = self._at_begin = None

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Within, all that Optuna writes is one transaction: its sessions join it."""
        self._sessions.remove()
        try:
            with self._engine.begin() as connection:
                self._sessions.configure(bind=connection)
                try:
                    yield
                finally:
                    self._sessions.remove()
        finally:
            self._sessions.configure(bind=self._engine)

    def _check_begin(self, session: Any, transaction: Any, connection: Any) -> None:
        if self._at_begin is not None:
            self._at_begin(connection)

    def _check_number(self, session: Any) -> None:
        if self._number is not None:
            for row in session.identity_map.values():
                if row.__tablename__ == "trials" and row.number != self._number:
                    raise NumberTakenError(row.number)
