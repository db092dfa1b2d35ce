"""What torchvision's families (and ours, `searchft/convnet…`) are built of: one visible row each.

torchvision has no notion of stages, and its `children()` mislead: one child holds all of VGG's features, another is
ResNet's lone `bn1`. So the division is written down here, once per family, and a test holds that every parameter of
every family lies in exactly one stage. timm describes itself (`group_matcher`) and needs no table.

A stage is either a tuple of module names (or of bare parameters such as `class_token`) or one of two rules:
`EachChild("features")`, every child that has parameters is a stage; `BetweenPools("features")`, a stage ends at each
max-pooling layer. The first stage is always called `stem`; the others bear the name of their first module.
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
    """(module, its final layer) of auxiliary heads."""
    init_weights: bool = False
    """The constructor takes `init_weights`, and warns without it: true where values are random."""


FAMILIES = (
    Family(
        "resnet",
        r"(wide_)?resne(x)?t\d.*",
        (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)),
        head="fc",
    ),
    Family(
        "densenet",
        r"densenet\d+",
        (
            ("features.conv0", "features.norm0"),
            ("features.denseblock1", "features.transition1"),
            ("features.denseblock2", "features.transition2"),
            ("features.denseblock3", "features.transition3"),
            ("features.denseblock4", "features.norm5"),
        ),
        head="classifier",
    ),
    Family("vgg", r"vgg\d+(_bn)?", (BetweenPools("features"),), head="classifier.6", hidden="classifier"),
    Family("alexnet", r"alexnet", (EachChild("features"),), head="classifier.6", hidden="classifier"),
    Family("squeezenet", r"squeezenet.*", (EachChild("features"),), head="classifier.1"),
    Family("mobilenet_v2", r"mobilenet_v2", (EachChild("features"),), head="classifier.1"),
    Family("mobilenet_v3", r"mobilenet_v3_.*", (EachChild("features"),), head="classifier.3", hidden="classifier"),
    Family("efficientnet", r"efficientnet_.*", (EachChild("features"),), head="classifier.1"),
    Family(
        "mnasnet",
        r"mnasnet.*",
        (
            ("layers.0", "layers.1", "layers.3", "layers.4", "layers.6", "layers.7"),
            ("layers.8",),
            ("layers.9",),
            ("layers.10",),
            ("layers.11",),
            ("layers.12",),
            ("layers.13",),
            ("layers.14", "layers.15"),
        ),
        head="classifier.1",
    ),
    Family(
        "shufflenet",
        r"shufflenet_v2_.*",
        (("conv1",), ("stage2",), ("stage3",), ("stage4",), ("conv5",)),
        head="fc",
    ),
    Family(
        "regnet",
        r"regnet_.*",
        (
            ("stem",),
            ("trunk_output.block1",),
            ("trunk_output.block2",),
            ("trunk_output.block3",),
            ("trunk_output.block4",),
        ),
        head="fc",
    ),
    Family(
        "googlenet",
        r"googlenet",
        (
            ("conv1", "conv2", "conv3"),
            *((f"inception{block}",) for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")),
        ),
        head="fc",
        auxiliary=(("aux1", "fc2"), ("aux2", "fc2")),
        init_weights=True,
    ),
    Family(
        "inception_v3",
        r"inception_v3",
        (
            ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
            *((f"Mixed_{block}",) for block in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")),
        ),
        head="fc",
        auxiliary=(("AuxLogits", "fc"),),
        init_weights=True,
    ),
    Family(
        "convnext",
        r"convnext_.*",
        (
            ("features.0",),
            ("features.1",),
            ("features.2", "features.3"),
            ("features.4", "features.5"),
            ("features.6", "features.7"),
        ),
        head="classifier.2",
        last_norm=("classifier.0",),
    ),
    Family(
        "swin",
        r"swin_.*",
        (
            ("features.0",),
            ("features.1",),
            ("features.2", "features.3"),
            ("features.4", "features.5"),
            ("features.6", "features.7"),
        ),
        head="head",
        last_norm=("norm",),
    ),
    Family(
        "convnet",
        r"convnet[357]",
        (("conv1", "norm1"), ("layer1",), ("layer2",), ("layer3",)),
        head="fc",
    ),
    Family("maxvit", r"maxvit_.*", (("stem",), EachChild("blocks")), head="classifier.5", hidden="classifier"),
    Family(
        "vision_transformer",
        r"vit_.*",
        (("conv_proj", "class_token", "encoder.pos_embedding"), EachChild("encoder.layers")),
        head="heads.head",
        last_norm=("encoder.ln",),
    ),
)


def family_of(name: str) -> Family | None:
    """The row of a torchvision model name, e.g. `wide_resnet50_2` -> resnet; None for a name no row knows."""
    return next((family for family in FAMILIES if re.fullmatch(family.pattern, name)), None)
