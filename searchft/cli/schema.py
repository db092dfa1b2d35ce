"""`searchft schema`: the JSON schema of a space file, for editors that complete and check YAML."""

from __future__ import annotations

from pathlib import Path

import click

from searchft.cli.output import emit
from searchft.cli.studies import PATH, examples


@click.command("schema", epilog=examples("schema --out space.schema.json"))
@click.option("--out", type=PATH, metavar="FILE", help="Write it there instead of printing it.")
def command(out: Path | None) -> None:
    """Print the JSON schema of a space file: every key with its meaning, values and default.

    A space whose first line is `# yaml-language-server: $schema=space.schema.json` is completed and checked by VS Code's
    YAML extension and every other editor that speaks to yaml-language-server.
    """
    from searchft.space.schema import schema_text

    text = schema_text()
    if out is None:
        emit(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")
        emit(f"written to {out}")
