"""From stored pixels to what the network sees: augmentation and normalisation of whole batches, on the device they are on.

Every image has its own random values, all drawn at once from one generator: the same generator state gives the same images,
on any device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from searchft.recipe import Recipe

BILINEAR = F.InterpolationMode.BILINEAR
ASPECT = 4 / 3  # random resized crops have aspect ratios between 3:4 and 4:3 (Szegedy et al. 2014), as torchvision's.


class Preprocess:
    """Centre crop from the stored size, scale to [0, 1], normalise: uint8 [B, S, S, 3] to [B, 3, H, W]."""

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        image_size: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> None:
        """`mean` and `std` per channel in [0, 1]. The arithmetic is float32 whatever `dtype` is: bfloat16 rounds once, at the end."""
        self.image_size = image_size
        self.device = torch.device(device)
        self.dtype = dtype
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.mean = torch.tensor(mean, dtype=torch.float32, device=self.device)
        self.std = torch.tensor(std, dtype=torch.float32, device=self.device)

    def __call__(self, images: Tensor) -> Tensor:
        """Raises ValueError where S is less than `image_size`."""
        planes = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        # Divided by 255 as `ToTensor`, timm and the weights' own transforms do: v2's `ToDtype` multiplies by 1/255.
        values = centre_crop(planes, self.image_size).to(torch.float32).div(255)
        values = values.sub_(self.mean.view(3, 1, 1)).div_(self.std.view(3, 1, 1))
        return values.to(self.dtype).contiguous(memory_format=self.memory_format)


class Augment:
    """The recipe's random augmentations (STEPS): uint8 [B, S, S, 3] to uint8 [B, image_size, image_size, 3]."""

    def __init__(self, recipe: Recipe, image_size: int) -> None:
        self.strengths = [getattr(recipe, field) for field, _, _ in STEPS]
        self.image_size = image_size

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented copies; `images` stays as it is. Takes a fixed number of values per image from `generator`."""
        taken = [count for _, count, _ in STEPS]
        draws = torch.rand(len(images), sum(taken), generator=generator, device=generator.device).to(images.device)
        values = images.permute(0, 3, 1, 2).to(torch.float32).div(255)
        for (_, _, apply), own, strength in zip(STEPS, draws.split(taken, 1), self.strengths, strict=True):
            if strength:
                values = apply(values, own, strength, self.image_size)
        return values.mul(255).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def random_crop(values: Tensor, draws: Tensor, smallest: float, size: int) -> Tensor:
    """A random resized crop from the whole stored square; the centre crop (a copy) where `smallest` is 1."""
    if smallest == 1:
        return centre_crop(values, size).clone()
    boxes = [crop_box(values.shape[-1], smallest, own) for own in draws.tolist()]
    crops = zip(values, boxes, strict=True)
    return torch.stack([F.resized_crop(v, *box, [size, size], BILINEAR, antialias=True) for v, box in crops])


def each(values: Tensor, draws: Tensor, change: Callable[[Tensor, float], Tensor]) -> Tensor:
    """Every image changed by a value of its own in [-1, 1)."""
    signs = (draws[:, 0] * 2 - 1).tolist()
    return torch.stack([change(value, sign) for value, sign in zip(values, signs, strict=True)])


def some(values: Tensor, draws: Tensor, probability: float, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Each image changed with this probability, in place."""
    chosen = draws[:, 0] < probability
    values[chosen] = change(values[chosen])
    return values


def blend(values: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """`factor` parts of values and `1 - factor` of other, kept in [0, 1]: torchvision's colour jitter, one factor an image."""
    return (values * factor + other * (1 - factor)).clamp_(0, 1)


def factors(draws: Tensor, strength: float) -> Tensor:
    """Jitter factors in [max(0, 1 - strength), 1 + strength] from values in [0, 1): [B, 1, 1, 1]."""
    low = max(0.0, 1 - strength)
    return (low + (1 + strength - low) * draws).view(-1, 1, 1, 1)


STEPS: tuple[tuple[str, int, Callable[[Tensor, Tensor, Any, int], Tensor]], ...] = (
    # Rotation (corners black) sees the stored size, where the margin fills most of them.
    ("rotation", 1, lambda v, u, degrees, _: each(v, u, lambda image, sign: F.rotate(image, sign * degrees, BILINEAR))),
    ("crop_scale", 4, random_crop),
    ("horizontal_flip", 1, lambda v, u, p, _: some(v, u, p, F.horizontal_flip)),
    ("brightness", 1, lambda v, u, s, _: blend(v, torch.zeros_like(v), factors(u, s))),
    ("contrast", 1, lambda v, u, s, _: blend(v, F.rgb_to_grayscale(v).mean((1, 2, 3), keepdim=True), factors(u, s))),
    ("saturation", 1, lambda v, u, s, _: blend(v, F.rgb_to_grayscale(v), factors(u, s))),
    ("hue", 1, lambda v, u, s, _: each(v, u, lambda image, sign: F.adjust_hue(image, sign * s))),
    ("grayscale", 1, lambda v, u, p, _: some(v, u, p, lambda images: F.rgb_to_grayscale(images, num_output_channels=3))),
)
"""In the order of execution: the recipe's field with the strength (0: off), how many random values in [0, 1) an image takes, and
what makes planes [B, C, S, S] in [0, 1] of planes, draws [B, n], strength and image size. All are drawn in one call, whatever is
switched on, so that a switch leaves the others' values as they were; a step added later draws in a call of its own, after these."""


def centre_crop(planes: Tensor, size: int) -> Tensor:
    """The middle [B, C, size, size] of [B, C, S, S], placed as torchvision's CenterCrop places it (a view)."""
    height, width = planes.shape[-2:]
    if min(height, width) < size:
        raise ValueError(f"images of {height} × {width} pixels are smaller than image_size {size}")
    top, left = round((height - size) / 2), round((width - size) / 2)
    return planes[..., top : top + size, left : left + size]


def crop_box(side: int, smallest: float, draws: Sequence[float]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop of a square, from four values in [0, 1).

    The area is at least `smallest` of the whole (up to rounding); the aspect ratio is drawn among those that fit.
    """
    share = smallest + (1 - smallest) * draws[0]
    widest = min(math.log(ASPECT), -math.log(share)) if share < 1 else 0.0
    ratio = math.exp((2 * draws[1] - 1) * widest)
    width = min(side, max(1, round(side * math.sqrt(share * ratio))))
    height = min(side, max(1, round(side * math.sqrt(share / ratio))))
    return int(draws[2] * (side - height + 1)), int(draws[3] * (side - width + 1)), height, width
