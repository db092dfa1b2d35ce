"""`searchft/convnet3`, `convnet5`, `convnet7`: small networks for comparison, without pretrained weights.

A 7×7 convolution of stride 2, one to three pairs of 3×3 convolutions, the mean over the map, a linear layer. As tables of torch.nn
layers they are rebuilt from an exported configuration by torch alone.
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
    norm = ("BatchNorm2d", {"num_features": CHANNELS})
    convolution = {"in_channels": CHANNELS, "out_channels": CHANNELS, "kernel_size": 3, "padding": 1, "bias": False}
    pair: Any = (("Conv2d", convolution), norm, ("ReLU", {}), ("Conv2d", convolution), norm)
    rows: Rows = [("conv1", "Conv2d", stem), ("norm1", *norm)]
    for number in range(1, PAIRS[name] + 1):
        rows.append((f"layer{number}", "Sequential", {}))
        rows += [(f"layer{number}.{i}", kind, arguments) for i, (kind, arguments) in enumerate(pair)]
    rows += [("avgpool", "AdaptiveAvgPool2d", {"output_size": 1}), ("flatten", "Flatten", {})]
    return [*rows, ("fc", "Linear", {"in_features": CHANNELS, "out_features": num_classes})]


def add_rows(model: nn.Module, rows: Rows) -> None:
    """Puts each row's layer at its path, replacing what is there; a parent must exist or stand before its children."""
    for path, kind, arguments in rows:
        model.set_submodule(path, getattr(nn, kind)(**arguments))
