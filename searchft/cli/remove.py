"""`searchft rm`: a study and everything in its folder, after asking."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from searchft.cli.output import emit_json, say
from searchft.cli.studies import confirm, examples, find_study, json_option, study_options, yes_option
from searchft.errors import InputError
from searchft.search.databases import DATABASE_NAME


@click.command("rm", epilog=examples("rm quickstart", "rm quickstart --yes"))
@yes_option
@study_options
@json_option
def command(study: str, yes: bool, studies: Path, storage: str, as_json: bool) -> None:
    """Remove STUDY: its record, checkpoints and reports. Refused while it runs. Exported folders and the shared cache stay."""
    if storage and "/" in study:
        raise InputError(f"must be a study's name beside --storage but got {study!r}", "STUDY")
    found = find_study(study, studies, storage)
    folder = found.folder
    _check_mark(folder)
    with found.open(exclusive=True) as ledger:  # the driver's own lock: no run can begin in between
        count = len(ledger.records())
        where = f"{folder}" + (f" and {ledger.url}" if found.url else "")
        if not confirm(f"Remove study {found.name} with {count} trials ({where})?", "rm", yes=yes, as_json=as_json):
            return
        if found.url:
            ledger.delete()
        if folder.is_symlink():
            say(f"{folder} is a link: it is removed, {folder.resolve()} stays")
            folder.unlink()
        elif folder.is_dir():
            # Out of sight first, so that a removal cut short leaves no half study under its name
            hidden = folder.with_name(f".{folder.name}.removed")
            shutil.rmtree(hidden, ignore_errors=True)
            folder.rename(hidden)
            shutil.rmtree(hidden)
    if as_json:
        emit_json({"removed": found.name, "trials": count})
    else:
        say(f"removed study {found.name} with {count} trials")


def _check_mark(folder: Path) -> None:
    """Raises InputError for a folder that holds something and that no search has made: it may be anything, also the images."""
    from searchft.search.claims import LOCK_NAME

    marks = (LOCK_NAME, "space.yaml", DATABASE_NAME)
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / mark).is_file() for mark in marks):
        raise InputError(f"is no study's folder (it has none of {', '.join(marks)}): nothing is removed", str(folder))
