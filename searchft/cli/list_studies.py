"""`searchft list`: what has been searched so far."""

from __future__ import annotations

from pathlib import Path

import click

from searchft.cli.output import emit, emit_json, emit_renderable
from searchft.cli.studies import json_option, studies_option

EPILOG = """\b
Example:
  searchft list
  searchft list --json"""


@click.command("list", epilog=EPILOG)
@studies_option
@json_option
def command(studies: Path, as_json: bool) -> None:
    """List the studies of a folder: how far each is, and its best validation accuracy.

    Studies kept on a database server have no file here and are not listed.
    """
    from searchft.search.databases import list_studies

    found = list_studies(studies)
    if as_json:
        names = ("name", "counts", "best", "changed")
        entries = [{**{n: getattr(s, n) for n in names}, "folder": str(s.folder), "problem": s.problem or None} for s in found]
        emit_json({"studies": entries})
        return
    if not found:
        emit(f"{studies} holds no study yet. `searchft run SPACE` makes one.")
        return
    import datetime

    from rich import box
    from rich.table import Table
    from rich.text import Text

    from searchft.report.formats import accuracy_text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("study", overflow="fold", min_width=12)
    table.add_column("best", justify="right", no_wrap=True)
    for title in ("complete", "pruned", "failed", "running"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("changed", no_wrap=True)
    for s in found:
        changed = datetime.datetime.fromtimestamp(s.changed).strftime("%Y-%m-%d %H:%M")
        if s.problem:
            table.add_row(Text(s.name), Text("cannot be read", style="red"), "", "", "", "", changed)
        else:
            numbers = [str(s.counts[state]) for state in ("complete", "pruned", "failed", "running")]
            table.add_row(Text(s.name), accuracy_text(s.best), *numbers, changed)
    emit_renderable(table)
    for s in found:
        if s.problem:
            emit(f"{s.name} cannot be read: {s.problem}")
