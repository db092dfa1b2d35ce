"""`searchft rm`: a study and everything in its folder, after asking."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from searchft.cli.output import emit_json, say
from searchft.cli.studies import find_study, json_option, storage_option, studies_option
from searchft.errors import InputError

EPILOG = """\b
Example:
  searchft rm quickstart
  searchft rm quickstart --yes"""


@click.command("rm", epilog=EPILOG)
@click.argument("study")
@click.option("--yes", is_flag=True, help="Do not ask.")
@studies_option
@storage_option
@json_option
def command(study: str, yes: bool, studies: Path, storage: str, as_json: bool) -> None:
    """Remove STUDY: its record, checkpoints and reports. Refused while it runs. Exported folders and shared stores stay."""
    if storage and "/" in study:
        raise InputError(f"must be a study's name beside --storage but got {study!r}", "STUDY")
    found = find_study(study, studies, storage)
    _check_mark(found.folder)

    # The driver's own lock: held while we remove, so that no run can begin in between.
    with found.open(exclusive=True) as ledger:
        count = len(ledger.records())
        where = f"{found.folder}" + (f" and {ledger.url}" if found.url else "")
        if not yes:
            if as_json or not sys.stdin.isatty():
                raise InputError("needs --yes where nobody can be asked", "searchft rm")
            if not click.confirm(f"Remove study {found.name} with {count} trials ({where})?", default=False, err=True):
                say("nothing was removed")
                return
        if found.url:
            ledger.delete()
        if found.folder.is_symlink():
            say(f"{found.folder} is a link: it is removed, {found.folder.resolve()} stays")
            found.folder.unlink()
        elif found.folder.is_dir():
            _remove_folder(found.folder)
    if as_json:
        emit_json({"removed": found.name, "trials": count})
    else:
        say(f"removed study {found.name} with {count} trials")


def _check_mark(folder: Path) -> None:
    """Raises InputError for a folder that holds something and that no search has made: it may be anything, also the images."""
    from searchft.search.claims import LOCK_NAME
    from searchft.search.databases import DATABASE_NAME

    marks = (LOCK_NAME, "space.yaml", DATABASE_NAME)
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / mark).is_file() for mark in marks):
        raise InputError(f"is no study's folder (it has none of {', '.join(marks)}): nothing is removed", str(folder))


def _remove_folder(folder: Path) -> None:
    """Moves the folder out of sight first, so that a removal cut short leaves no half study under its name."""
    hidden = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden)
