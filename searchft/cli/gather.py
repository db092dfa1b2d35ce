"""What is known of a study beside its record, for the report and the dashboard: what its networks predict, how far they moved.

Predictions are made once per trial and split, by the exported network in plain float32, and kept in the trial's folder with
the hash of its weights. The test split is opened by `export` alone; here its predictions are only read back.
"""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path

from safetensors.torch import load_file

from searchft.cli.output import say
from searchft.cli.studies import FoundStudy, say_if_read_only
from searchft.data import Images, open_images
from searchft.errors import SearchftError
from searchft.export.checkpoint import export_trial
from searchft.export.compare import compare_parameters
from searchft.export.interval import wilson_interval
from searchft.export.score import predict_images
from searchft.files import BEST_WEIGHTS, cache_folder, read_json, sha256_of, write_json
from searchft.models import build_model
from searchft.recipe import DataSettings, SpaceFacts, open_parameters
from searchft.report.content import Change, ReportInput
from searchft.report.predictions import Predictions
from searchft.search.records import TrialRecord, ranked


def gather(found: FoundStudy) -> ReportInput:
    """Reads the study, and lets the best trial and the enqueued rows whose weights are kept predict the validation images.

    Where the study's images are gone, the report goes without mistakes and comparisons.
    """
    with found.open() as ledger:
        say_if_read_only(ledger)
        space, facts, records = ledger.space(), ledger.facts(), ledger.records()
        tests, masked, environment = ledger.load_test_scores(), ledger.url, ledger.environment()
    complete = ranked(records)
    images = images_of_study(facts, space.data) if complete else None
    predictions = {}
    for record in [*complete[:1], *(record for record in complete[1:] if record.name)]:
        test = load_predictions(found, record, "test", images)
        val = val_predictions(found, record, facts, space.data, images)
        predictions[record.number] = {p.split: p for p in (test, val) if p is not None}
    return ReportInput(
        space=space,
        facts=facts,
        records=records,
        storage=masked,
        environment=environment,
        tests=tests,
        predictions={number: known for number, known in predictions.items() if known},
        images={name: split.images for name, split in images.splits.items()} if images else {},
        changes=_changes(found, complete[0], facts) if complete else (),
        interval=wilson_interval,
        when=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )


def images_of_study(facts: SpaceFacts, settings: DataSettings) -> Images | None:
    """The study's decoded images, or None where they are not (or no longer) those that it was made with."""
    try:
        images = open_images(settings, cache_folder())
    except SearchftError:
        return None
    return images if images.facts.fingerprint == facts.data.fingerprint else None


def weights_of(found: FoundStudy, record: TrialRecord) -> Path | None:
    """The trial's best weights, if they are kept."""
    path = found.trial_folder(record.number) / BEST_WEIGHTS
    return path if path.is_file() else None


def predict_split(found: FoundStudy, record: TrialRecord, folder: Path, images: Images, split: str) -> Predictions | None:
    """What the trial's exported network in `folder` predicts of a split, kept beside its weights; None: the split is empty."""
    part = images.split(split)
    if not len(part.labels):
        return None
    guess, sure = predict_images(folder, part.images)
    predictions = Predictions(split, part.labels, guess, sure, tuple(part.names))
    if weights := weights_of(found, record):
        kept = {"key": record.key, "made": sha256_of(weights), **predictions.to_json()}
        write_json(_file(found, record, split), kept)
    return predictions


def load_predictions(found: FoundStudy, record: TrialRecord, split: str, images: Images | None) -> Predictions | None:
    """Predictions that are kept and belong to the trial's weights and these images; None where there are none."""
    weights = weights_of(found, record)
    try:
        stored = read_json(_file(found, record, split))
        if stored["key"] != record.key or (weights is not None and stored["made"] != sha256_of(weights)):
            return None
        predictions = Predictions.from_json(stored)
    except (OSError, SearchftError, KeyError, TypeError, ValueError):
        return None
    return predictions if images is None or predictions.names == tuple(images.split(split).names) else None


def val_predictions(
    found: FoundStudy, record: TrialRecord, facts: SpaceFacts, settings: DataSettings, images: Images | None
) -> Predictions | None:
    """The trial's predictions of the validation images, made where they are not kept; None without images or usable weights."""
    known, weights = load_predictions(found, record, "val", images), weights_of(found, record)
    if known is not None or weights is None or images is None:
        return known
    try:
        with tempfile.TemporaryDirectory(prefix="searchft-") as folder:
            export_trial(record.recipe, facts, settings, weights, Path(folder), {})
            return predict_split(found, record, Path(folder), images, "val")
    except (SearchftError, OSError) as error:
        say(f"note: trial {record.number} is left out where its weights are needed: {error}")
        return None


def _file(found: FoundStudy, record: TrialRecord, split: str) -> Path:
    return found.trial_folder(record.number) / f"predictions-{split}.json"


def _changes(found: FoundStudy, record: TrialRecord, facts: SpaceFacts) -> list[Change]:
    """How far the trial's trained backbone parameters moved; empty where weights are gone. The new head had no values before."""
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
