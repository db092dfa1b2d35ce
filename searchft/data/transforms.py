"""From stored pixels to what the network sees: augmentation and normalisation of whole batches, on the device they are on.

Both take uint8 batches [B, S, S, 3] as they lie in the store. `Augment` gives uint8 [B, H, H, 3] back, so that what
follows does not care whether it ran. Every image has its own random values, all drawn at once from one generator: the
same generator state gives the same pictures, on any device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from searchft.recipe import Recipe
from searchft.uncompiled import torchvision

F = torchvision.transforms.v2.functional

ASPECT = 4 / 3
"""Random resized crops have aspect ratios between 3:4 and 4:3 (Szegedy et al. 2014), as torchvision's."""

_ROTATION, _CROP, _FLIP, _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _GRAYSCALE, _DRAWS = 0, 1, 5, 6, 7, 8, 9, 10, 11
"""Which of an image's random values decides what (the crop takes four), and how many there are. All are drawn, whatever is
switched on: one augmentation more leaves the others' values as they were."""


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
        """`mean` and `std` per channel in [0, 1]; the result has `dtype` and lies on `device`.

        The arithmetic is float32 whatever `dtype` is, so that bfloat16 rounds once, at the end. It divides by 255 as
        `ToTensor`, timm and the weights' own transforms do (v2's `ToDtype` multiplies by 1/255, which differs by 4e-7).
        """
        self.image_size = image_size
        self.device = torch.device(device)
        self.dtype = dtype
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.mean = torch.tensor(mean, dtype=torch.float32, device=self.device)
        self.std = torch.tensor(std, dtype=torch.float32, device=self.device)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised images. `images` is uint8 [B, S, S, 3] with S of at least image_size."""
        planes = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        values = centre_crop(planes, self.image_size).to(torch.float32).div(255)
        values = values.sub_(self.mean.view(3, 1, 1)).div_(self.std.view(3, 1, 1))
        return values.to(self.dtype).contiguous(memory_format=self.memory_format)


class Augment:
    """The recipe's random augmentations: uint8 [B, S, S, 3] to uint8 [B, image_size, image_size, 3].

    In this order: rotation (corners black, on the stored size, where the margin fills most of them), random resized crop
    from the whole stored square (or centre crop), horizontal flip, brightness, contrast, saturation, hue, grayscale.
    Between the steps values are float32, rounded to uint8 at the end.
    """

    def __init__(self, recipe: Recipe, image_size: int) -> None:
        self.recipe = recipe
        self.image_size = image_size

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented copies; `images` stays as it is. Takes a fixed number of values per image from `generator`."""
        recipe = self.recipe
        count = len(images)
        draws = torch.rand(count, _DRAWS, generator=generator, device=generator.device)
        signs = (draws * 2 - 1).tolist()
        here = draws.to(images.device)
        values = images.permute(0, 3, 1, 2).to(torch.float32).div(255)

        if recipe.rotation:
            values = torch.stack(
                [F.rotate(v, signs[i][_ROTATION] * recipe.rotation, F.InterpolationMode.BILINEAR) for i, v in enumerate(values)]
            )
        if recipe.crop_scale < 1:
            values = torch.stack([self._crop(v, draws[i, _CROP : _CROP + 4].tolist()) for i, v in enumerate(values)])
        else:
            values = centre_crop(values, self.image_size).clone()
        if recipe.horizontal_flip:
            chosen = here[:, _FLIP] < recipe.horizontal_flip
            values[chosen] = F.horizontal_flip(values[chosen])

        if recipe.brightness:
            values = blend(values, torch.zeros_like(values), factors(here[:, _BRIGHTNESS], recipe.brightness))
        if recipe.contrast:
            mean = F.rgb_to_grayscale(values).mean((1, 2, 3), keepdim=True)
            values = blend(values, mean, factors(here[:, _CONTRAST], recipe.contrast))
        if recipe.saturation:
            values = blend(values, F.rgb_to_grayscale(values), factors(here[:, _SATURATION], recipe.saturation))
        if recipe.hue:
            values = torch.stack([F.adjust_hue(v, signs[i][_HUE] * recipe.hue) for i, v in enumerate(values)])
        if recipe.grayscale:
            chosen = here[:, _GRAYSCALE] < recipe.grayscale
            values[chosen] = F.rgb_to_grayscale(values[chosen], num_output_channels=3)
        return values.mul(255).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _crop(self, image: Tensor, draws: list[float]) -> Tensor:
        side = image.shape[-1]
        top, left, height, width = crop_box(side, self.recipe.crop_scale, draws)
        size = [self.image_size, self.image_size]
        return F.resized_crop(image, top, left, height, width, size, F.InterpolationMode.BILINEAR, antialias=True)


def centre_crop(planes: Tensor, size: int) -> Tensor:
    """The middle [B, C, size, size] of [B, C, S, S], placed as torchvision's CenterCrop places it (a view)."""
    height, width = planes.shape[-2:]
    if min(height, width) < size:
        raise ValueError(f"images of {height} × {width} pixels are smaller than image_size {size}")
    top, left = round((height - size) / 2), round((width - size) / 2)
    return planes[..., top : top + size, left : left + size]


def crop_box(side: int, smallest: float, draws: Sequence[float]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random crop of a square, from four values in [0, 1).

    The area is at least `smallest` of the whole (up to rounding). The aspect ratio is drawn among those that fit, so
    nothing has to be drawn again.
    """
    share = smallest + (1 - smallest) * draws[0]
    widest = min(math.log(ASPECT), -math.log(share)) if share < 1 else 0.0
    ratio = math.exp((2 * draws[1] - 1) * widest)
    width = min(side, max(1, round(side * math.sqrt(share * ratio))))
    height = min(side, max(1, round(side * math.sqrt(share / ratio))))
    return int(draws[2] * (side - height + 1)), int(draws[3] * (side - width + 1)), height, width


def factors(draws: Tensor, strength: float) -> Tensor:
    """Jitter factors in [max(0, 1 - strength), 1 + strength] from values in [0, 1): [B, 1, 1, 1]."""
    low = max(0.0, 1 - strength)
    return (low + (1 + strength - low) * draws).view(-1, 1, 1, 1)


def blend(values: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """`factor` parts of values and `1 - factor` of other, kept in [0, 1]: torchvision's colour jitter, one factor an image."""
    return (values * factor + other * (1 - factor)).clamp_(0, 1)
