"""`searchft compare`: how far each layer of one export lies from another's, or from the weights it started from."""

from __future__ import annotations

import math
from pathlib import Path

import click

from searchft.cli.output import emit, emit_json, emit_table, say
from searchft.cli.studies import json_option

EPILOG = """\b
Example:
  searchft compare winner pretrained
  searchft compare fine_tuned from_scratch --figure difference.svg
  searchft compare a b --json"""


@click.command("compare", epilog=EPILOG)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--figure", metavar="FILE", type=click.Path(path_type=Path), help="Draw it too: .png, .svg or .pdf.")
@json_option
def command(a: str, b: str, figure: Path | None, as_json: bool) -> None:
    """Compare the parameters of two exported folders, A and B, layer by layer.

    Either may be the word `pretrained`: the weights that the other one started from. Per tensor: relative change
    |B - A| / |A|, and cosine similarity.
    """
    from searchft.export.compare import compare, draw

    found = compare(a, b)
    if figure is not None:
        draw(found, figure)
    if as_json:
        emit_json({**found.to_json(), "figure": str(figure) if figure else None})
        return
    right = {"justify": "right"}
    columns = [("layer", {"overflow": "fold"}), ("parameter", {})]
    columns += [(title, right) for title in ("elements", "relative change", "cosine")]
    cells = ([row.layer, row.kind, f"{row.size:,}", _text(row.relative_change), _text(row.cosine)] for row in found.rows)
    emit_table(columns, cells)
    for kind, numbers in found.summary().items():
        if numbers["tensors"]:
            emit(
                f"median over {numbers['tensors']:.0f} {kind} tensors: relative change "
                f"{_text(numbers['median_relative_change'])}, cosine {_text(numbers['median_cosine'])}"
            )
    for names, what in (
        (found.only_in_a, f"only in {a}"),
        (found.only_in_b, f"only in {b}"),
        (found.other_shape, "of other shapes"),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            say(f"not compared, {what}: {', '.join(names[:3])}{more}")
    if figure is not None:
        say(f"drawn: {figure}")


def _text(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "–"
