"""Depthwise convolutions on maps smaller than their kernel: while they train, the zeros are put around the images beforehand.

oneDNN has no fast kernel for the gradient of such a convolution's weights; without padding of its own it takes one: forward and
backward of 1,152 channels, 4x4, kernel 5, 64 images in 36 ms instead of 72 (2-core x86-64; tests/benchmarks/small_gains.py).
Values are equal but for rounding, so it counts as numerics. Evaluation runs the network as it is.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pad_first(model: nn.Module) -> None:
    """Lets the depthwise convolutions of `model` whose weights train run so. Parameters stay in place."""
    for module in model.modules():
        if (
            type(module) is nn.Conv2d  # subclasses pad in ways of their own
            and module.groups == module.in_channels > 1
            and module.weight.requires_grad
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
            and any(module.padding)
        ):
            module.forward = functools.partial(_padded, module)  # type: ignore[method-assign]


def _padded(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """Values [B,C,H',W'] of `conv` for images [B,C,H,W]."""
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(conv.kernel_size, conv.dilation, strict=True)]
    smaller = images.shape[-2] < reach[0] or images.shape[-1] < reach[1]
    if not smaller or not torch.is_grad_enabled():
        return nn.Conv2d.forward(conv, images)
    high, wide = int(conv.padding[0]), int(conv.padding[1])
    images = F.pad(images, (wide, wide, high, high))
    return F.conv2d(images, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)
