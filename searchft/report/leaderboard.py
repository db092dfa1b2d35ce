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
from searchft.report.words import trial_in_words, varying_fields
from searchft.search.records import COMPLETE, FAILED, PRUNED, RUNNING, TrialRecord, best
from searchft.space import Space

_ORDER = {COMPLETE: 0, RUNNING: 1, PRUNED: 2, FAILED: 3}


def in_order(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Trials that computed something: complete ones, best on top (ties as in `best`), then running, pruned and failed ones."""

    def rank(record: TrialRecord) -> tuple[int, float, float, int]:
        value = record.value if record.value is not None and math.isfinite(record.value) else -math.inf
        return _ORDER[record.state], -value, float(record.extra.get("trained_parameters", math.inf)), record.number

    return sorted((record for record in records if record.answered_from is None), key=rank)


def time_words(record: TrialRecord) -> str:
    """A trial's computing time; a dash where it is not known yet."""
    return duration_text(record.seconds) if record.finished or record.seconds else "–"


def leaderboard(space: Space, facts: SpaceFacts, records: Sequence[TrialRecord], limit: int = 0) -> Table:
    """The trials as a table, best on top; `limit` rows at most, 0 for all. Duplicates are left out."""
    rows, varying, first = in_order(records), varying_fields(space), best(records)
    shown = rows[: limit or None]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in ("#", "val acc", "state", "epochs", "time"):
        table.add_column(title, justify="left" if title == "state" else "right", no_wrap=True)
    table.add_column("recipe", overflow="fold", ratio=1)
    for record in shown:
        words = trial_in_words(record, facts, varying)
        if record.state == FAILED and record.reason:
            words += f" ({' '.join(record.reason.split())[:200]})"
        style = {PRUNED: "dim", FAILED: "red"}.get(record.state, "")
        table.add_row(
            str(record.number),
            accuracy_text(record.value),
            "unfinished" if is_unfinished(record) else record.state,
            str(len(record.curve)),
            time_words(record),
            Text(words, overflow="fold"),  # a "[" of a recipe is no markup
            style="bold green" if first is not None and record.number == first.number else style,
        )
    if len(rows) > len(shown):
        table.caption = f"and {len(rows) - len(shown)} more"
    return table


def summary_json(space: Space, records: Sequence[TrialRecord], storage: str) -> dict[str, Any]:
    """The study as one JSON object: what `show --json` and the end of `run --json` print. `storage` is the URL, password masked."""
    first = best(records)
    return {
        "study": space.name,
        "storage": storage,
        "counts": count_records(records, space.search.trials),
        "best": first and {"number": first.number, "value": first.value, "recipe": first.recipe.to_json(), "key": first.key},
        "trials": [
            {
                **{name: getattr(record, name) for name in ("number", "name", "state", "value")},
                **{"epochs": len(record.curve), "seconds": record.seconds, "recipe": record.recipe.to_json()},
                **{name: getattr(record, name) for name in ("key", "answered_from")},
            }
            for record in sorted(records, key=lambda r: r.number)
        ],
    }
