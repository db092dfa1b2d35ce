"""Scoring an exported folder exactly as its next user will: plain float32, on the CPU, nothing folded or cached.

Batches have a fixed size and the last one is filled up, because float32 values depend on the batch that they are computed in:
with that an image's logits depend on nothing but the image (and, in the last bit, on the number of threads).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from searchft.data.decode import UnreadableImage, decode_image
from searchft.errors import InputError
from searchft.export.interval import wilson_interval
from searchft.export.load import load_exported, read_config

LOOKS = ("none", "five-crop", "ten-crop", "flip")
"""Test-time augmentation: averages the softmax over the centre and the four corners of what `data.store_size` keeps beyond
`data.image_size`, over those and their mirror images, or over the centre and its own."""


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
    sure, predicted = probabilities_of(model, images, config["preprocessing"], tta).max(dim=1)
    return predicted.numpy(), sure.double().numpy()


def predict_files(folder: Path, paths: Sequence[Path], top_k: int = 5, tta: str = "none") -> list[dict[str, Any]]:
    """Classifies image files one by one, as the snippet does: a list in the order of `paths`.

    Each entry has `image` (the path) and `classes`: the `top_k` best as {"class", "probability"}, best first; or `error`
    where the image cannot be read. Raises InputError where the folder is no export.
    """
    model, config = load_exported(folder)
    p, classes = config["preprocessing"], config["classes"]
    crop_boxes(p, tta)  # refuses before the first image, not as if that were unreadable
    answers: list[dict[str, Any]] = []
    for path in paths:
        try:
            image = decode_image(Path(path), p["stored_size"], p["resize"], p["interpolation"])
        except UnreadableImage as error:
            answers.append({"image": str(path), "error": error.reason})
            continue
        best = probabilities_of(model, image[None], p, tta, batch=1)[0].topk(min(top_k, len(classes)))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        answers.append({"image": str(path), "classes": [{"class": classes[i], "probability": value} for value, i in pairs]})
    return answers


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


def crop_boxes(preprocessing: dict[str, Any], tta: str) -> list[tuple[list[int], bool]]:
    """(left, top, right, bottom) within the stored image, and whether mirrored, of every look; the centre first.

    Raises InputError where crops are asked for and no margin is stored.
    """
    centre, size, stored = list(preprocessing["crop"]), preprocessing["image_size"], preprocessing["stored_size"]
    if tta in ("none", "flip"):
        return [(centre, False), (centre, True)][: 1 + (tta == "flip")]
    if tta not in LOOKS:
        raise InputError(f"must be one of {', '.join(LOOKS)} but got {tta!r}", "--tta")
    if stored <= size:
        rule = (
            f"{tta} needs a margin around the {size} pixels that the network sees, but the images are stored at {stored}: "
            "give data.store_size in the space (256 for 224), or take --tta flip"
        )
        raise InputError(rule, "--tta")
    corners = [[x, y, x + size, y + size] for y in (0, stored - size) for x in (0, stored - size)]
    boxes = [(box, False) for box in (centre, *corners)]
    return boxes + [(box, True) for box, _ in boxes] if tta == "ten-crop" else boxes


def normalize(images: Tensor, preprocessing: dict[str, Any], box: Sequence[int] = (), mirrored: bool = False) -> Tensor:
    """uint8 [B, S, S, 3] of the stored size to float32 [B, 3, H, W]: crop (or `box`), /255, mean and deviation, as the snippet."""
    left, top, right, bottom = box or preprocessing["crop"]
    pixels = images[:, top:bottom, left:right].permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor(preprocessing["mean"]).view(3, 1, 1), torch.tensor(preprocessing["std"]).view(3, 1, 1)
    out = (pixels - mean) / std
    return out.flip(3) if mirrored else out


def probabilities_of(
    model: nn.Module, images: np.ndarray, preprocessing: dict[str, Any], tta: str = "none", batch: int = 32
) -> Tensor:
    """Probabilities float32 [N, C] of uint8 images [N, S, S, 3] (N > 0), the mean of the looks' softmax, `batch` at a time."""
    boxes = crop_boxes(preprocessing, tta)
    parts = []
    with torch.inference_mode():
        for first in range(0, len(images), batch):
            chunk = torch.from_numpy(np.array(images[first : first + batch]))
            padded = torch.cat([chunk, torch.zeros(batch - len(chunk), *chunk.shape[1:], dtype=torch.uint8)])
            looks = [model(normalize(padded, preprocessing, *one)).softmax(dim=1) for one in boxes]
            parts.append(torch.stack(looks).mean(dim=0)[: len(chunk)])
    return torch.cat(parts)
