"""Rows that ran with several seeds as one line each, with their spread: the tables of studies/reference.

    python -m searchft.report.spread studies/offline_face_resnet18

Rows are those of a space whose enqueued rows bear a list of seeds: `Baseline, seed 0`, `Baseline, seed 1` and so on.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from searchft.recipe import SpaceFacts
from searchft.search.records import COMPLETE, TrialRecord


@dataclass(frozen=True)
class SpreadRow:
    """One row of the space over its seeds."""

    name: str
    values: tuple[float, ...]
    """Validation accuracy of the earliest best epoch, one for each finished seed, by seed."""
    final: tuple[float, ...]
    """That of the last epoch, which nobody chose."""
    train: tuple[float, ...]
    """Training accuracy where the value was reached."""
    epochs: int
    backbone: str
    weights: str
    """What was really loaded."""
    trained_parameters: int

    @property
    def on_random_weights(self) -> bool:
        """Whether it began at random values."""
        return self.weights == "none"

    @property
    def mean(self) -> float:
        """Of the values."""
        return statistics.fmean(self.values)


def spread_rows(records: Iterable[TrialRecord], facts: SpaceFacts) -> list[SpreadRow]:
    """Complete trials of named rows, the seeds of a row together, in the order in which rows were first tried."""
    found: dict[str, list[TrialRecord]] = {}
    for record in records:
        if record.name and record.state == COMPLETE and record.value is not None:
            found.setdefault(re.sub(r", seed \d+$", "", record.name), []).append(record)
    rows = []
    for name, trials in found.items():
        trials.sort(key=lambda record: record.recipe.seed)
        first = trials[0]
        backbone = facts.backbones[first.recipe.architecture()]
        rows.append(
            SpreadRow(
                name=name,
                values=tuple(record.value for record in trials if record.value is not None),
                final=tuple(record.curve[-1] for record in trials if record.curve),
                train=tuple(float(r.extra["train_accuracy"]) for r in trials if r.extra.get("train_accuracy") is not None),
                epochs=first.recipe.epochs,
                backbone=backbone.backbone,
                weights=backbone.weights,
                trained_parameters=int(first.extra.get("trained_parameters") or 0),
            )
        )
    return rows


def markdown(rows: Iterable[SpreadRow]) -> str:
    """A Markdown table: mean and range of the validation accuracy, of the last epoch's, training accuracy, what ran."""
    lines = [
        "| Row | Weights | Epochs | Trained parameters | Seeds | Validation accuracy (range) | Last epoch | Training |",
        "| --- | --- | ---: | ---: | ---: | --- | --- | --- |",
    ]
    for row in rows:
        weights = "random" if row.on_random_weights else row.weights
        lines.append(
            f"| {row.name} | {row.backbone}, {weights} | {row.epochs} | {row.trained_parameters:,} | {len(row.values)} "
            f"| {_spread(row.values)} | {_spread(row.final)} | {_spread(row.train)} |"
        )
    return "\n".join(lines)


def _spread(values: tuple[float, ...]) -> str:
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f}–{max(values):.3f})"


def main(folder: Path) -> None:
    """Prints the table of the study in `folder`. Raises InputError where there is none."""
    from searchft.search.ledger import Ledger

    with Ledger.open("", folder.absolute().name, folder, create=False, exclusive=False) as ledger:
        print(markdown(spread_rows(ledger.records(), ledger.facts())))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
