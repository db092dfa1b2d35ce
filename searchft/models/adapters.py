"""Adapters: small trainable side branches beside a frozen backbone.

`lite_residual` is TinyTL's (Cai, Gan, Zhu and Han 2020, arXiv:2007.11622, section 3.2): a branch beside each inverted-residual
block that sees the block's input at half the resolution and expands nothing, so that backward keeps little. Weights of the backbone
stay frozen while biases and branches train (`strategy: tinytl`). The paper pretrains the branches on ImageNet; ours begin as nothing,
their last scale at zero. Norms are group norms of 8 channels, as in the paper.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from searchft.errors import InputError, Problem

BLOCKS = ("InvertedResidual", "MBConv")
"""Classes of inverted-residual blocks in torchvision and timm (MobileNetV2 and V3, MNASNet's kin, EfficientNet)."""
BRANCH = "lite_residual"
"""Name of the branch within its block."""
GROUPS = 2
KERNEL = 5
NORM_CHANNELS = 8
"""Channels per group of the branches' group norms."""


class LiteResidual(nn.Module):
    """The branch: maps [N, C, H, W] to [N, C', H', W'], the size of the block's output."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        groups = GROUPS if inputs % GROUPS == 0 else 1
        self.pool = nn.AvgPool2d(2, ceil_mode=True)
        self.conv = nn.Conv2d(inputs, inputs, KERNEL, stride, KERNEL // 2, groups=groups, bias=False)
        self.norm = nn.GroupNorm(_norm_groups(inputs), inputs)
        self.act = nn.ReLU6()
        self.project = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.last_norm = nn.GroupNorm(_norm_groups(outputs), outputs)
        nn.init.zeros_(self.last_norm.weight)

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        side = self.act(self.norm(self.conv(self.pool(x))))
        side = self.last_norm(self.project(side))
        return F.interpolate(side, size=out.shape[-2:], mode="bilinear", align_corners=False)


def check_adapters(adapters: str) -> None:
    """Raises InputError unless `adapters` is a kind we know."""
    if adapters not in ("none", "lite_residual"):
        raise InputError(Problem("", "recipe.adapters", f"must be 'none' or 'lite_residual' but got {adapters!r}"))


def attach_adapters(model: nn.Module, adapters: str) -> tuple[str, ...]:
    """Gives every inverted-residual block of `model` its branch, in place; returns the branches' names.

    Names of existing parameters stay. Initial values are drawn from torch's global generator. Raises InputError where the
    model has no such block.
    """
    check_adapters(adapters)
    if adapters == "none":
        return ()
    found = [(name, block) for name, block in model.named_modules() if type(block).__name__ in BLOCKS]
    if not found:
        rule = f"must be 'none' for a network without inverted-residual blocks ({', '.join(BLOCKS)}, as in MobileNetV2)"
        raise InputError(Problem("", "recipe.adapters", rule))
    for _, block in found:
        convolutions = [part for part in block.modules() if isinstance(part, nn.Conv2d) and part.kernel_size != (1, 1)]
        stride = max(part.stride[0] for part in convolutions)
        inputs = next(part for part in block.modules() if isinstance(part, nn.Conv2d)).in_channels
        block.add_module(BRANCH, LiteResidual(inputs, _outputs(block), stride))
        kind: Any = type(block)
        block.__class__ = _with_branch(kind)
    return tuple(f"{name}.{BRANCH}" for name, _ in found)


@functools.cache
def _with_branch(kind: type[nn.Module]) -> type[nn.Module]:
    """The block's class with the branch added to its output; the parameters' names do not change."""

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        out = kind.forward(self, x)
        side: Tensor = getattr(self, BRANCH)(x, out)
        return out + side

    return type(kind.__name__, (kind,), {"forward": forward})


def _outputs(block: nn.Module) -> int:
    """Channels that a block gives: its last convolution's that is not part of a squeeze-and-excitation."""
    last = 0
    for name, part in block.named_modules():
        if isinstance(part, nn.Conv2d) and not any(piece in ("se", "fc1", "fc2") for piece in name.split(".")):
            last = part.out_channels
    return last


def _norm_groups(channels: int) -> int:
    return 1 if channels % NORM_CHANNELS else channels // NORM_CHANNELS
