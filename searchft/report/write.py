"""Writes the report into a folder: report.html (complete in itself), report.md, figures/*.png and data/*.csv."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from searchft.files import write_atomic
from searchft.report.content import ReportInput, Table, answer_of, sections_of
from searchft.report.figures import png
from searchft.report.formats import markdown_text
from searchft.report.progress import count_records, counts_in_words

PAGE = "report.html"
TWIN = "report.md"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_report(given: ReportInput, folder: Path) -> Path:
    """Writes everything and returns the page. Raises StorageError where the disk refuses."""
    answer, sections = answer_of(given), list(sections_of(given))
    images = {drawing.name: png(drawing.draw) for section in sections for drawing in section.drawings}
    for name, content in images.items():
        write_atomic(folder / "figures" / f"{name}.png", content)
    for section in sections:
        for table in section.tables:
            write_atomic(folder / "data" / f"{table.name}.csv", csv_text(table).encode())
    counts = counts_in_words(count_records(given.records, given.space.search.trials))
    words = {
        "title": given.space.name,
        "subtitle": f"{given.facts.data.source}, {len(given.facts.data.classes)} classes; {counts}",
        "answer": answer,
        "sections": sections,
        "images": images,
    }
    # The page last: whoever sees it new finds its twin and its data new too.
    for name in (TWIN, PAGE):
        write_atomic(folder / name, _templates(name).get_template(f"{name}.j2").render(words).encode())
    return folder / PAGE


def _templates(name: str) -> Environment:
    """jinja2 as each form needs it: HTML is escaped by jinja2 itself, every expression of the Markdown by `markdown_text`."""
    html = name == PAGE
    templates = Environment(
        loader=PackageLoader("searchft.report"),
        autoescape=html,
        finalize=_cell if html else lambda value: markdown_text(_cell(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["base64"] = lambda content: base64.b64encode(content).decode()
    return templates


def _cell(value: Any) -> Any:
    """A value as it is read: a dash where there is none, floats with four decimals."""
    return "–" if value is None else f"{value:.4f}" if isinstance(value, float) else value


def csv_text(table: Table) -> str:
    """The table as CSV. A stranger's file name must not become a formula when a spreadsheet opens it."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.columns)
    for row in table.rows:
        writer.writerow(["" if v is None else f"'{v}" if isinstance(v, str) and v.startswith(_FORMULA) else v for v in row])
    return stream.getvalue()
