"""`searchft report`: the study as one HTML page that opens from disk, with a Markdown twin, PNG figures and CSV data."""

from __future__ import annotations

from pathlib import Path

import click

from searchft.cli.output import emit, emit_json
from searchft.cli.studies import PATH, examples, find_study, json_option, study_options


@click.command("report", epilog=examples("report quickstart", "report quickstart --out for_my_supervisor"))
@click.option("--out", type=PATH, metavar="DIR", help="Instead of report/ in the study's folder.")
@study_options
@json_option
def command(study: str, out: Path | None, studies: Path, storage: str, as_json: bool) -> None:
    """Write the report of STUDY: the answer first, then results, what mattered, mistakes, time and ground.

    report.html needs no network and can be sent as it is; report.md, figures/ and data/ lie beside it. Works while the
    study runs.
    """
    found = find_study(study, studies, storage)
    from searchft.cli.gather import gather
    from searchft.report.write import TWIN, write_report

    given = gather(found)
    folder = out or found.folder / "report"
    page = write_report(given, folder)
    if as_json:
        emit_json({"study": given.space.name, "report": str(page), "markdown": str(folder / TWIN), "folder": str(folder)})
    else:
        emit(str(page))
