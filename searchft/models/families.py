"""What torchvision's families (and ours, `searchft/convnet…`) are built of: one visible row each.

torchvision has no notion of stages, and its `children()` mislead: one child holds all of VGG's features, another is ResNet's lone
`bn1`. timm describes itself (`group_matcher`) and needs no table. The first stage is called `stem`, the others by their first module.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class EachChild:
    """Every child of `container` that has parameters is a stage of its own."""

    container: str


@dataclass(frozen=True)
class BetweenPools:
    """The children of `container`, cut behind each MaxPool2d."""

    container: str


Part = tuple[str, ...] | EachChild | BetweenPools


@dataclass(frozen=True)
class Family:
    """One torchvision family."""

    name: str
    pattern: str
    """Regular expression that the whole model name matches."""
    parts: tuple[Part, ...]
    """Stages in order of execution, stem first."""
    head: str
    """The final layer that turns features into class scores."""
    last_norm: tuple[str, ...] = ()
    """Norms between the last stage and the head: they belong to the last stage."""
    hidden: str = ""
    """A block in front of the head with layers of its own: a stage called by this name, unless the head replaces it."""
    auxiliary: tuple[tuple[str, str], ...] = ()
    """(module, its final layer) of auxiliary heads; such a network's constructor takes `init_weights`."""


def _each(pattern: str, *names: str) -> tuple[tuple[str], ...]:
    """Stages of one module each: `_each("layer{}", "1", "2")` -> (("layer1",), ("layer2",))."""
    return tuple((pattern.format(name),) for name in names)


_DENSE = tuple((f"features.denseblock{i}", f"features.transition{i}") for i in (1, 2, 3))
_PAIRED = (*_each("features.{}", "0", "1"), *((f"features.{i}", f"features.{i + 1}") for i in (2, 4, 6)))
_EACH_FEATURE: tuple[Part, ...] = (EachChild("features"),)
_MNASNET_STEM = tuple(f"layers.{i}" for i in (0, 1, 3, 4, 6, 7))
_INCEPTION_STEM = tuple(f"Conv2d_{name}" for name in ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3"))
_INCEPTION_BLOCKS = _each("Mixed_{}", "5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
_GOOGLENET_BLOCKS = _each("inception{}", "3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
_VIT_STEM = ("conv_proj", "class_token", "encoder.pos_embedding")

FAMILIES = (
    Family("resnet", r"(wide_)?resne(x)?t\d.*", (("conv1", "bn1"), *_each("layer{}", *"1234")), head="fc"),
    Family(
        "densenet",
        r"densenet\d+",
        (("features.conv0", "features.norm0"), *_DENSE, ("features.denseblock4", "features.norm5")),
        head="classifier",
    ),
    Family("vgg", r"vgg\d+(_bn)?", (BetweenPools("features"),), head="classifier.6", hidden="classifier"),
    Family("alexnet", r"alexnet", _EACH_FEATURE, head="classifier.6", hidden="classifier"),
    Family("squeezenet", r"squeezenet.*", _EACH_FEATURE, head="classifier.1"),
    Family("mobilenet_v2", r"mobilenet_v2", _EACH_FEATURE, head="classifier.1"),
    Family("mobilenet_v3", r"mobilenet_v3_.*", _EACH_FEATURE, head="classifier.3", hidden="classifier"),
    Family("efficientnet", r"efficientnet_.*", _EACH_FEATURE, head="classifier.1"),
    Family(
        "mnasnet",
        r"mnasnet.*",
        (_MNASNET_STEM, *_each("layers.{}", "8", "9", "10", "11", "12", "13"), ("layers.14", "layers.15")),
        head="classifier.1",
    ),
    Family("shufflenet", r"shufflenet_v2_.*", (("conv1",), *_each("stage{}", *"234"), ("conv5",)), head="fc"),
    Family("regnet", r"regnet_.*", (("stem",), *_each("trunk_output.block{}", *"1234")), head="fc"),
    Family(
        "googlenet",
        r"googlenet",
        (("conv1", "conv2", "conv3"), *_GOOGLENET_BLOCKS),
        head="fc",
        auxiliary=(("aux1", "fc2"), ("aux2", "fc2")),
    ),
    Family(
        "inception_v3",
        r"inception_v3",
        (_INCEPTION_STEM, *_INCEPTION_BLOCKS),
        head="fc",
        auxiliary=(("AuxLogits", "fc"),),
    ),
    Family("convnext", r"convnext_.*", _PAIRED, head="classifier.2", last_norm=("classifier.0",)),
    Family("swin", r"swin_.*", _PAIRED, head="head", last_norm=("norm",)),
    Family("convnet", r"convnet[357]", (("conv1", "norm1"), *_each("layer{}", *"123")), head="fc"),
    Family("maxvit", r"maxvit_.*", (("stem",), EachChild("blocks")), head="classifier.5", hidden="classifier"),
    Family(
        "vision_transformer",
        r"vit_.*",
        (_VIT_STEM, EachChild("encoder.layers")),
        head="heads.head",
        last_norm=("encoder.ln",),
    ),
)


def family_of(name: str) -> Family | None:
    """The row of a torchvision model name, e.g. `wide_resnet50_2` -> resnet; None for a name no row knows."""
    return next((family for family in FAMILIES if re.fullmatch(family.pattern, name)), None)
