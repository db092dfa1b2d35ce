"""What a space's data, backbones and weights really are: found out once, before a study exists."""

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

    `cache` holds the stores that all studies share; `device` is what trials will train on (`cuda:1`), and is not initialised.
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
        if rule := check_image_size(recipe, backbones[name], space.data.image_size):
            problems.append(Problem(space.where("data.image_size"), "data.image_size", rule))
    if problems or images is None:
        raise InputError(problems)
    facts = SpaceFacts(images.facts, backbones, find_processor(device.partition(":")[0]))
    if problems := validate(space, facts):
        raise InputError(problems)
    return Described(facts, images)


def _placed(error: InputError, space: Space, key: str) -> list[Problem]:
    """The error's problems; one that names no place gets the key's line of the space file."""
    return [p if p.where else Problem(space.where(p.key or key), p.key or key, p.rule) for p in error.problems]
