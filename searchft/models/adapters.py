"""Adapters: small trainable side branches beside a frozen backbone.

`lite_residual` is TinyTL's (Cai, Gan, Zhu and Han 2020, arXiv:2007.11622, section 3.2): a branch beside each inverted-residual block
that sees the block's input at half the resolution and expands nothing. Ours begin as nothing, their last scale at zero.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from searchft.models.backbones import refusal

BLOCKS = ("InvertedResidual", "MBConv")
"""Classes of inverted-residual blocks in torchvision and timm (MobileNetV2 and V3, MNASNet's kin, EfficientNet)."""
BRANCH = "lite_residual"  # name of the branch within its block
GROUPS = 2
KERNEL = 5
NORM_CHANNELS = 8  # channels per group of the branches' group norms, as in the paper


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


def _norm_groups(channels: int) -> int:
    return 1 if channels % NORM_CHANNELS else channels // NORM_CHANNELS


def attach_adapters(model: nn.Module, adapters: str) -> None:
    """Gives every inverted-residual block of `model` its branch, in place, drawn from torch's global generator; `none`: nothing.

    Existing parameters keep their names. Raises InputError where the model has no such block.
    """
    if adapters == "none":
        return
    found = [block for block in model.modules() if type(block).__name__ in BLOCKS]
    if not found:
        rule = f"must be 'none' for a network without inverted-residual blocks ({', '.join(BLOCKS)}, as in MobileNetV2)"
        raise refusal(rule, "recipe.adapters")
    for block in found:
        convolutions = [(name.split("."), part) for name, part in block.named_modules() if isinstance(part, nn.Conv2d)]
        stride = max(part.stride[0] for _, part in convolutions if part.kernel_size != (1, 1))
        # The last convolution that is not part of a squeeze-and-excitation gives the block's output.
        last = [part for path, part in convolutions if not {"se", "fc1", "fc2"} & set(path)][-1]
        block.add_module(BRANCH, LiteResidual(convolutions[0][1].in_channels, last.out_channels, stride))
        kind: Any = type(block)
        block.__class__ = _with_branch(kind)


@functools.cache
def _with_branch(kind: type[nn.Module]) -> type[nn.Module]:
    """The block's class with the branch added to its output; the parameters' names do not change."""

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        out = kind.forward(self, x)
        side: Tensor = getattr(self, BRANCH)(x, out)
        return out + side

    return type(kind.__name__, (kind,), {"forward": forward})
