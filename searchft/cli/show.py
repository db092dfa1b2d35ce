"""`searchft show`: one study, the best trial first."""

from __future__ import annotations

from pathlib import Path

import click

from searchft.cli.output import emit, emit_json, emit_renderable
from searchft.cli.studies import find_study, json_option, say_if_read_only, storage_option, studies_option

EPILOG = """\b
Example:
  searchft show quickstart
  searchft show quickstart --json"""


@click.command("show", epilog=EPILOG)
@click.argument("study")
@click.option("--limit", type=click.IntRange(min=0), default=0, metavar="N", help="Show only the N best trials.")
@studies_option
@storage_option
@json_option
def command(study: str, limit: int, studies: Path, storage: str, as_json: bool) -> None:
    """Show STUDY (a name, or a path to its folder): the best trial, and every other. Works while it runs."""
    found = find_study(study, studies, storage)
    with found.open() as ledger:
        say_if_read_only(ledger)
        space, facts, records = ledger.space(), ledger.facts(), ledger.records()
        masked = ledger.url
    from searchft.report.leaderboard import leaderboard, summary_json

    if as_json:
        emit_json(summary_json(space, records, masked))
        return
    from searchft.report.progress import count_records, counts_in_words, is_unfinished
    from searchft.report.words import data_in_words, recipe_in_words, varying_fields
    from searchft.search.records import best

    counts = counts_in_words(count_records(records, space.search.trials), sum(map(is_unfinished, records)), every=True)
    first = best(records)
    emit(f"study {space.name}: {counts}")
    emit(f"data {data_in_words(facts)}")
    emit(f"storage {masked}")
    if first is not None:
        words = recipe_in_words(first.recipe, facts, varying_fields(space))
        emit(f"best #{first.number}, validation accuracy {first.value:.4f}: {words}")
    if records:
        emit_renderable(leaderboard(space, facts, records, limit))
