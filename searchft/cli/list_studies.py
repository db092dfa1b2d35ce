"""`searchft list`: what has been searched so far."""

from __future__ import annotations

from pathlib import Path

import click

from searchft.cli.output import emit, emit_json, emit_table
from searchft.cli.studies import examples, json_option, studies_option

COUNTS = ("complete", "pruned", "failed", "running")


@click.command("list", epilog=examples("list", "list --json"))
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

    from searchft.report.formats import accuracy_text

    rows = []
    for s in found:
        known = (
            ["cannot be read", "", "", "", ""] if s.problem else [accuracy_text(s.best), *(str(s.counts[c]) for c in COUNTS)]
        )
        rows.append([s.name, *known, f"{datetime.datetime.fromtimestamp(s.changed):%Y-%m-%d %H:%M}"])
    emit_table(["study", "best", *COUNTS, "changed"], rows, right=("best", *COUNTS), fold="study")
    for s in found:
        if s.problem:
            emit(f"{s.name} cannot be read: {s.problem}")
