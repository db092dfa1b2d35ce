"""Everything that is known of a study, put together for the report and the dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from searchft.cli.studies import FoundStudy, say_if_read_only

if TYPE_CHECKING:
    from searchft.report.content import ReportInput
    from searchft.report.drift import Drift
    from searchft.search.records import TrialRecord


def gather(found: FoundStudy) -> ReportInput:
    """Reads the study, and asks the networks whose weights are kept about the validation pictures.

    Needs the study's pictures for that; where they are gone, the report goes without mistakes and comparisons.
    """
    import datetime

    from searchft.cli.beside_ledger import test_scores
    from searchft.cli.beside_trial import images_of_study, known_predictions, photos_of, val_predictions
    from searchft.export.interval import wilson_interval
    from searchft.report.content import ReportInput
    from searchft.search.records import best

    with found.open() as ledger:
        say_if_read_only(ledger)
        space, facts, records = ledger.space(), ledger.facts(), ledger.records()
        tests, masked, environment = test_scores(ledger), ledger.url, ledger.environment()
    first = best(records)
    compared = [r for r in records if r.name and r.state == "complete" and r.answered_from is None]
    compared += [first] if first is not None else []
    images = images_of_study(facts, space.data) if compared else None
    predictions = {}
    for record in {r.number: r for r in compared}.values():
        said = {"test": known_predictions(found, record, "test", images)}
        said["val"] = (
            val_predictions(found, record, facts, space.data, images)
            if images is not None
            else known_predictions(found, record, "val", None)
        )
        predictions[record.number] = {split: p for split, p in said.items() if p is not None}
    return ReportInput(
        space=space,
        facts=facts,
        records=records,
        storage=masked,
        environment=environment,
        tests=tests,
        predictions={number: said for number, said in predictions.items() if said},
        photos=None if images is None else lambda split, positions: photos_of(images, split, positions),
        layers=_layers(found, first, facts) if first is not None else (),
        interval=wilson_interval,
        when=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )


def _layers(found: FoundStudy, first: TrialRecord, facts: object) -> Sequence[Drift]:
    from searchft.cli.beside_trial import weights_of
    from searchft.errors import SearchftError
    from searchft.recipe import SpaceFacts
    from searchft.report.drift import drift

    assert isinstance(facts, SpaceFacts)
    delta = weights_of(found, first)
    if delta is None:
        return ()
    try:
        return drift(first.recipe, facts, delta)
    except (SearchftError, OSError, KeyError):  # the pretrained weights are not here any more
        return ()
