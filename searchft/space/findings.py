"""Collects what is wrong with a space, so that a user sees every fault at once and in reading order."""

from __future__ import annotations

from dataclasses import dataclass, field

from searchft.errors import InputError, Problem


@dataclass
class Findings:
    """Problems found so far in one space file and its overrides."""

    source: str
    """The file's name, as given."""
    problems: list[Problem] = field(default_factory=list)

    def add(self, where: str, key: str, rule: str) -> None:
        """Notes one problem."""
        self.problems.append(Problem(where, key, rule))

    def raise_if_any(self) -> None:
        """Raises InputError with all problems: the file's by line number, then those of `--set`, in the order found."""
        if self.problems:
            raise InputError(sorted(self.problems, key=self._place))

    def _place(self, problem: Problem) -> tuple[int, int]:
        # By number, not by text: line 10 stands after line 9.
        if problem.where == self.source:
            return (0, 0)
        line = problem.where.removeprefix(self.source + ":")
        return (0, int(line)) if line.isascii() and line.isdigit() else (1, 0)
