"""A study as a table and as JSON: the same records, once for people and once for programs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from searchft.recipe import SpaceFacts
from searchft.report.formats import accuracy_text, duration_text
from searchft.report.progress import count_records, is_unfinished
from searchft.report.words import recipe_in_words, varying_fields
from searchft.search.records import TrialRecord, best
from searchft.space import Space

SCHEMA_VERSION = 1
"""Of `summary_json`."""

_ORDER = {"complete": 0, "running": 1, "pruned": 2, "failed": 3}


def ranked(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Complete trials first, best on top (ties as in `best`), then running, pruned and failed ones."""

    def rank(record: TrialRecord) -> tuple[int, float, bool, float, int]:
        value = record.value if record.value is not None and math.isfinite(record.value) else -math.inf
        parameters = float(record.extra.get("trained_parameters", math.inf))
        return _ORDER.get(record.state, 9), -value, record.answered_from is not None, parameters, record.number

    return sorted(records, key=rank)


def leaderboard(space: Space, facts: SpaceFacts, records: Sequence[TrialRecord], limit: int = 0) -> Table:
    """The trials as a table, best on top; `limit` rows at most, 0 for all. Duplicates are left out."""
    rows = [record for record in ranked(records) if record.answered_from is None]
    shown = rows[:limit] if limit else rows
    varying = varying_fields(space)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in ("#", "val acc", "state", "epochs", "time"):
        table.add_column(title, justify="left" if title == "state" else "right", no_wrap=True)
    table.add_column("recipe", overflow="fold", ratio=1)
    first = best(records)
    for record in shown:
        words = recipe_in_words(record.recipe, facts, varying)
        words = f"{record.name}: {words}" if record.name else words
        if record.state == "failed" and record.reason:
            words += f" ({' '.join(record.reason.split())[:200]})"
        style = {"pruned": "dim", "failed": "red"}.get(record.state, "")
        table.add_row(
            str(record.number),
            accuracy_text(record.value),
            "unfinished" if is_unfinished(record) else record.state,
            str(len(record.curve)),
            duration_text(record.seconds) if record.finished or record.seconds else "–",
            Text(words, overflow="fold"),  # a "[" of a recipe is no markup
            style="bold green" if first is not None and record.number == first.number else style,
        )
    if len(rows) > len(shown):
        table.caption = f"and {len(rows) - len(shown)} more"
    return table


def summary_json(space: Space, facts: SpaceFacts, records: Sequence[TrialRecord], storage: str) -> dict[str, Any]:
    """The study as one JSON object: what `show --json` and the end of `run --json` print.

    `storage` is the URL with its password masked already. NaN is None. `epochs` counts those that were computed.
    """
    first = best(records)
    winner = first and {
        "number": first.number,
        "value": _finite(first.value),
        "recipe": first.recipe.to_json(),
        "key": first.key,
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "study": space.name,
        "storage": storage,
        "counts": count_records(records, space.search.trials),
        "best": winner,
        "trials": [
            {
                "number": record.number,
                "name": record.name,
                "state": record.state,
                "value": _finite(record.value),
                "epochs": len(record.curve),
                "seconds": _finite(record.seconds),
                "recipe": record.recipe.to_json(),
                "key": record.key,
                "answered_from": record.answered_from,
            }
            for record in sorted(records, key=lambda r: r.number)
        ],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
