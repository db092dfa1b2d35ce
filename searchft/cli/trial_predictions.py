"""What a trial's network said of every image of a split: kept in the trial's folder, beside the weights that it was made with.

Computed once per trial and split by the exported network in plain float32. The test split is opened by `export` alone; here
its answers are only read back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from searchft.cli.studies import FoundStudy
from searchft.errors import SearchftError
from searchft.files import BEST_WEIGHTS, cache_folder, read_json, sha256_of, write_json

if TYPE_CHECKING:
    from searchft.data import Images
    from searchft.recipe import DataSettings, SpaceFacts
    from searchft.report.predictions import Predictions
    from searchft.search.records import TrialRecord


def weights_of(found: FoundStudy, record: TrialRecord) -> Path | None:
    """The trial's best weights, if they are kept."""
    path = found.trial_folder(record.number) / BEST_WEIGHTS
    return path if path.is_file() else None


def predict_split(folder: Path, images: Images, split: str) -> Predictions | None:
    """What the exported network in `folder` says of a split; None where the split is empty."""
    from searchft.export.score import predict_images
    from searchft.report.predictions import Predictions

    part = images.split(split)
    if not len(part.labels):
        return None
    guess, sure = predict_images(folder, part.images)
    return Predictions(split, part.labels, guess, sure, tuple(part.names))


def save_predictions(found: FoundStudy, record: TrialRecord, said: Predictions) -> None:
    """Keeps predictions beside the trial's weights."""
    weights = weights_of(found, record)
    if weights is not None:
        write_json(_file(found, record, said.split), {"key": record.key, "made": sha256_of(weights), **said.to_json()})


def load_predictions(found: FoundStudy, record: TrialRecord, split: str, images: Images | None) -> Predictions | None:
    """Predictions that are kept and belong to the trial's weights and these images; None where there are none."""
    from searchft.report.predictions import Predictions

    weights = weights_of(found, record)
    try:
        stored = read_json(_file(found, record, split))
        if stored["key"] != record.key or (weights is not None and stored["made"] != sha256_of(weights)):
            return None
        said = Predictions.from_json(stored)
    except (OSError, SearchftError, KeyError, TypeError, ValueError):
        return None
    return said if images is None or said.names == tuple(images.split(split).names) else None


def val_predictions(
    found: FoundStudy, record: TrialRecord, facts: SpaceFacts, settings: DataSettings, images: Images | None
) -> Predictions | None:
    """What the trial's network says of the validation images, computed where it is not known; None without weights or images."""
    known = load_predictions(found, record, "val", images)
    weights = weights_of(found, record)
    if known is not None or weights is None or images is None:
        return known
    from searchft.export.checkpoint import export_trial

    with tempfile.TemporaryDirectory(prefix="searchft-") as folder:
        export_trial(record.recipe, facts, settings, weights, Path(folder), {})
        said = predict_split(Path(folder), images, "val")
    if said is not None:
        save_predictions(found, record, said)
    return said


def images_at(images: Images, split: str, positions: Sequence[int]) -> list:
    """uint8 [S, S, 3] images of a split."""
    import numpy as np

    return [np.array(images.split(split).images[i]) for i in positions]


def images_of_study(facts: SpaceFacts, settings: DataSettings) -> Images | None:
    """The study's decoded images, or None where they are not (or no longer) those that it was made with."""
    from searchft.data import open_images

    try:
        images = open_images(settings, cache_folder())
    except SearchftError:
        return None
    return images if images.facts.fingerprint == facts.data.fingerprint else None


def _file(found: FoundStudy, record: TrialRecord, split: str) -> Path:
    return found.trial_folder(record.number) / f"predictions-{split}.json"
