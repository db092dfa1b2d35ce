"""Depthwise convolutions on maps smaller than their kernel: their zeros put around the images beforehand, while they train.

oneDNN has no fast kernel for the gradient of a depthwise convolution's weights where the map is smaller than the kernel (5x5 on 4x4,
3x3 on 2x2, as late MobileNet and EfficientNet stages have on small images). With the same zeros around the map and no padding of its
own it takes a fast one. Forward and backward, batch 64: 36 ms instead of 72 (1,152 channels, 4x4, kernel 5), 1.4 instead of 27
(960 channels, 2x2, kernel 3): tests/benchmarks/small_gains.py, shortest of 7, 2-core x86-64 with AVX2, torch 2.14.1.
The values are those of the convolution but for rounding,
so it counts as numerics: chosen by measurement under `precision: auto`, recorded, part of the keys.

Only where gradients are computed: evaluation, and with it every accuracy, runs the network as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pad_first(model: nn.Module, on: bool = True) -> None:
    """Lets the trained depthwise convolutions of `model` run so, or (`on=False`) as they are. Their parameters stay in place."""
    for conv in _candidates(model):
        if on:
            conv.forward = functools.partial(_padded, conv)  # type: ignore[method-assign]
        else:
            conv.__dict__.pop("forward", None)


def meets_small_maps(model: nn.Module, run: Callable[[], object]) -> bool:
    """Whether any of them meets a map smaller than its kernel in `run`, which calls the model (or parts of it)."""
    met: list[nn.Module] = []

    def look(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(conv, nn.Conv2d) and _smaller(conv, inputs[0]):
            met.append(conv)

    handles = [conv.register_forward_pre_hook(look) for conv in _candidates(model)]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return bool(met)


def _candidates(model: nn.Module) -> list[nn.Conv2d]:
    """Depthwise convolutions whose weights train and that pad with zeros by fixed amounts. Subclasses have ways of their own."""
    return [
        module
        for module in model.modules()
        if type(module) is nn.Conv2d
        and module.groups == module.in_channels > 1
        and module.weight.requires_grad
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and any(module.padding)
    ]


def _smaller(conv: nn.Conv2d, images: Tensor) -> bool:
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(conv.kernel_size, conv.dilation, strict=True)]
    return images.shape[-2] < reach[0] or images.shape[-1] < reach[1]


def _padded(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """Values [B,C,H',W'] of `conv` for images [B,C,H,W]."""
    if not torch.is_grad_enabled() or not _smaller(conv, images):
        return nn.Conv2d.forward(conv, images)
    high, wide = int(conv.padding[0]), int(conv.padding[1])
    images = F.pad(images, (wide, wide, high, high))
    return F.conv2d(images, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)
