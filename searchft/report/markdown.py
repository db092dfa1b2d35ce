"""The report's Markdown twin: the same answer, sections and tables as the page, its figures as the PNG files beside it.

The result table has the columns of the classic transfer-learning report (architecture, hyper-parameters, accuracy on
train, validation and test). Test accuracies are there for what `export` scored: nothing is ever chosen by them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from searchft.report.content import Answer, Section, Table


def markdown(title: str, subtitle: str, answer: Answer, sections: Sequence[Section], pictures: Collection[str]) -> str:
    """The report as Markdown. `pictures` names the drawings that lie beside it as figures/NAME.png."""
    lines = [f"# {plain(title)}", "", plain(subtitle), ""]
    for text in answer.warnings:
        lines += [f"**{plain(text)}**", ""]
    if answer.words:
        lines += [f"**Best: {plain(answer.words)}.**", ""]
    for what, number, sure in answer.figures:
        lines.append(f"- {plain(what)} **{plain(number)}** ({plain(sure)})")
    lines += ["", *(f"{plain(text)}  " for text in answer.sentences)]
    for section in sections:
        lines += ["", f"## {plain(section.title)}", ""]
        lines += [f"{plain(text)}  " for text in section.lead]
        lines += [f"- {plain(name)}: {plain(value)}" for name, value in section.facts]
        for drawing in section.drawings:
            if drawing.name in pictures:
                lines += ["", f"![{plain(drawing.words)}](figures/{drawing.name}.png)", ""]
        for table in section.tables:
            if table.shown and table.rows:
                lines += ["", *_table(table)]
    return "\n".join(lines).rstrip() + "\n"


def _table(table: Table) -> list[str]:
    marks = ["---:" if i in table.numeric else "---" for i in range(len(table.columns))]
    lines = ["| " + " | ".join(map(plain, table.columns)) + " |", "| " + " | ".join(marks) + " |"]
    for row in table.rows[: table.most]:
        lines.append("| " + " | ".join(plain(_text(value)) for value in row) + " |")
    if len(table.rows) > table.most:
        lines += ["", f"and {len(table.rows) - table.most} more in {table.name}.csv"]
    return lines


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def plain(text: object) -> str:
    """Text that ends no table cell, marks nothing up, links nowhere and holds no HTML."""
    flat = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*|\[\]])", r"\\\1", flat).replace("://", ":&#47;&#47;")
