"""Networks by name: `torchvision/resnet18`, `timm/vit_tiny_patch16_224`, `searchft/convnet5`, `python:mine.py:Net`.

Builds the bare network with a throw-away head of a few classes and initial values that follow from a seed alone.
Weights, edits and our head come later (weights.py, edits.py, heads.py).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torchvision
from torch import nn

from searchft.errors import InputError, Problem
from searchft.models.code import build_own, parts_of
from searchft.models.convnets import PAIRS, build_convnet
from searchft.models.families import Family, family_of
from searchft.models.seeding import seeded
from searchft.wording import near_names

LIBRARIES = ("torchvision", "timm", "searchft", "python")
PLACEHOLDER_CLASSES = 7
"""Classes of the head that ours replaces: few, so that nothing large is initialised in vain, and a number that no other
layer has, so that a second head gives itself away."""


@dataclass(frozen=True)
class BackboneName:
    """A backbone's name taken apart."""

    library: str
    """`torchvision`, `timm`, `searchft` (small networks of ours), or `python` (the user's own)."""
    name: str
    """The library's name of the architecture, without a timm tag; for `python` FILE.py:NAME."""
    tag: str = ""
    """timm's name of a set of weights, where the user wrote one: `a1_in1k` of `resnet18.a1_in1k`."""

    def __str__(self) -> str:
        return f"{self.library}{':' if self.library == 'python' else '/'}{self.full_name}"

    @property
    def full_name(self) -> str:
        """As the library's own factory takes it, tag included."""
        return f"{self.name}.{self.tag}" if self.tag else self.name

    @property
    def family(self) -> Family | None:
        """The family's row; None for timm and the user's own."""
        return family_of(self.name) if self.library in ("torchvision", "searchft") else None

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Modules of the auxiliary heads that the family may have."""
        return tuple(module for module, _ in self.family.auxiliary) if self.family else ()


def near(word: str, known: Sequence[str]) -> str:
    """`, did you mean 'x' or 'y'?` if something known is close to the word, else an empty string."""
    close = near_names(word, known)
    return f", did you mean {' or '.join(map(repr, close))}?" if close else ""


def parse_backbone(text: str) -> BackboneName:
    """Takes `torchvision/NAME`, `timm/NAME[.TAG]` … apart. Raises InputError with near misses for an unknown one."""

    def refuse(rule: str) -> InputError:
        return InputError(Problem("", "recipe.backbone", rule))

    if text.startswith("python:"):
        parts_of(text)  # raises without permission, or where there is no such file
        return BackboneName("python", text.removeprefix("python:"))
    library, _, name = text.partition("/")
    if library not in LIBRARIES or not name:
        raise refuse(f"must be torchvision/NAME or timm/NAME but got {text!r}{near(text, list_backbones(None))}")
    if library == "searchft" and name not in PAIRS:
        known = list(PAIRS)
        raise refuse(f"must name a network of searchft's own ({', '.join(known)}) but got {name!r}{near(name, known)}")
    if library == "torchvision":
        if name not in _torchvision_names():
            raise refuse(f"must name a torchvision classifier but got {name!r}{near(name, _torchvision_names())}")
        if family_of(name) is None:
            raise refuse(f"must be of a family whose stages searchft knows but got {name!r}: take timm's version of it")
    if library != "timm":
        return BackboneName(library, name)
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise refuse(f"must name a timm model but got {name!r}{near(base, timm.list_models())}")
    tags = timm_tags(base)
    if tag and tag not in tags:
        known_tags = ", ".join(tags) or "none"
        raise refuse(f"must name weights of timm's {base} ({known_tags}) after the dot but got {tag!r}{near(tag, tags)}")
    return BackboneName(library, base, tag)


def list_backbones(pattern: str | None = None) -> list[str]:
    """All names, `torchvision/…` first, that match a shell pattern (`*mobilenet*`) or contain the text; None: all."""
    names = [f"torchvision/{name}" for name in _torchvision_names()] + [f"timm/{name}" for name in timm.list_models()]
    names += [f"searchft/{name}" for name in PAIRS]
    if not pattern:
        return names
    if not any(sign in pattern for sign in "*?["):
        pattern = f"*{pattern}*"
    return [name for name in names if any(fnmatch.fnmatchcase(part, pattern) for part in (name, name.partition("/")[2]))]


def _torchvision_names() -> list[str]:
    """torchvision's image classifiers (its detection, video and quantised models left out)."""
    return list(torchvision.models.list_models(module=torchvision.models))


def timm_tags(name: str) -> list[str]:
    """Tags of all pretrained weights that timm knows for an architecture, sorted; often none."""
    return [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]


def constructor_arguments(name: BackboneName, weights: str, auxiliary: bool = False) -> dict[str, Any]:
    """Arguments beside `num_classes` with which the library's factory builds the very network that we train.

    `weights` is the resolved name (`BackboneFacts.weights`). GoogLeNet and Inception come without auxiliary heads unless
    `auxiliary`, and with pretrained weights they renormalise their input as they were trained to.
    """
    if name.auxiliary:
        return {"aux_logits": auxiliary, "transform_input": weights != "none", "init_weights": False}
    is_transformer = name.family is not None and name.family.name == "vision_transformer"
    if is_transformer and weights != "none" and not weights.startswith("file:"):
        size = torchvision.models.get_model_weights(name.name)[weights].meta["min_size"][0]
        return {"image_size": size} if size != 224 else {}
    return {}


def build_backbone(name: BackboneName, weights: str, seed: int, auxiliary: bool = False) -> nn.Module:
    """The bare network on the CPU in float32 with a placeholder head, its random values a function of `seed` alone.

    Auxiliary heads are built first and then cut off, so that the values of the rest do not depend on them.
    """
    arguments = constructor_arguments(name, weights, auxiliary)
    if name.auxiliary:
        # Without init_weights the constructor warns; it is slow, and needed where values are random.
        arguments |= {"aux_logits": True, "init_weights": weights == "none" or auxiliary}
    with seeded(seed):
        if name.library == "python":
            model = build_own(str(name), PLACEHOLDER_CLASSES)
        elif name.library == "searchft":
            model = build_convnet(name.name, PLACEHOLDER_CLASSES)
        elif name.library == "timm":
            model = timm.create_model(name.full_name, pretrained=False, num_classes=PLACEHOLDER_CLASSES)
        else:
            model = torchvision.models.get_model(name.name, num_classes=PLACEHOLDER_CLASSES, **arguments)
    if not auxiliary:
        for module in name.auxiliary:
            model.aux_logits = False  # type: ignore[assignment]
            setattr(model, module, None)
    return model.float()


def auxiliary_heads(model: nn.Module, name: BackboneName) -> tuple[tuple[str, str], ...]:
    """(module, final layer) of the auxiliary heads that this model really has."""
    family = name.family
    rows = family.auxiliary if family else ()
    return tuple(row for row in rows if getattr(model, row[0], None) is not None)
