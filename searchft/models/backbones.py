"""Networks by name: `torchvision/resnet18`, `timm/vit_tiny_patch16_224`, `searchft/convnet5`, `python:FILE.py:NAME`.

Builds the bare network with a throw-away head and initial values that follow from a seed alone; weights, edits and our head follow.
NAME of a user's file is called with the number of classes and returns an nn.Module: images [N, 3, H, W] to logits [N, C]. A space is
data, and reading one must never run code: such a file is run only where the user said so with --allow-code.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import importlib.util
import os
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from searchft.errors import InputError, Problem
from searchft.models.families import PAIRS, Family, add_rows, convnet_rows, family_of
from searchft.wording import near_names

PERMISSION = "SEARCHFT_ALLOW_CODE"
"""The environment variable that allows code: the folder of the space file. Processes that this one starts inherit it."""
PLACEHOLDER_CLASSES = 7
"""Classes of the head that ours replaces: few, and a number that no other layer has, so that a second head gives itself away."""


@dataclass(frozen=True)
class BackboneName:
    """A backbone's name taken apart."""

    library: str  # `torchvision`, `timm`, `searchft` (small networks of ours), or `python` (the user's own)
    name: str  # the library's name of the architecture, without a timm tag; for `python` FILE.py:NAME
    tag: str = ""  # timm's name of a set of weights, where the user wrote one: `a1_in1k` of `resnet18.a1_in1k`

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


def refusal(rule: str, key: str = "recipe.backbone", where: str = "") -> InputError:
    """The error of a network that breaks a rule."""
    return InputError(Problem(where, key, rule))


def near(word: str, known: Sequence[str]) -> str:
    """`, did you mean 'x' or 'y'?` if something known is close to the word, else an empty string."""
    close = near_names(word, known)
    return f", did you mean {' or '.join(map(repr, close))}?" if close else ""


def parse_backbone(text: str) -> BackboneName:
    """Takes `torchvision/NAME`, `timm/NAME[.TAG]` … apart. Raises InputError with near misses for an unknown one."""
    if text.startswith("python:"):
        parts_of(text)  # raises without permission, or where there is no such file
        return BackboneName("python", text.removeprefix("python:"))
    library, _, name = text.partition("/")
    if library not in ("torchvision", "timm", "searchft", "python") or not name:
        raise refusal(f"must be torchvision/NAME or timm/NAME but got {text!r}{near(text, list_backbones(None))}")
    if library == "searchft" and name not in PAIRS:
        raise refusal(f"must name a network of searchft's own ({', '.join(PAIRS)}) but got {name!r}{near(name, list(PAIRS))}")
    if library == "torchvision":
        if name not in _torchvision_names():
            raise refusal(f"must name a torchvision classifier but got {name!r}{near(name, _torchvision_names())}")
        if family_of(name) is None:
            raise refusal(f"must be of a family whose stages searchft knows but got {name!r}: take timm's version of it")
    if library != "timm":
        return BackboneName(library, name)
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise refusal(f"must name a timm model but got {name!r}{near(base, timm.list_models())}")
    if tag and tag not in (tags := timm_tags(base)):
        known = ", ".join(tags) or "none"
        raise refusal(f"must name weights of timm's {base} ({known}) after the dot but got {tag!r}{near(tag, tags)}")
    return BackboneName(library, base, tag)


def permit(folder: Path) -> None:
    """Allows this process, and those it starts, to run the networks' files that a space in `folder` names."""
    os.environ[PERMISSION] = str(Path(folder).absolute())


def parts_of(text: str) -> tuple[Path, str]:
    """FILE (absolute) and NAME of `python:FILE.py:NAME`. Raises InputError without permission or for another form."""
    file, _, name = text.removeprefix("python:").rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise refusal(f"must be python:FILE.py:NAME but got {text!r}")
    if not os.environ.get(PERMISSION):
        raise refusal(f"must not be code unless you allow it but got {text!r}: read {file}, then say --allow-code")
    path = Path(os.environ[PERMISSION]) / Path(file).expanduser()
    if not path.is_file():
        raise refusal(f"must name a Python file that exists but {path} does not")
    return path, name


def digest_of(text: str) -> str:
    """12 hex digits of the file's content: another text is another network. Raises as `parts_of`."""
    return hashlib.sha256(parts_of(text)[0].read_bytes()).hexdigest()[:12]


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


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block torch's CPU generator runs from `seed`; afterwards it is where it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed CUDA, which outlasts the block
        yield


def build_own(text: str, num_classes: int) -> nn.Module:
    """Runs the file and calls NAME. Raises InputError naming the file, line and cause of whatever goes wrong there."""
    path, name = parts_of(text)
    spec = importlib.util.spec_from_file_location(f"searchft_user_{digest_of(text)}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        factory = getattr(module, name, None)
        model = factory(num_classes) if callable(factory) else None
    except Exception as error:  # whatever the user's code raises
        inside = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f", line {inside[-1]}" if inside else ""
        raise refusal(f"must build a network but {path}{line}: {type(error).__name__}: {error}") from error
    if not callable(factory):
        raise refusal(f"must name a class or function of {path} but it has no {name!r}")
    if not isinstance(model, nn.Module):
        raise refusal(f"must give an nn.Module but {name} of {path} gives {type(model).__name__}")
    return model


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
            model = nn.Sequential()
            add_rows(model, convnet_rows(name.name, PLACEHOLDER_CLASSES))
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
    rows = name.family.auxiliary if name.family else ()
    return tuple(row for row in rows if getattr(model, row[0], None) is not None)
