"""Scoring an exported folder exactly as whoever takes it away will: plain float32, on the CPU, nothing folded or cached.

The batch size is fixed and the last batch is filled up, because float32 values depend on the batch that they are computed
in: with that a picture's logits depend on nothing but the picture. (Threads matter too in the last bit; classes do not.)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from searchft.data.decode import UnreadableImage, decode_image
from searchft.export.crops import chances_of, crop_boxes
from searchft.export.interval import wilson_interval
from searchft.export.load import load_exported, normalise, read_config

SCORE_BATCH = 32
"""Pictures per forward pass when scoring."""


def evaluate_split(folder: Path, images: np.ndarray, labels: np.ndarray, tta: str = "none") -> dict[str, Any]:
    """Scores an exported folder on uint8 images [N, S, S, 3] of its stored size with int64 labels [N] in its class order.

    Returns `accuracy`, `balanced_accuracy` (over the classes that occur), `interval_95` (Wilson's, of the accuracy),
    `confusion` (rows: truth; counts as lists) and `n`. Raises InputError where the folder is no export.
    """
    predicted, _ = predict_images(folder, images, tta)
    return scores(predicted, np.asarray(labels), len(read_config(folder)["classes"]))


def predict_images(folder: Path, images: np.ndarray, tta: str = "none") -> tuple[np.ndarray, np.ndarray]:
    """Classes int64 [N] that an exported folder gives uint8 images [N, S, S, 3] of its stored size, and how sure it is of
    each, float64 [N] in [0, 1]. Raises InputError where the folder is no export."""
    model, config = load_exported(folder)
    if not len(images):
        return np.zeros(0, np.int64), np.zeros(0)
    if tta == "none":
        chances = logits_of(model, images, config["preprocessing"]).softmax(dim=1)
    else:
        chances = chances_of(model, images, config["preprocessing"], tta, SCORE_BATCH)
    sure, predicted = chances.max(dim=1)
    return predicted.numpy(), sure.double().numpy()


def scores(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> dict[str, Any]:
    """As `evaluate_split`, from predicted classes int64 [N]."""
    n = len(labels)
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    counts = confusion.sum(axis=1)
    correct = int(np.trace(confusion))
    seen = counts > 0
    return {
        "accuracy": correct / n if n else float("nan"),
        "balanced_accuracy": float((np.diag(confusion)[seen] / counts[seen]).mean()) if n else float("nan"),
        "interval_95": list(wilson_interval(correct, n)),
        "confusion": confusion.tolist(),
        "n": n,
    }


def logits_of(model: nn.Module, images: np.ndarray, preprocessing: dict[str, Any], batch: int = SCORE_BATCH) -> Tensor:
    """Logits float32 [N, C] of uint8 images [N, S, S, 3], in batches of exactly `batch` (the last one filled up)."""
    parts = []
    with torch.inference_mode():
        for first in range(0, len(images), batch):
            chunk = torch.from_numpy(np.array(images[first : first + batch]))
            count = len(chunk)
            if count < batch:
                chunk = torch.cat([chunk, torch.zeros(batch - count, *chunk.shape[1:], dtype=torch.uint8)])
            parts.append(model(normalise(chunk, preprocessing))[:count].clone())
    return torch.cat(parts)


def predict_files(folder: Path, paths: Sequence[Path], top_k: int = 5, tta: str = "none") -> list[dict[str, Any]]:
    """Classifies picture files one by one, as the snippet does: a list in the order of `paths`.

    Each entry has `image` (the path) and `classes`: the `top_k` best as {"class", "probability"}, best first; or `error`
    where the picture cannot be read. Raises InputError where the folder is no export.
    """
    model, config = load_exported(folder)
    preprocessing, classes = config["preprocessing"], config["classes"]
    crop_boxes(preprocessing, tta)  # refuses before the first picture, not as if that were unreadable
    answers: list[dict[str, Any]] = []
    for path in paths:
        try:
            image = decode_image(
                Path(path), preprocessing["stored_size"], preprocessing["resize"], preprocessing["interpolation"]
            )
        except UnreadableImage as error:
            answers.append({"image": str(path), "error": error.reason})
            continue
        if tta == "none":
            chances = logits_of(model, image[None], preprocessing, batch=1)[0].softmax(dim=0)
        else:
            chances = chances_of(model, image[None], preprocessing, tta, batch=1)[0]
        best = chances.topk(min(top_k, len(classes)))
        ranking = [
            {"class": classes[i], "probability": p} for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        answers.append({"image": str(path), "classes": ranking})
    return answers
