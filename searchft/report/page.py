"""The report as one HTML page that opens from disk: no network, no script, pictures inside.

Everything that comes from files, folders, spaces or databases goes through `html.escape`; a content policy forbids the
browser to load or run anything at all besides the embedded pictures and this page's own style.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from searchft.report.content import Answer, Section, Table

STYLE = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;color:#24292f;background:#fff;margin:0 auto;
  max-width:62rem;padding:2rem 1.25rem 4rem}
h1{font-size:1.7rem;margin:0 0 .2rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.6rem 0 .6rem;border-bottom:1px solid #d0d7de;padding-bottom:.25rem}
p{margin:.5rem 0;overflow-wrap:anywhere}
.answer{border:1px solid #b6d0f7;background:#f3f8ff;border-radius:8px;padding:1rem 1.25rem;margin:1.2rem 0}
.answer .recipe{font-size:1.15rem;font-weight:600;margin:0 0 .8rem;overflow-wrap:anywhere}
.numbers{display:flex;flex-wrap:wrap;gap:.6rem 2.5rem;margin:0 0 .8rem}
.numbers b{display:block;font-size:1.9rem;line-height:1.15;font-variant-numeric:tabular-nums}
.numbers span{color:#57606a;font-size:.85rem}
.warning{border-left:4px solid #d1242f;background:#fff1f0;padding:.5rem .9rem;margin:.6rem 0;overflow-wrap:anywhere}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.86rem;width:100%}
th,td{text-align:left;padding:.3rem .55rem;border-bottom:1px solid #eaeef2;vertical-align:top;overflow-wrap:anywhere}
th{color:#57606a;font-weight:600;white-space:nowrap}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td.short{overflow-wrap:normal}
tr.best td{background:#f3f8ff;font-weight:600}
tr.pale td{color:#8b949e}
figure{margin:1rem 0}
figure img{max-width:100%;height:auto;display:block}
figcaption,.small{color:#57606a;font-size:.86rem}
dl{display:grid;grid-template-columns:minmax(7rem,max-content) 1fr;gap:.25rem 1rem;font-size:.92rem}
dt{color:#57606a}dd{margin:0;overflow-wrap:anywhere}
@media (max-width:40rem){dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}}
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(
    title: str,
    subtitle: str,
    answer: Answer,
    sections: Sequence[Section],
    pictures: Mapping[str, bytes],
) -> str:
    """The page. `pictures` are the sections' drawings as PNG, by name."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f'<p class="small">{escape(subtitle)}</p>',
        *(f'<p class="warning">{escape(text)}</p>' for text in answer.warnings),
        _answer(answer),
    ]
    for section in sections:
        parts.append(f"<section><h2>{escape(section.title)}</h2>")
        parts += [f"<p>{escape(text)}</p>" for text in section.lead]
        if section.facts:
            lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in section.facts)
            parts.append(f"<dl>{lines}</dl>")
        for drawing in section.drawings:
            if drawing.name in pictures:
                data = base64.b64encode(pictures[drawing.name]).decode()
                parts.append(
                    f'<figure><img alt="{escape(drawing.words)}" src="data:image/png;base64,{data}">'
                    f"<figcaption>{escape(drawing.words)}</figcaption></figure>"
                )
        parts += [_table(table, answer.number) for table in section.tables if table.shown and table.rows]
        parts.append("</section>")
    parts.append("</body></html>\n")
    return "\n".join(parts)


def _answer(answer: Answer) -> str:
    lines = [f'<div class="answer"><p class="recipe">{escape(answer.words or "No answer yet")}</p>']
    if answer.figures:
        lines.append('<div class="numbers">')
        lines += [
            f"<div><span>{escape(what)}</span><b>{escape(number)}</b><span>{escape(sure)}</span></div>"
            for what, number, sure in answer.figures
        ]
        lines.append("</div>")
    lines += [f"<p>{escape(text)}</p>" for text in answer.sentences]
    lines.append("</div>")
    return "\n".join(lines)


def _table(table: Table, best: int | None) -> str:
    def cells(row: Sequence[Any], tag: str) -> str:
        return "".join(f"<{tag}{_kind(table, i, tag)}>{escape(_text(value))}</{tag}>" for i, value in enumerate(row))

    lines = [f'<div class="wide"><table><thead><tr>{cells(table.columns, "th")}</tr></thead><tbody>']
    for row in table.rows[: table.most]:
        kind = ""
        if table.name == "results":
            kind = ' class="best"' if row[0] == best else "" if row[6] == "complete" else ' class="pale"'
        lines.append(f"<tr{kind}>{cells(row, 'td')}</tr>")
    lines.append("</tbody></table></div>")
    if len(table.rows) > table.most:
        lines.append(f'<p class="small">and {len(table.rows) - table.most} more in {escape(table.name)}.csv</p>')
    return "\n".join(lines)


def _kind(table: Table, column: int, tag: str) -> str:
    if column in table.numeric:
        return " class=n"
    return " class=short" if tag == "td" and table.columns[column] == "state" else ""


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
