"""Rows that ran with several seeds as one line each, with their spread: the tables beside this file.

Usage: python studies/reference/spread.py studies/offline_face_resnet18

Rows are those of a space whose enqueued rows bear a list of seeds: `Baseline, seed 0`, `Baseline, seed 1` and so on.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

from searchft.recipe import SpaceFacts
from searchft.search.records import COMPLETE, TrialRecord

HEADER = """\
| Row | Weights | Epochs | Trained parameters | Seeds | Validation accuracy (range) | Last epoch | Training |
| --- | --- | ---: | ---: | ---: | --- | --- | --- |"""


def markdown(records: Iterable[TrialRecord], facts: SpaceFacts) -> str:
    """A Markdown table of complete trials, the seeds of a row together, in the order in which rows were first tried: mean and
    range of the validation accuracy at the best epoch, at the last one, and of the training accuracy."""
    rows: dict[str, list[TrialRecord]] = {}
    for record in records:
        if record.name and record.state == COMPLETE and record.value is not None:
            rows.setdefault(re.sub(r", seed \d+$", "", record.name), []).append(record)
    lines = [HEADER]
    for name, trials in rows.items():
        first = min(trials, key=lambda r: r.recipe.seed)
        backbone = facts.backbones[first.recipe.architecture()]
        weights = "random" if backbone.weights == "none" else backbone.weights
        train = [float(r.extra["train_accuracy"]) for r in trials if r.extra.get("train_accuracy") is not None]
        cells = [
            name,
            f"{backbone.backbone}, {weights}",
            first.recipe.epochs,
            f"{first.extra.get('trained_parameters') or 0:,}",
        ]
        cells += [
            len(trials),
            _spread([r.value for r in trials]),
            _spread([r.curve[-1] for r in trials if r.curve]),
            _spread(train),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f}–{max(values):.3f})"


def main(folder: Path) -> None:
    """Prints the table of the study in `folder`. Raises InputError where there is none."""
    from searchft.search.ledger import Ledger

    with Ledger.open("", folder.absolute().name, folder, create=False, exclusive=False) as ledger:
        print(markdown(ledger.records(), ledger.facts()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
