"""`searchft show`: one study, the best trial first."""

from __future__ import annotations

from pathlib import Path

import click

from searchft.cli.output import emit, emit_json, emit_renderable
from searchft.cli.studies import examples, find_study, json_option, say_if_read_only, study_options


@click.command("show", epilog=examples("show quickstart", "show quickstart --json"))
@click.option("--limit", type=click.IntRange(min=0), default=0, metavar="N", help="Show only the N best trials.")
@study_options
@json_option
def command(study: str, limit: int, studies: Path, storage: str, as_json: bool) -> None:
    """Show STUDY (a name, or a path to its folder): the best trial, and every other. Works while it runs."""
    with find_study(study, studies, storage).open() as ledger:
        say_if_read_only(ledger)
        space, facts, records, url = ledger.space(), ledger.facts(), ledger.records(), ledger.url
    from searchft.report.leaderboard import leaderboard, summary_json

    if as_json:
        emit_json(summary_json(space, records, url))
        return
    from searchft.report.progress import count_records, counts_in_words, is_unfinished
    from searchft.report.words import data_in_words, recipe_in_words, varying_fields
    from searchft.search.records import best

    counts = counts_in_words(count_records(records, space.search.trials), sum(map(is_unfinished, records)), every=True)
    emit(f"study {space.name}: {counts}")
    emit(f"data {data_in_words(facts)}")
    emit(f"storage {url}")
    if first := best(records):
        words = recipe_in_words(first.recipe, facts, varying_fields(space))
        emit(f"best #{first.number}, validation accuracy {first.value:.4f}: {words}")
    if records:
        emit_renderable(leaderboard(space, facts, records, limit))
