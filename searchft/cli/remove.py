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
    found = find_study(study, studies, storage)

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
        if found.folder.is_dir():
            _remove_folder(found.folder)
    if as_json:
        emit_json({"removed": found.name, "trials": count})
    else:
        say(f"removed study {found.name} with {count} trials")


def _remove_folder(folder: Path) -> None:
    """Moves the folder out of sight first, so that a removal cut short leaves no half study under its name."""
    hidden = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden)
