"""Everything that is known of a study, put together for the report and the dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchft.cli.studies import FoundStudy, say_if_read_only
from searchft.errors import SearchftError

if TYPE_CHECKING:
    from searchft.recipe import SpaceFacts
    from searchft.report.content import Change, ReportInput
    from searchft.search.records import TrialRecord


def gather(found: FoundStudy) -> ReportInput:
    """Reads the study, and asks the networks whose weights are kept about the validation images.

    Needs the study's images for that; where they are gone, the report goes without mistakes and comparisons.
    """
    import datetime

    from searchft.cli import trial_predictions
    from searchft.export.interval import wilson_interval
    from searchft.report.content import ReportInput
    from searchft.search.records import best

    with found.open() as ledger:
        say_if_read_only(ledger)
        space, facts, records = ledger.space(), ledger.facts(), ledger.records()
        tests, masked, environment = ledger.load_test_scores(), ledger.url, ledger.environment()
    first = best(records)
    compared = {r.number: r for r in records if r.name and r.state == "complete" and r.answered_from is None}
    compared |= {first.number: first} if first is not None else {}
    images = trial_predictions.images_of_study(facts, space.data) if compared else None
    predictions = {}
    for record in compared.values():
        said = {
            "test": trial_predictions.load_predictions(found, record, "test", images),
            "val": trial_predictions.val_predictions(found, record, facts, space.data, images),
        }
        predictions[record.number] = {split: p for split, p in said.items() if p is not None}
    return ReportInput(
        space=space,
        facts=facts,
        records=records,
        storage=masked,
        environment=environment,
        tests=tests,
        predictions={number: said for number, said in predictions.items() if said},
        images=None if images is None else lambda split, positions: trial_predictions.images_at(images, split, positions),
        changes=_changes(found, first, facts) if first is not None else (),
        interval=wilson_interval,
        when=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )


def _changes(found: FoundStudy, record: TrialRecord, facts: SpaceFacts) -> list[Change]:
    """How far the trial's trained backbone parameters moved; empty where weights are gone. The new head had no values before."""
    from safetensors.torch import load_file

    from searchft.cli.trial_predictions import weights_of
    from searchft.export.compare import compare_parameters
    from searchft.models import build_model
    from searchft.recipe import open_parameters
    from searchft.report.content import Change

    weights = weights_of(found, record)
    try:
        backbone = facts.backbones[record.recipe.architecture()]
        trained = open_parameters(record.recipe, backbone).parameters
        if weights is None or not trained:
            return []
        after = load_file(weights)
        before = build_model(record.recipe, backbone, len(facts.data.classes), head_seed=record.recipe.seed).state_dict()
    except (SearchftError, OSError, KeyError):  # the pretrained weights are not here any more
        return []
    rows = compare_parameters({name: before[name] for name in trained if name in before}, after).rows
    return [Change(f"{row.layer}.{row.kind}".removeprefix("."), row.relative_change, row.size) for row in rows]
