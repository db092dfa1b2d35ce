"""Studies' databases, without Optuna: which URLs are served, their names without passwords, what SQLite files hold."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

from searchft.errors import InputError

DATABASE_NAME = "study.db"  # the SQLite file in a study's folder

_SECRET_PARAMETER = re.compile(r"(?i)\b([\w-]*(?:pass(?:word|wd|phrase)?|pwd|secret|token))=([^&\s]*)")
_OWN = "trial_id NOT IN (SELECT trial_id FROM trial_user_attributes WHERE key = 'answered_from')"


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
    """The password as written; empty if there is none. It may hold an unescaped @, / or ?: it ends at the URL's last @."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower().startswith("sqlite"):
        return ""
    user, colon, password = rest.rpartition("@")[0].partition(":")
    return password if colon and "@" not in user else ""


def default_url(folder: Path) -> str:
    """The URL of the SQLite file in a study's folder."""
    return f"sqlite:///{Path(folder).absolute() / DATABASE_NAME}"


def sqlite_path(url: str) -> Path | None:
    """The file behind a SQLite URL; None for PostgreSQL. Raises InputError for a database in memory and for any other server."""
    scheme, separator, rest = url.partition("://")
    dialect = scheme.lower().partition("+")[0]
    if separator and dialect in ("postgresql", "postgres"):
        return None
    if not separator or dialect != "sqlite":
        raise InputError(f"must be postgresql://USER@HOST/DATABASE or sqlite:///PATH but got {mask_url(url)!r}", "--storage")
    path = re.sub(r"\?\w+=[^/]*$", "", rest.removeprefix("/"))  # a folder may have a ? in its name
    if path in ("", ":memory:") or path.startswith("file:"):
        raise InputError(f"must name a file (sqlite:///PATH): a study that is to survive cannot live in {url!r}", "--storage")
    return Path(path)


def postgres_url(url: str) -> str:
    """PostgreSQL's URL with the driver that our extra `postgres` installs, where it names none: SQLAlchemy's choice varies."""
    scheme, _, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if scheme.lower() in ("postgres", "postgresql") else url


@dataclass(frozen=True)
class StudySummary:
    """A line of `searchft list`."""

    name: str
    folder: Path
    counts: dict[str, int] = field(default_factory=dict)
    """`complete`, `pruned`, `failed`, `running`, `waiting` (answered ones not counted) and `answered`."""
    best: float | None = None
    changed: float = 0.0  # when its files were last written: seconds since 1970
    problem: str = ""  # why nothing more can be said of it; empty: all is well


def list_studies(root: Path) -> list[StudySummary]:
    """The studies with files below `root`, by name; a database that cannot be read is listed with its problem."""
    summaries: list[StudySummary] = []
    for path in sorted(Path(root).glob(f"*/{DATABASE_NAME}")):
        changed = max((p.stat().st_mtime for p in (path, path.with_name(path.name + "-wal")) if p.exists()), default=0.0)
        try:
            with contextlib.closing(connect_read_only(path)) as connection:
                names = connection.execute("SELECT study_id, study_name FROM studies ORDER BY study_name").fetchall()
                summaries += [StudySummary(name, path.parent, *_count(connection, number), changed) for number, name in names]
        except sqlite3.Error as error:
            summaries.append(StudySummary(path.parent.name, path.parent, changed=changed, problem=str(error)))
    return summaries


def _count(connection: sqlite3.Connection, study_id: int) -> tuple[dict[str, int], float | None]:
    """A study's trials by state, and its best value."""
    counts = {"complete": 0, "pruned": 0, "failed": 0, "running": 0, "waiting": 0, "answered": 0}
    by_state = f"SELECT CASE WHEN {_OWN} THEN state ELSE 'answered' END, count(*) FROM trials WHERE study_id = ? GROUP BY 1"
    for state, count in connection.execute(by_state, (study_id,)):
        counts["failed" if state == "FAIL" else state.lower()] += count
    highest = "SELECT max(value) FROM trial_values JOIN trials USING (trial_id) WHERE study_id = ? AND state = 'COMPLETE'"
    return counts, connection.execute(highest, (study_id,)).fetchone()[0]


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection that never writes, to a file that is there. Raises sqlite3's errors."""
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
