"""What the command line keeps in a trial's folder beside its weights: what its network said of every picture.

Computed once per trial and split, by the exported network in plain float32, and read back by report and dashboard. The
file names the weights it was made with, so that a trial that went on is asked again. The test split is asked by `export`
alone; here it is only read back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from searchft.cli.studies import FoundStudy
from searchft.errors import SearchftError
from searchft.files import BEST_WEIGHTS

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
    """What the exported network in `folder` says of a split; None where there are no such pictures."""
    from searchft.export.score import predict_images
    from searchft.report.predictions import Predictions

    part = images.split(split)
    if not len(part.labels):
        return None
    guess, sure = predict_images(folder, part.images)
    return Predictions(split, part.labels, guess, sure, tuple(part.names))


def save_predictions(found: FoundStudy, record: TrialRecord, said: Predictions) -> None:
    """Keeps predictions beside the trial's weights."""
    from searchft.files import write_json

    weights = weights_of(found, record)
    if weights is not None:
        write_json(_file(found, record, said.split), {"key": record.key, "made": _made(weights), **said.to_json()})


def known_predictions(found: FoundStudy, record: TrialRecord, split: str, images: Images | None) -> Predictions | None:
    """Predictions that are kept and belong to the trial's weights and these pictures; None where there are none."""
    from searchft.files import read_json
    from searchft.report.predictions import Predictions

    weights = weights_of(found, record)
    try:
        stored = read_json(_file(found, record, split))
        if stored["key"] != record.key or (weights is not None and stored["made"] != _made(weights)):
            return None
        said = Predictions.from_json(stored)
    except (OSError, SearchftError, KeyError, TypeError, ValueError):
        return None
    if images is not None and said.names != tuple(images.split(split).names):
        return None
    return said


def val_predictions(
    found: FoundStudy, record: TrialRecord, facts: SpaceFacts, settings: DataSettings, images: Images
) -> Predictions | None:
    """What the trial's network says of the validation pictures, computed where it is not known; None without weights."""
    known = known_predictions(found, record, "val", images)
    delta = weights_of(found, record)
    if known is not None or delta is None:
        return known
    from searchft.export.checkpoint import export_trial

    with tempfile.TemporaryDirectory(prefix="searchft-") as folder:
        export_trial(record.recipe, facts, settings, delta, Path(folder), {})
        said = predict_split(Path(folder), images, "val")
    if said is not None:
        save_predictions(found, record, said)
    return said


def photos_of(images: Images, split: str, positions: Sequence[int]) -> list:
    """uint8 [S, S, 3] pictures of a split."""
    import numpy as np

    return [np.array(images.split(split).images[i]) for i in positions]


def images_of_study(facts: SpaceFacts, settings: DataSettings) -> Images | None:
    """The study's decoded pictures, or None where they are not (or no longer) those that it was made with."""
    from searchft.data import open_images
    from searchft.files import cache_folder

    try:
        images = open_images(settings, cache_folder())
    except SearchftError:
        return None
    return images if images.facts.fingerprint == facts.data.fingerprint else None


def _file(found: FoundStudy, record: TrialRecord, split: str) -> Path:
    return found.trial_folder(record.number) / f"predictions-{split}.json"


def _made(weights: Path) -> str:
    from searchft.files import sha256_of

    return sha256_of(weights)
