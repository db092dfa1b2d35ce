"""What can go wrong, and with which exit code the program leaves.

    SearchftError                 1  a bug of ours, unless a subclass says otherwise
    ├── InputError                2  the user's input is wrong: nothing was started, nothing was lost
    │   └── ChangedGroundError    2  data, weights or space differ from what the study was created with
    ├── NothingCompletedError     3  the search ended and no trial had completed
    ├── StorageError              4  the database or the disk failed: what was there before is intact
    ├── WorkersFailedError        4  trial after trial raised an error: the fault is the machine's, or the space's
    └── Interrupted             130  stopped by a signal: running again goes on

Errors carry plain text. Where an input has several faults, all are reported at once, each with its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Problem:
    """One fault in the input."""

    where: str
    """File and line (`spaces/x.yaml:14`), a command-line flag (`--set`), or a path."""
    key: str
    """Dotted key (`recipe.dropout`), or an empty string."""
    rule: str
    """The rule first, then the value: `must lie in [0, 1) but got 1.5`. May end with what to do."""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.rule) if part)


class SearchftError(Exception):
    """Base of every error that searchft raises on purpose. `kind` is its name in JSON answers."""

    exit_code = 1
    kind = "internal"

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message)
        self.where = where


class InputError(SearchftError):
    """Holds every problem found, in the order of their places."""

    exit_code = 2
    kind = "input"

    def __init__(self, problems: str | Problem | Iterable[Problem], where: str = "") -> None:
        if isinstance(problems, str):
            problems = Problem(where, "", problems)
        if isinstance(problems, Problem):
            problems = [problems]
        self.problems: tuple[Problem, ...] = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(map(str, self.problems)), where or self.problems[0].where)


class ChangedGroundError(InputError):
    kind = "changed"


class NothingCompletedError(SearchftError):
    exit_code = 3
    kind = "nothing-completed"


class StorageError(SearchftError):
    exit_code = 4
    kind = "storage"


class WorkersFailedError(SearchftError):
    exit_code = 4
    kind = "workers"


class Interrupted(SearchftError):
    exit_code = 130
    kind = "interrupted"


def first_line(error: BaseException | None, limit: int = 200) -> str:
    """The first line of any error's message; its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:limit]
