"""What verbs share: options and examples, questions, and how STUDY, SPACE and DATA are found."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from searchft.cli.output import say
from searchft.errors import InputError
from searchft.search.databases import DATABASE_NAME
from searchft.wording import near

if TYPE_CHECKING:
    from searchft.search.ledger import Ledger
    from searchft.space import Space

Command = TypeVar("Command", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)

studies_option = click.option(
    "--studies", type=PATH, default=Path("studies"), show_default=True, metavar="DIR", help="Where studies live."
)
storage_option = click.option(
    "--storage",
    default="",
    envvar="SEARCHFT_STORAGE",
    metavar="URL",
    help="Database that holds the study, instead of SQLite in its folder. [env: SEARCHFT_STORAGE]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
set_option = click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a value of the space, e.g. recipe.epochs=5."
)
code_option = click.option("--allow-code", is_flag=True, help="Run the Python files that the space names as backbones.")
tta_option = click.option(
    "--tta",
    type=click.Choice(["none", "five-crop", "ten-crop", "flip"]),
    default="none",
    help="Average over views of each image: centre and corners (and their mirror images), or centre and its mirror image.",
)
"""`export.score.LOOKS`, which cannot be imported here without torch."""


def study_options(command: Command) -> Command:
    """STUDY, `--studies` and `--storage`: what `find_study` takes."""
    return click.argument("study")(studies_option(storage_option(command)))


def examples(*lines: str) -> str:
    """The end of a verb's help; `\\b` keeps click from joining the lines."""
    return "\n".join(["\b", "Example:", *(f"  searchft {line}" for line in lines)])


def confirm(question: str, verb: str, *, yes: bool, as_json: bool) -> bool:
    """Whether something may be removed. Raises InputError where nobody can be asked."""
    if yes:
        return True
    if as_json or not sys.stdin.isatty():
        raise InputError("needs --yes where nobody can be asked", f"searchft {verb}")
    agreed = click.confirm(question, default=False, err=True)
    if not agreed:
        say("nothing was removed")
    return agreed


@dataclass(frozen=True)
class FoundStudy:
    """Where a study is."""

    name: str
    folder: Path
    url: str
    """Of its database; empty: SQLite in the folder."""

    def open(self, *, exclusive: bool = False) -> Ledger:
        """Its ledger, for reading unless `exclusive`; a `with` block closes it."""
        from searchft.search.ledger import Ledger

        return Ledger.open(self.url, self.name, self.folder, create=False, exclusive=exclusive)

    def trial_folder(self, number: int) -> Path:
        """Where a trial keeps its checkpoint."""
        from searchft.files import trial_folder

        return trial_folder(self.folder, number)


def say_if_read_only(ledger: Ledger) -> None:
    """One sentence where another version of searchft made the study."""
    from searchft.recipe import is_read_only

    if is_read_only(ledger.environment()):
        say(f"note: {ledger.name} was made by another version of searchft: it can be read, but not gone on with")


def find_study(study: str, studies: Path, storage: str = "") -> FoundStudy:
    """The study that a person means; a path (with a slash, or of a study's folder here) wins over a name. Raises InputError."""
    is_path = "/" in study or Path(study, DATABASE_NAME).is_file()
    folder = Path(study) if is_path else studies / study
    found = FoundStudy(folder.absolute().name, folder, storage)
    if storage or (folder / DATABASE_NAME).is_file():
        return found
    known = [path.parent.name for path in sorted(studies.glob(f"*/{DATABASE_NAME}"))]
    hint = f"there are {', '.join(known[:8])}" if known else f"{studies} holds none yet: searchft run SPACE makes one"
    if meant := near(study, known):
        hint = f"did you mean '{meant}'?"
    raise InputError(f"there is no study '{study}', {hint}", str(folder))


def read_space(space_file: Path, overrides: Sequence[str], allow_code: bool) -> Space:
    """The space in a file. With `allow_code` this process, and workers that it starts from now on, may run the code it names."""
    from searchft.space import load_space

    space = load_space(space_file, overrides)
    if allow_code:
        from searchft.models.backbones import permit

        permit(space_file.parent)
    return space


def find_source(data: str) -> str:
    """DATA as a `data.source`: folders and tables may be given by their bare path, and become absolute. Raises InputError."""
    from searchft.data.sources import SOURCES

    kind, _, argument = data.partition(":")
    path = Path(argument if argument and kind in ("folder", "csv") else data).expanduser()
    if path.is_dir():
        return f"folder:{path.absolute()}"
    if path.is_file():
        if kind != "csv" and path.suffix.lower() not in (".csv", ".tsv"):
            raise InputError("must be a folder with a sub-folder of images per class, or a table ending in .csv", str(path))
        return f"csv:{path.absolute()}"
    if kind not in SOURCES or kind in ("folder", "csv"):
        rule = "must be a folder of images, a CSV table or a source such as orl_faces, but there is nothing here"
        raise InputError(rule, data)
    return data


def check_writable(studies: Path) -> None:
    """Raises InputError where no study can be made in this folder: better at once than after looking at every image."""
    standing = next(folder for folder in (studies.absolute(), *studies.absolute().parents) if folder.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK | os.X_OK):
        rule = "must be a folder that you may write to: choose another, or change its permissions"
        raise InputError(rule, f"--studies {standing}")
