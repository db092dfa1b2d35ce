"""What a space's data, backbones and weights really are: found out once, before a study exists.

`describe` looks at everything and reports every problem at once. It may import torch (on the CPU, never initialising
CUDA). How two descriptions differ is said by `search.ground`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from searchft.data.images import Images, open_images
from searchft.errors import InputError, Problem
from searchft.machine import find_processor
from searchft.models import check_image_size, describe_backbone
from searchft.recipe import BackboneFacts, SpaceFacts
from searchft.space import Space, validate


class Described(NamedTuple):
    """A space's facts, and its decoded images."""

    facts: SpaceFacts
    images: Images


def describe(space: Space, cache: Path, device: str = "cpu") -> Described:
    """Decodes (or finds decoded) the images, loads every backbone once, and checks the space against both.

    Args:
        cache: folder of the stores that all studies share.
        device: what the space's trials will train on (`cpu`, `cuda`, `cuda:1` …).

    Raises InputError with every problem of data, weights and space together.
    """
    problems: list[Problem] = []
    images: Images | None = None
    try:
        images = open_images(space.data, cache)
    except InputError as error:
        problems += _placed(error, space, "data.source")
    backbones: dict[str, BackboneFacts] = {}
    for name, recipe in space.architectures().items():
        try:
            backbones[name] = describe_backbone(recipe, recipe.seed)
        except InputError as error:
            problems += _placed(error, space, "recipe.backbone")
            continue
        rule = check_image_size(recipe, backbones[name], space.data.image_size)
        if rule:
            problems.append(Problem(space.where("data.image_size"), "data.image_size", rule))
    if problems or images is None:
        raise InputError(problems)
    facts = SpaceFacts(images.facts, backbones, find_processor(device.partition(":")[0]))
    problems = validate(space, facts)
    if problems:
        raise InputError(problems)
    return Described(facts, images)


def _placed(error: InputError, space: Space, key: str) -> list[Problem]:
    """The error's problems; one that names no place gets the key's line of the space file."""
    return [p if p.where else Problem(space.where(p.key or key), p.key or key, p.rule) for p in error.problems]
