"""Fills a study with notes and figures for optuna-dashboard, on demand: made where somebody looks, never by the search.

Learning curves of all finished trials come from the record. Confusion matrix and most confused images need a trial's
weights: they are made for the trials whose weights are kept, by a plain forward pass over the validation images.
"""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from typing import TYPE_CHECKING

from searchft.cli.studies import FoundStudy
from searchft.errors import SearchftError

if TYPE_CHECKING:
    from searchft.data import Images
    from searchft.search.ledger import Ledger
    from searchft.search.records import TrialRecord

EVERY_S = 5.0
"""How often a running study is looked at for newly finished trials."""

CURVE, CONFUSION, MISTAKES = "learning_curve.png", "confusion_matrix.png", "most_confused.png"


class Annotator:
    """Adds what is missing to a study. `step` does it once, `run` again and again until `stop` is set."""

    def __init__(self, found: FoundStudy) -> None:
        self.found = found
        self._images: Images | None = None
        self._looked = False
        self._asked: set[int] = set()
        """Trials whose weights could not be used: not tried again in this process."""

    def run(self, stop: threading.Event) -> None:
        """Steps until told to stop. An error is no reason to end: the study may be in the middle of something."""
        while not stop.is_set():
            with contextlib.suppress(SearchftError, OSError, RuntimeError, ValueError):
                self.step(stop)
            stop.wait(EVERY_S)

    def step(self, stop: threading.Event | None = None) -> int:
        """Notes and artifacts for every finished trial that lacks them; returns how many were added."""
        from searchft.report.figures import png, trial_curve_figure
        from searchft.report.notes import add_artifact, artifact_store, attached, write_notes

        with self.found.open() as ledger:
            study, space, facts, records = ledger.optuna_study, ledger.space(), ledger.facts(), ledger.records()
            added = write_notes(study, space, facts, records)
            store, known = artifact_store(self.found.folder), attached(study)
            finished = [r for r in records if r.finished and r.answered_from is None]
            for record in finished:
                if record.curve and CURVE not in known.get(record.number, ()):
                    curve = png(partial(trial_curve_figure, record))
                    added += add_artifact(study, store, record.number, CURVE, curve)
            for record in finished:
                if stop is not None and stop.is_set():
                    break
                if CONFUSION not in known.get(record.number, ()) and record.number not in self._asked:
                    for name, content in self._mistakes(ledger, record):
                        added += add_artifact(study, store, record.number, name, content)
        return added

    def _mistakes(self, ledger: Ledger, record: TrialRecord) -> list[tuple[str, bytes]]:
        """Most confused images and confusion matrix of a trial whose weights are kept: (name, PNG)."""
        from searchft.cli.trial_predictions import images_at, images_of_study, val_predictions, weights_of
        from searchft.report.figures import confusion_figure, mistakes_figure, png

        if weights_of(self.found, record) is None:
            return []
        space, facts = ledger.space(), ledger.facts()
        if not self._looked:
            self._images, self._looked = images_of_study(facts, space.data), True
        if self._images is None:
            return []
        self._asked.add(record.number)
        said = val_predictions(self.found, record, facts, space.data, self._images)
        if said is None:
            return []
        classes, worst, found = facts.data.classes, said.worst(12), []
        if worst:
            title = f"surest mistakes of trial {record.number}"
            images = images_at(self._images, "val", worst)
            found.append((MISTAKES, png(partial(mistakes_figure, images, said.captions(worst, classes), title))))
        title = f"trial {record.number}, validation images"
        return [*found, (CONFUSION, png(partial(confusion_figure, said.confusion(len(classes)), classes, title)))]
