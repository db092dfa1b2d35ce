"""What torchvision's families (and ours, `searchft/convnet…`) are built of: one visible row each.

torchvision has no notion of stages, and its `children()` mislead: one child holds all of VGG's features, another is ResNet's lone
`bn1`. timm describes itself (`group_matcher`) and needs no table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Children:
    """Every child of `container` that has parameters is a stage of its own; `pools`: cut behind each MaxPool2d instead."""

    container: str
    pools: bool = False


Part = tuple[str, ...] | Children  # modules that make one stage, or a container of stages


@dataclass(frozen=True)
class Family:
    """One torchvision family."""

    name: str
    pattern: str  # regular expression that the whole model name matches
    parts: tuple[Part, ...]  # stages in order of execution, stem first
    head: str  # the final layer that turns features into class scores
    last_norm: tuple[str, ...] = ()  # norms between the last stage and the head: they belong to the last stage
    hidden: str = ""  # a block in front of the head with layers of its own: a stage, unless the head replaces it
    auxiliary: tuple[tuple[str, str], ...] = ()  # (module, its final layer) of auxiliary heads


def _each(pattern: str, *names: str) -> tuple[tuple[str], ...]:
    """Stages of one module each: `_each("layer{}", "1", "2")` -> (("layer1",), ("layer2",))."""
    return tuple((pattern.format(name),) for name in names)


_DENSE = (
    ("features.conv0", "features.norm0"),
    *((f"features.denseblock{i}", f"features.transition{i}") for i in (1, 2, 3)),
    ("features.denseblock4", "features.norm5"),
)
_PAIRED = (*_each("features.{}", "0", "1"), *((f"features.{i}", f"features.{i + 1}") for i in (2, 4, 6)))
_EACH_FEATURE: tuple[Part, ...] = (Children("features"),)
_MNASNET_STEM = tuple(f"layers.{i}" for i in (0, 1, 3, 4, 6, 7))
_MNASNET = (_MNASNET_STEM, *_each("layers.{}", "8", "9", "10", "11", "12", "13"), ("layers.14", "layers.15"))
_INCEPTION_STEM = tuple(f"Conv2d_{name}" for name in ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3"))
_INCEPTION = _each("Mixed_{}", "5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
_GOOGLENET = (("conv1", "conv2", "conv3"), *_each("inception{}", "3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"))
_VIT: tuple[Part, ...] = (("conv_proj", "class_token", "encoder.pos_embedding"), Children("encoder.layers"))
FAMILIES = (
    Family("resnet", r"(wide_)?resne(x)?t\d.*", (("conv1", "bn1"), *_each("layer{}", *"1234")), head="fc"),
    Family("densenet", r"densenet\d+", _DENSE, head="classifier"),
    Family("vgg", r"vgg\d+(_bn)?", (Children("features", pools=True),), head="classifier.6", hidden="classifier"),
    Family("alexnet", r"alexnet", _EACH_FEATURE, head="classifier.6", hidden="classifier"),
    Family("squeezenet", r"squeezenet.*", _EACH_FEATURE, head="classifier.1"),
    Family("mobilenet_v2", r"mobilenet_v2", _EACH_FEATURE, head="classifier.1"),
    Family("mobilenet_v3", r"mobilenet_v3_.*", _EACH_FEATURE, head="classifier.3", hidden="classifier"),
    Family("efficientnet", r"efficientnet_.*", _EACH_FEATURE, head="classifier.1"),
    Family("mnasnet", r"mnasnet.*", _MNASNET, head="classifier.1"),
    Family("shufflenet", r"shufflenet_v2_.*", (("conv1",), *_each("stage{}", *"234"), ("conv5",)), head="fc"),
    Family("regnet", r"regnet_.*", (("stem",), *_each("trunk_output.block{}", *"1234")), head="fc"),
    Family("googlenet", r"googlenet", _GOOGLENET, head="fc", auxiliary=(("aux1", "fc2"), ("aux2", "fc2"))),
    Family("inception_v3", r"inception_v3", (_INCEPTION_STEM, *_INCEPTION), head="fc", auxiliary=(("AuxLogits", "fc"),)),
    Family("convnext", r"convnext_.*", _PAIRED, head="classifier.2", last_norm=("classifier.0",)),
    Family("swin", r"swin_.*", _PAIRED, head="head", last_norm=("norm",)),
    Family("convnet", r"convnet[357]", (("conv1", "norm1"), *_each("layer{}", *"123")), head="fc"),
    Family("maxvit", r"maxvit_.*", (("stem",), Children("blocks")), head="classifier.5", hidden="classifier"),
    Family("vision_transformer", r"vit_.*", _VIT, head="heads.head", last_norm=("encoder.ln",)),
)


def family_of(name: str) -> Family | None:
    """The row of a torchvision model name, e.g. `wide_resnet50_2` -> resnet; None for a name no row knows."""
    return next((family for family in FAMILIES if re.fullmatch(family.pattern, name)), None)


# Ours: a 7×7 convolution of stride 2, pairs of 3×3 convolutions, the mean over the map, a linear layer. As tables of torch.nn layers
# they are rebuilt from an exported configuration by torch alone.

Rows = list[tuple[str, str, dict[str, Any]]]  # (dotted path, class of torch.nn, arguments), parents before children
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
