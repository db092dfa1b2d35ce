"""How a verb finds its study: `--studies`, `--storage`, and STUDY as a name there or a path to a study's folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from searchft.cli.output import say
from searchft.errors import InputError
from searchft.files import trial_folder
from searchft.wording import near

if TYPE_CHECKING:
    from searchft.search.ledger import Ledger

Command = TypeVar("Command", bound=Callable[..., Any])


def studies_option(command: Command) -> Command:
    """`--studies DIR`, as the parameter `studies`."""
    return click.option(
        "--studies",
        type=click.Path(path_type=Path),
        default=Path("studies"),
        show_default=True,
        metavar="DIR",
        help="Where studies live.",
    )(command)


def storage_option(command: Command) -> Command:
    """`--storage URL`, as the parameter `storage` (empty: SQLite in the study's folder)."""
    return click.option(
        "--storage",
        default="",
        envvar="SEARCHFT_STORAGE",
        metavar="URL",
        help="Database that holds the study, instead of SQLite in its folder. [env: SEARCHFT_STORAGE]",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`, as the parameter `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")(command)


@dataclass(frozen=True)
class FoundStudy:
    """Where a study is."""

    name: str
    folder: Path
    url: str
    """Of its database; empty: SQLite in the folder."""

    def open(self, *, exclusive: bool = False) -> Ledger:
        """Its ledger; for reading unless `exclusive`. Close it, or use it in a `with` block."""
        from searchft.search.ledger import Ledger

        return Ledger.open(self.url, self.name, self.folder, create=False, exclusive=exclusive)

    def trial_folder(self, number: int) -> Path:
        """Where a trial keeps its checkpoint."""
        return trial_folder(self.folder, number)


def say_if_read_only(ledger: Ledger) -> None:
    """One sentence where another version of searchft made the study."""
    from searchft.recipe import is_read_only

    if is_read_only(ledger.environment()):
        say(f"note: {ledger.name} was made by another version of searchft: it can be read, but not gone on with")


def check_writable(studies: Path) -> None:
    """Raises InputError where no study can be made in this folder: better at once than after looking at every photo."""
    standing = next(folder for folder in (studies.absolute(), *studies.absolute().parents) if folder.exists())
    if not standing.is_dir():
        raise InputError("must be a folder but is a file", f"--studies {standing}")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise InputError(
            "must be a folder that you may write to: choose another, or change its permissions", f"--studies {standing}"
        )


def find_study(study: str, studies: Path, storage: str = "") -> FoundStudy:
    """The study that a person means. Raises InputError with near misses where there is none.

    A path (anything with a slash, or a folder that exists here and holds a study) wins over a name.
    """
    from searchft.search.urls import DATABASE_NAME

    as_path = Path(study)
    if "/" in study or (as_path / DATABASE_NAME).is_file():
        folder = as_path
    else:
        folder = studies / study
    name = folder.absolute().name
    if storage:
        return FoundStudy(name, folder, storage)
    if not (folder / DATABASE_NAME).is_file():
        known = [path.parent.name for path in sorted(studies.glob(f"*/{DATABASE_NAME}"))]
        meant = near(study, known)
        if meant:
            hint = f"did you mean '{meant}'?"
        elif known:
            hint = f"there are {', '.join(known[:8])}"
        else:
            hint = f"{studies} holds none yet: searchft run SPACE makes one"
        raise InputError(f"there is no study '{study}', {hint}", str(folder))
    return FoundStudy(name, folder, "")
