"""What SQLite files hold, read without Optuna in a few milliseconds: for `searchft list`."""

from __future__ import annotations

import contextlib
import sqlite3
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

from searchft.search.urls import DATABASE_NAME

_OWN = "trial_id NOT IN (SELECT trial_id FROM trial_user_attributes WHERE key = 'answered_from')"


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
    """The studies in the folders below `root`, by name; a database that cannot be read is listed with its problem.

    Studies kept on a server have no file and are not listed.
    """
    summaries: list[StudySummary] = []
    for path in sorted(Path(root).glob(f"*/{DATABASE_NAME}")):
        changed = max((p.stat().st_mtime for p in (path, path.with_name(path.name + "-wal")) if p.exists()), default=0.0)
        try:
            with contextlib.closing(connect_read_only(path)) as connection:
                names = connection.execute("SELECT study_id, study_name FROM studies ORDER BY study_name").fetchall()
                summaries += [_summary(connection, study_id, name, path.parent, changed) for study_id, name in names]
        except sqlite3.Error as error:
            summaries.append(StudySummary(path.parent.name, path.parent, changed=changed, problem=str(error)))
    return summaries


def _summary(connection: sqlite3.Connection, study_id: int, name: str, folder: Path, changed: float) -> StudySummary:
    def one(question: str) -> float | None:
        found: float | None = connection.execute(question, (study_id,)).fetchone()[0]
        return found

    counts = {"complete": 0, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    by_state = f"SELECT state, count(*) FROM trials WHERE study_id = ? AND {_OWN} GROUP BY state"
    for state, count in connection.execute(by_state, (study_id,)):
        counts["failed" if state == "FAIL" else state.lower()] += count
    answered = one(f"SELECT count(*) FROM trials WHERE study_id = ? AND NOT {_OWN}")
    best = one("SELECT max(value) FROM trial_values JOIN trials USING (trial_id) WHERE study_id = ? AND state = 'COMPLETE'")
    return StudySummary(name, folder, {**counts, "answered": int(answered or 0)}, best, changed)


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
