"""`searchft/convnet3`, `convnet5`, `convnet7`: small networks for comparison, written down as data.

A 7×7 convolution of stride 2, one to three pairs of 3×3 convolutions, the mean over the map, a linear layer; no pretrained weights.
As tables of torch.nn layers they are rebuilt from an exported configuration by torch alone.
"""

from __future__ import annotations

from typing import Any

from torch import nn

Rows = list[tuple[str, str, dict[str, Any]]]
"""(dotted path, class of torch.nn, arguments), parents before children."""

CHANNELS = 64
PAIRS = {"convnet3": 1, "convnet5": 2, "convnet7": 3}
"""Name to pairs of 3×3 convolutions; the number in the name counts all convolutions."""


def convnet_rows(name: str, num_classes: int) -> Rows:
    """The layers of a network of this family. Raises KeyError for another name."""
    stem = {"in_channels": 3, "out_channels": CHANNELS, "kernel_size": 7, "stride": 2, "padding": 3, "bias": False}
    rows: Rows = [("conv1", "Conv2d", stem), ("norm1", "BatchNorm2d", {"num_features": CHANNELS})]
    convolution = {"in_channels": CHANNELS, "out_channels": CHANNELS, "kernel_size": 3, "padding": 1, "bias": False}
    for pair in range(1, PAIRS[name] + 1):
        rows += [
            (f"layer{pair}", "Sequential", {}),
            (f"layer{pair}.0", "Conv2d", convolution),
            (f"layer{pair}.1", "BatchNorm2d", {"num_features": CHANNELS}),
            (f"layer{pair}.2", "ReLU", {}),
            (f"layer{pair}.3", "Conv2d", convolution),
            (f"layer{pair}.4", "BatchNorm2d", {"num_features": CHANNELS}),
        ]
    return [
        *rows,
        ("avgpool", "AdaptiveAvgPool2d", {"output_size": 1}),
        ("flatten", "Flatten", {}),
        ("fc", "Linear", {"in_features": CHANNELS, "out_features": num_classes}),
    ]


def add_rows(model: nn.Module, rows: Rows) -> None:
    """Puts each row's layer at its path, replacing what is there; a parent must exist or stand before its children."""
    for path, kind, arguments in rows:
        model.set_submodule(path, getattr(nn, kind)(**arguments))


def build_convnet(name: str, num_classes: int) -> nn.Module:
    """The network with torch's default initial values: images [N, 3, H, W] to logits [N, num_classes]."""
    model = nn.Sequential()
    add_rows(model, convnet_rows(name, num_classes))
    return model
