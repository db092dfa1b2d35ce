"""Fills a study with notes and figures for optuna-dashboard, on demand: made where somebody looks, never by the search.

Learning curves of all finished trials come from the record. Confusion matrix and most confused images are made, by a plain
forward pass over the validation images, for the trials whose weights are kept.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from searchft.cli.studies import FoundStudy
from searchft.errors import SearchftError

if TYPE_CHECKING:
    from searchft.data import Images
    from searchft.recipe import SpaceFacts
    from searchft.search.records import TrialRecord
    from searchft.space import Space

EVERY_S = 5.0  # how often a running study is looked at for newly finished trials

CURVE, CONFUSION, MISTAKES = "learning_curve.png", "confusion_matrix.png", "most_confused.png"


class Annotator:
    """Adds what is missing to a study. `step` does it once, `run` again and again until `stop` is set.

    torch and matplotlib are imported by its first step: the dashboard answers before they are there.
    """

    def __init__(self, found: FoundStudy) -> None:
        self.found = found
        self._images: Images | None = None
        self._asked: set[int] = set()
        """Trials whose weights were looked at: those that cannot be used are not tried again in this process."""

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            with contextlib.suppress(
                SearchftError, OSError, RuntimeError, ValueError
            ):  # the study may be in the middle of something
                self.step(stop)
            stop.wait(EVERY_S)

    def step(self, stop: threading.Event | None = None) -> int:
        """Notes and artifacts for every finished trial that lacks them; returns how many were added."""
        from searchft.report.figures import png, trial_curve_figure
        from searchft.report.notes import add_artifact, attached, write_notes

        with self.found.open() as ledger:
            study, space, facts, records = ledger.optuna_study, ledger.space(), ledger.facts(), ledger.records()
            added = write_notes(study, space, facts, records)
            known, finished = attached(study), [r for r in records if r.finished and r.answered_from is None]
            for record in finished:
                if record.curve and CURVE not in known[record.number]:
                    add_artifact(study, record.number, CURVE, png(partial(trial_curve_figure, record)), self.found.folder)
                    added += 1
            for record in finished:
                if stop is not None and stop.is_set():
                    break
                if CONFUSION not in known[record.number] and record.number not in self._asked:
                    for name, content in self._mistakes(record, space, facts):
                        add_artifact(study, record.number, name, content, self.found.folder)
                        added += 1
        return added

    def _mistakes(self, record: TrialRecord, space: Space, facts: SpaceFacts) -> Iterator[tuple[str, bytes]]:
        """Most confused images and confusion matrix of a trial whose weights are kept: (name, PNG)."""
        from searchft.cli.gather import images_of_study, val_predictions, weights_of
        from searchft.report.figures import confusion_figure, mistakes_figure, png

        if weights_of(self.found, record) is None:
            return
        self._asked.add(record.number)
        if self._images is None:
            self._images = images_of_study(facts, space.data)
        predictions = val_predictions(self.found, record, facts, space.data, self._images)
        if predictions is None or self._images is None:
            return
        classes, worst = facts.data.classes, predictions.worst(12)
        if worst:
            title = f"surest mistakes of trial {record.number}"
            images = [self._images.split("val").images[i] for i in worst]
            yield MISTAKES, png(partial(mistakes_figure, images, predictions.captions(worst, classes), title))
        title = f"trial {record.number}, validation images"
        yield CONFUSION, png(partial(confusion_figure, predictions.confusion(len(classes)), classes, title))
