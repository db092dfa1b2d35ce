"""Writes the report into a folder: report.html (complete in itself), report.md, figures/*.png and data/*.csv."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from searchft.files import write_atomic
from searchft.report.content import ReportInput, Table, answer_of, sections_of
from searchft.report.markdown import markdown
from searchft.report.page import page
from searchft.report.progress import count_records

PAGE = "report.html"
TWIN = "report.md"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_report(given: ReportInput, folder: Path) -> Path:
    """Writes everything and returns the page. Raises StorageError where the disk refuses."""
    from searchft.report.figures import png

    answer, sections = answer_of(given), sections_of(given)
    pictures = {drawing.name: png(drawing.draw()) for section in sections for drawing in section.drawings}
    for name, content in pictures.items():
        write_atomic(folder / "figures" / f"{name}.png", content)
    for section in sections:
        for table in section.tables:
            write_atomic(folder / "data" / f"{table.name}.csv", csv_text(table).encode())
    counts = count_records(given.records, given.space.search.trials)
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    facts = given.facts.data
    subtitle = f"{facts.source}, {len(facts.classes)} classes; {states or 'no trials yet'}"
    write_atomic(folder / TWIN, markdown(given.space.name, subtitle, answer, sections, pictures).encode())
    # The page last: whoever sees it new finds its twin and its data new too.
    write_atomic(folder / PAGE, page(given.space.name, subtitle, answer, sections, pictures).encode())
    return folder / PAGE


def csv_text(table: Table) -> str:
    """The table as CSV. A stranger's file name must not become a formula when a spreadsheet opens it."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.columns)
    for row in table.rows:
        writer.writerow(["" if v is None else f"'{v}" if isinstance(v, str) and v.startswith(_FORMULA) else v for v in row])
    return stream.getvalue()
