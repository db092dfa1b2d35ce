"""Test-time augmentation: several looks at one picture, their softmax averaged.

Crops are taken from the stored margin: what `data.store_size` keeps beyond `data.image_size`. `five-crop` is the centre
and the four corners, `ten-crop` those and their mirror images, `flip` the centre and its mirror image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from searchft.errors import InputError, Problem
from searchft.export.load import normalise

WAYS = ("none", "five-crop", "ten-crop", "flip")


def crop_boxes(preprocessing: dict[str, Any], way: str) -> list[tuple[list[int], bool]]:
    """(left, top, right, bottom) within the stored picture, and whether mirrored, of every look; the centre first.

    Raises InputError where crops are asked for and no margin is stored.
    """
    centre, size, stored = list(preprocessing["crop"]), preprocessing["image_size"], preprocessing["stored_size"]
    if way == "none":
        return [(centre, False)]
    if way == "flip":
        return [(centre, False), (centre, True)]
    if way not in WAYS:
        raise InputError(f"must be one of {', '.join(WAYS)} but got {way!r}", "--tta")
    if stored <= size:
        rule = (
            f"{way} needs a margin around the {size} pixels that the network sees, but the pictures are stored at {stored}: "
            "give data.store_size in the space (256 for 224), or take --tta flip"
        )
        raise InputError(Problem("--tta", "", rule))
    far = stored - size
    corners = [[x, y, x + size, y + size] for y in (0, far) for x in (0, far)]
    boxes = [(box, False) for box in (centre, *corners)]
    return boxes + [(box, True) for box, _ in boxes] if way == "ten-crop" else boxes


def look(images: Tensor, preprocessing: dict[str, Any], box: list[int], mirrored: bool) -> Tensor:
    """One look at uint8 images [B, S, S, 3] of the stored size: float32 [B, 3, H, W], ready for the network."""
    out = normalise(images, {**preprocessing, "crop": box})
    return out.flip(3) if mirrored else out


def chances_of(model: nn.Module, images: np.ndarray, preprocessing: dict[str, Any], way: str, batch: int) -> Tensor:
    """Probabilities float32 [N, C], the mean of the looks' softmax, in batches of exactly `batch` (the last one filled up)."""
    import torch

    boxes = crop_boxes(preprocessing, way)
    parts = []
    with torch.inference_mode():
        for first in range(0, len(images), batch):
            chunk = torch.from_numpy(np.array(images[first : first + batch]))
            count = len(chunk)
            if count < batch:
                chunk = torch.cat([chunk, torch.zeros(batch - count, *chunk.shape[1:], dtype=torch.uint8)])
            looks = [model(look(chunk, preprocessing, box, mirrored)).softmax(dim=1) for box, mirrored in boxes]
            parts.append(torch.stack(looks).mean(dim=0)[:count].clone())
    return torch.cat(parts)
