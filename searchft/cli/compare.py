"""`searchft compare`: how far each layer of one export lies from another's, or from the weights it started from."""

from __future__ import annotations

import math
from pathlib import Path

import click

from searchft.cli.output import emit, emit_json, emit_table, say
from searchft.cli.studies import PATH, examples, json_option

EXAMPLES = examples(
    "compare winner pretrained", "compare fine_tuned from_scratch --figure difference.svg", "compare a b --json"
)


@click.command("compare", epilog=EXAMPLES)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--figure", metavar="FILE", type=PATH, help="Draw it too: .png, .svg or .pdf.")
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
    numbers = ("elements", "relative change", "cosine")
    rows = ([row.layer, row.kind, f"{row.size:,}", _text(row.relative_change), _text(row.cosine)] for row in found.rows)
    emit_table(["layer", "parameter", *numbers], rows, right=numbers, fold="layer")
    for kind, median in found.summary().items():
        if median["tensors"]:
            change, cosine = _text(median["median_relative_change"]), _text(median["median_cosine"])
            emit(f"median over {median['tensors']:.0f} {kind} tensors: relative change {change}, cosine {cosine}")
    left_out = {f"only in {a}": found.only_in_a, f"only in {b}": found.only_in_b, "of other shapes": found.other_shape}
    for what, names in left_out.items():
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            say(f"not compared, {what}: {', '.join(names[:3])}{more}")
    if figure is not None:
        say(f"drawn: {figure}")


def _text(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "–"
