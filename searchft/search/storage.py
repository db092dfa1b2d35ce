"""Databases: opening them safely, naming them without their passwords, listing what they hold, explaining their errors.

SQLite is opened with WAL and synchronous=NORMAL: a report costs 0.7 ms instead of 2 to 17, readers (optuna-dashboard, `list`) never
block the driver, a crash of any process loses nothing, and a power cut at most the last moments, which the checkpoints replay.
PostgreSQL connections are tested before use and give up on a silent server in about half a minute, so that an outage is noticed.

Optuna is imported only where a database is opened: `list` and `mask_url` do without it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import sqlite3
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchft.errors import InputError, StorageError
from searchft.files import lock_file

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

DATABASE_NAME = "study.db"
"""The SQLite file in a study's folder."""

BUSY_TIMEOUT_S = 60.0
"""How long SQLite waits for another process's write."""

_POSTGRES_ARGUMENTS = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""libpq's: a server that has gone silent is given up after about 30 s."""


# ---- names without secrets ----

_SECRET_PARAMETER = re.compile(r"(?i)\b([\w-]*(?:pass(?:word|wd|phrase)?|pwd|secret|token))=([^&\s]*)")


def mask_url(url: str) -> str:
    """The URL with the password in `user:password@` and in query parameters like `password=` replaced by `***`."""
    scheme, separator, rest = url.partition("://")
    password = _password_of(url)
    if password:
        user = rest.partition(":")[0]
        rest = f"{user}:***{rest[len(user) + 1 + len(password) :]}"
    return _SECRET_PARAMETER.sub(r"\1=***", scheme + separator + rest)


def mask_text(text: str, url: str) -> str:
    """A message in which the URL's secrets may stand (a driver's error), with them masked."""
    text = text.replace(url, mask_url(url)) if url else text
    secrets = {match.group(2) for match in _SECRET_PARAMETER.finditer(url)} | {_password_of(url)}
    secrets |= {urllib.parse.unquote(secret) for secret in secrets}
    secrets |= {urllib.parse.quote(secret, safe="") for secret in secrets}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= 3:  # one or two letters would blot out the whole message
            text = text.replace(secret, "***")
    return _SECRET_PARAMETER.sub(r"\1=***", text)


def _password_of(url: str) -> str:
    """The password between `user:` and `@`, as written; empty if there is none.

    An unescaped @, / or ? in it must not lay part of it bare: up to the last @ of the URL it counts as password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower().startswith("sqlite"):
        return ""
    credentials = rest.rpartition("@")[0]
    user, colon, password = credentials.partition(":")
    return password if colon and "@" not in user else ""


# ---- what an error means ----

_ADVICE: tuple[tuple[str, str], ...] = (
    (r"database or disk is full|disk i/o error|no space left|disk full|quota exceeded", "Free some space and run again."),
    (
        r"database is locked",
        f"Another process has held it for over {BUSY_TIMEOUT_S:.0f} s: end it (a database shell, a copy) and run again.",
    ),
    (
        r"file is not a database|malformed|database corrupt",
        "The file is damaged: put back a copy of it, or start over with --fresh (the old one is kept aside).",
    ),
    (r"readonly database|read-only|permission denied|unable to open", "Check that the folder exists and may be written."),
    (
        r"password|authentication failed|pg_hba|access denied|no password supplied",
        "Check user and password in the storage URL.",
    ),
    (
        r"refused|timeout|timed out|could not translate|not known|unreachable|server closed|terminat|starting up|shutting down",
        "Check that the database server runs and can be reached, then run again: the study goes on where it was.",
    ),
    (r'database "[^"]*" does not exist|unknown database', "Create the database first, or correct its name in the storage URL."),
    (
        r"no longer compatible with the table schema",
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

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, optuna.exceptions.StorageInternalError, OSError) as error:
        raise _explained(error, url) from error
    except Exception as error:
        # a driver's own errors are met without importing it
        if type(error).__module__.partition(".")[0] in ("psycopg2", "psycopg", "pymysql", "MySQLdb"):
            raise _explained(error, url) from error
        raise


def _explained(error: BaseException, url: str) -> StorageError:
    causes = list(_chain(error))
    text = " ".join(str(getattr(causes[-1], "orig", None) or causes[-1]).split())
    everything = " ".join(str(cause) for cause in causes).lower()
    advice = next((advice for pattern, advice in _ADVICE if re.search(pattern, everything)), "Run again when it is mended.")
    masked = mask_url(url)
    away = not url.lower().startswith("sqlite") and any(_is_outage(cause) for cause in causes)
    kind = ServerAwayError if away else StorageError
    return kind(f"{masked}: {mask_text(text, url).rstrip('.')}. {advice}", masked)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = getattr(error, "orig", None) or error.__cause__


def _is_outage(error: BaseException) -> bool:
    # PendingRollbackError: Optuna tried another query in the transaction that the outage had broken. It has been rolled back since.
    names = ("OperationalError", "InterfaceError", "AdminShutdown", "PendingRollbackError")
    return type(error).__name__ in names or bool(getattr(error, "connection_invalidated", False))


# ---- opening ----


def sqlite_path(url: str) -> Path | None:
    """The file behind a SQLite URL; None for other databases. Raises InputError for a database in memory."""
    scheme, _, rest = url.partition("://")
    if scheme.lower().partition("+")[0] != "sqlite":
        return None
    path = re.sub(r"\?\w+=[^/]*$", "", rest.removeprefix("/"))  # a folder may have a ? in its name
    if path in ("", ":memory:") or path.startswith("file:"):
        raise InputError(f"must name a file (sqlite:///PATH): a study that is to survive cannot live in {url!r}", "--storage")
    return Path(path)


def default_url(folder: Path) -> str:
    """The URL of the SQLite file in a study's folder."""
    return f"sqlite:///{Path(folder).absolute() / DATABASE_NAME}"


def check_database(url: str) -> None:
    """Looks through a SQLite file for broken pages and indexes. Raises StorageError naming the file; other databases: nothing."""
    path = sqlite_path(url)
    if path is None or not path.is_file():
        return
    with storage_errors(url), contextlib.closing(_connect_read_only(path)) as connection:
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
        if path is not None:
            engine = sqlalchemy.create_engine(
                "sqlite://", creator=lambda: _connect_read_only(path), poolclass=sqlalchemy.NullPool
            )
        else:
            engine = _server_engine(url)
        try:
            with engine.connect() as connection:
                if not sqlalchemy.inspect(connection).has_table("studies"):
                    return False
                question = sqlalchemy.text("SELECT count(*) FROM studies WHERE study_name = :name")
                return bool(connection.execute(question, {"name": name}).scalar())
        finally:
            engine.dispose()


def open_storage(url: str, folder: Path, *, create: bool = True) -> BaseStorage:
    """Optuna's storage for a URL, ready for use; an empty URL means the SQLite file in `folder`.

    With `create`, tables are made where there are none, one process at a time (Optuna's own creation fails when two race).
    Without, a missing SQLite file is an InputError. Raises StorageError when the database cannot be used.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings about outages are SQL; we say what there is to say
    url = url or default_url(folder)
    path = sqlite_path(url)
    if path is None and not re.match(r"^[\w+.-]+://", url):
        raise InputError(
            f"must be a database URL such as postgresql://user@host/database but got {mask_url(url)!r}", "--storage"
        )
    with storage_errors(url):
        if path is not None:
            return _open_sqlite(path, url, create)
        return _open_server(url)


def _open_sqlite(path: Path, url: str, create: bool) -> BaseStorage:
    import optuna
    import sqlalchemy

    if not create and not path.is_file():
        raise InputError(f"there is no study database {path}", str(path))

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            connection.execute("PRAGMA synchronous=NORMAL").close()
        except BaseException:
            connection.close()
            raise
        return connection

    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    # Optuna fills {} in URLs and SQLAlchemy splits them at ?: a path with such letters comes safely only through `creator`.
    arguments = {"creator": connect, "poolclass": sqlalchemy.QueuePool}
    with (
        lock_file(path.parent / f".{path.name}.opening").acquire(timeout=BUSY_TIMEOUT_S) if create else contextlib.nullcontext()
    ):
        backend = optuna.storages.RDBStorage("sqlite:///study.db", engine_kwargs=arguments, skip_table_creation=not create)
    return optuna.storages.get_storage(backend)


def is_postgres(url: str) -> bool:
    """Whether the URL names a PostgreSQL database."""
    return url.startswith(("postgresql", "postgres:"))


def _full_name(url: str) -> str:
    """PostgreSQL's URL with the driver that our extra `postgres` installs, where it names none.

    SQLAlchemy's own choice depends on its version (psycopg2 up to 2.0, psycopg since), and it does not know `postgres://`.
    """
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if separator and scheme in ("postgres", "postgresql") else url


def _server_arguments(url: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {"pool_pre_ping": True}
    if is_postgres(url):
        arguments["connect_args"] = _POSTGRES_ARGUMENTS
    return arguments


def _server_engine(url: str) -> Any:
    """An engine for a server's URL. Raises InputError for a URL that is none, or whose driver package is missing."""
    import sqlalchemy

    rule = f"must be a database URL such as postgresql://user@host/database but got {mask_url(url)!r}"
    try:
        return sqlalchemy.create_engine(_full_name(url), **_server_arguments(url))
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise InputError(rule, "--storage") from None  # no cause: it may quote the URL
    except ImportError as error:
        raise InputError(f"needs a Python package for this database: {error}", mask_url(url)) from None


def _open_server(url: str) -> BaseStorage:
    import optuna
    import sqlalchemy

    engine = _server_engine(url)
    template = _full_name(url).replace("{", "{{").replace("}", "}}")  # Optuna fills {} in URLs

    def build() -> Any:
        backend = optuna.storages.RDBStorage(template, engine_kwargs=_server_arguments(url))
        sqlalchemy.event.listen(backend.engine, "handle_error", functools.partial(_leave_optuna, url))
        return backend

    try:
        with engine.connect() as connection:
            if is_postgres(url):
                # Two drivers that create tables in one empty database at once both fail without this.
                connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": CREATION_LOCK})
            try:
                backend = _patiently(build, attempts=1 if is_postgres(url) else 5)
            finally:
                if is_postgres(url):
                    connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": CREATION_LOCK})
    finally:
        engine.dispose()
    return optuna.storages.get_storage(backend)


def _leave_optuna(url: str, context: Any) -> None:
    """Raises ServerAwayError where a connection was lost: Optuna tries five times by itself to add a trial, and where only the
    answer to the first commit was lost, the second would write it twice. It does not know this error, and lets it pass."""
    if context.is_disconnect and not context.is_pre_ping:  # a ping is there to find that out, and connects again
        raise _explained(context.sqlalchemy_exception or context.original_exception, url) from context.original_exception


CREATION_LOCK = 0x5EA2C4F7
"""Key of the PostgreSQL advisory lock held while tables and studies are created."""


def _patiently(action: Any, attempts: int) -> Any:
    import sqlalchemy.exc

    for left in range(attempts - 1, -1, -1):
        try:
            return action()
        except sqlalchemy.exc.SQLAlchemyError:
            if not left:
                raise
            time.sleep(0.3)


# ---- listing ----


@dataclass(frozen=True)
class StudySummary:
    """A line of `searchft list`."""

    name: str
    folder: Path
    counts: dict[str, int] = field(default_factory=dict)
    """`complete`, `pruned`, `failed`, `running`, `waiting` (answered ones not counted) and `answered`."""
    best: float | None = None
    changed: float = 0.0
    """When its files were last written: seconds since 1970."""
    problem: str = ""
    """Why nothing more can be said of it; empty: all is well."""


def list_studies(root: Path) -> list[StudySummary]:
    """The studies in the folders below `root`, by name. Opens each `study.db` read-only, without Optuna, in a few ms.

    A database that cannot be read is listed with its problem. Studies kept on a server have no file and are not listed.
    """
    summaries: list[StudySummary] = []
    for path in sorted(Path(root).glob(f"*/{DATABASE_NAME}")):
        changed = max((p.stat().st_mtime for p in (path, path.with_name(path.name + "-wal")) if p.exists()), default=0.0)
        try:
            summaries += _summaries_of(path, changed)
        except sqlite3.Error as error:
            summaries.append(StudySummary(path.parent.name, path.parent, changed=changed, problem=str(error)))
    return summaries


def _summaries_of(path: Path, changed: float) -> list[StudySummary]:
    with contextlib.closing(_connect_read_only(path)) as connection:
        summaries = []
        for study_id, name in connection.execute("SELECT study_id, study_name FROM studies ORDER BY study_name").fetchall():
            answered = connection.execute(
                "SELECT count(*) FROM trials JOIN trial_user_attributes USING (trial_id) WHERE study_id = ? AND key = 'answered_from'",
                (study_id,),
            ).fetchone()[0]
            counts = {"complete": 0, "pruned": 0, "failed": 0, "running": 0, "waiting": 0, "answered": answered}
            for state, count in connection.execute(
                "SELECT state, count(*) FROM trials WHERE study_id = ? AND trial_id NOT IN"
                " (SELECT trial_id FROM trial_user_attributes WHERE key = 'answered_from') GROUP BY state",
                (study_id,),
            ):
                counts["failed" if state == "FAIL" else state.lower()] += count
            best = connection.execute(
                "SELECT max(value) FROM trial_values JOIN trials USING (trial_id) WHERE study_id = ? AND state = 'COMPLETE'",
                (study_id,),
            ).fetchone()[0]
            summaries.append(StudySummary(name, path.parent, counts, best, changed))
        return summaries


def _connect_read_only(path: Path) -> sqlite3.Connection:
    address = f"file:{urllib.parse.quote(str(path.absolute()))}"
    connection = sqlite3.connect(f"{address}?mode=ro", uri=True, timeout=5.0)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").close()
    except sqlite3.OperationalError as error:
        connection.close()
        if "unable to open" not in str(error) and "readonly" not in str(error):
            raise
        # A WAL database in a folder that may not be written has nowhere to put its shared memory: read the file as it lies.
        connection = sqlite3.connect(f"{address}?immutable=1", uri=True)
    return connection


def dump_json(value: Any) -> str:
    """JSON for an attribute: compact, NaN refused with ValueError."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
