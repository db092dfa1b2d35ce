"""What only facts can tell about a space: stages that do not exist, groups that are never open, and the like.

`validate` returns errors, `notes` what a person should know but may want (a batch larger than the training set).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product
from typing import Any

from searchft.errors import Problem
from searchft.recipe import HEAD, BackboneFacts, Opening, Recipe, SpaceFacts, open_parameters
from searchft.recipe.fields import NETWORK, OPENING, names_that_decide
from searchft.space.choices import EXCLUSIVE, MULTIPLIER
from searchft.space.space import Space
from searchft.wording import did_you_mean, listed

WIDE = 4
"""Units of a hidden layer per training image from which on a note says so."""


def validate(space: Space, facts: SpaceFacts) -> list[Problem]:
    """Errors that the facts show. Architectures that the facts do not know are skipped: who described them has said why."""
    problems: dict[Problem, None] = {}

    def refuse(key: str, rule: str) -> None:
        problems[Problem(space.where(key), key, rule)] = None

    # A count beyond one network's tensors opens all of it: only beyond every network's is it a mistake.
    most = max((len(backbone.parameters) for _, backbone in _networks(space, facts)), default=0)
    for recipe, backbone in _networks(space, facts):
        for opener in EXCLUSIVE:
            for value in space.choices(opener):
                if rule := _opener_rule(recipe, backbone, opener, value, most):
                    refuse(f"recipe.{opener}", rule)
        names = backbone.stage_names
        for group, stages in (pair for groups in space.choices("lr_groups") for pair in groups):
            for stage in (stage for stage in stages if stage not in names):
                rule = f"must name stages of {backbone.backbone} ({listed(names)}) but got {stage!r}"
                refuse(f"recipe.lr_groups.{group}", rule + did_you_mean(stage, names))
    return list(problems)


def notes(space: Space, facts: SpaceFacts) -> list[Problem]:
    """What a person should know before the search starts. None of it stops anything."""
    found: list[Problem] = []

    def note(key: str, rule: str) -> None:
        found.append(Problem(space.where(key), key, rule))

    size = facts.data.train_size
    large = [batch for batch in space.choices("batch_size") if batch > size > 0]
    if large:
        same = " and are the same" if len(large) > 1 else ""
        note("recipe.batch_size", f"{listed(large)} exceed the {size} training images{same}: every batch will be the whole set")

    networks = list(_networks(space, facts))
    openings = list(list_openings(space, facts))
    if not openings:
        return found
    live = {group for _, _, opening in openings for group, names in opening.groups.items() if names or group == HEAD}
    for name in [*space.fixed, *space.by_name]:
        group = name.partition(".")[2]
        if name.startswith(MULTIPLIER + ".") and group not in live:
            note(f"recipe.{name}", f"has no effect: no configuration opens anything in the group {group}")
    if "norm" in space.choices("parameters"):
        for _, backbone in networks:
            if not any(parameter.kind.startswith("norm") for parameter in backbone.parameters):
                note("recipe.parameters", f"norm opens nothing but the head: {backbone.backbone} has no normalization layers")
    if True in space.choices("auxiliary") and not any(backbone.has_auxiliary_heads for _, backbone in networks):
        note("recipe.auxiliary", f"has no effect: {listed(_names(networks))} has no auxiliary heads")
    if True in space.choices("final_softmax"):
        rule = "puts a softmax before the cross entropy, which has one: a known mistake, kept for comparison"
        note("recipe.final_softmax", rule)
    for path in (path for recipe, _ in networks for path in _softmax_edits(recipe)):
        rule = f"{path} puts a softmax into the network: before the cross entropy, which has one, it is a known mistake"
        note("recipe.edits", rule)
    widest = max((width for widths in space.choices("head_widths") for width in widths), default=0)
    if widest > WIDE * size > 0:
        note("recipe.head_widths", f"a hidden layer of {widest} is very wide for {size} training images")
    return list(dict.fromkeys(found))


def _networks(space: Space, facts: SpaceFacts) -> Iterator[tuple[Recipe, BackboneFacts]]:
    for architecture, recipe in space.architectures().items():
        if architecture in facts.backbones:
            yield recipe, facts.backbones[architecture]


def _names(networks: list[tuple[Recipe, BackboneFacts]]) -> list[str]:
    return list(dict.fromkeys(backbone.backbone for _, backbone in networks))


def _opener_rule(recipe: Recipe, backbone: BackboneFacts, opener: str, value: Any, most: int) -> str:
    """Why a backbone cannot be opened as asked; empty where it can."""
    if opener == "unfrozen_tensors":
        if value <= most or len(backbone.parameters) < most:
            return ""
        return f"must be at most {most}, the parameter tensors of {backbone.backbone}, but got {value}"
    asked: dict[str, Any] = {"unfrozen": HEAD, "stages": None, "unfrozen_tensors": None, opener: value}
    try:
        open_parameters(replace(recipe, **asked), backbone)
    except ValueError as error:
        unknown = next((stage for stage in value if stage not in backbone.stage_names), "") if opener == "stages" else value
        return str(error) + (did_you_mean(unknown, backbone.stage_names) if isinstance(unknown, str) else "")
    return ""


def list_openings(space: Space, facts: SpaceFacts) -> Iterator[tuple[Recipe, BackboneFacts, Opening]]:
    """Every opening of the space: each combination of what decides a network and what opens it, the first 10,000."""
    names = ("strategy", *names_that_decide(NETWORK, OPENING), "lr_groups")
    deciding = [d for d in space.dimensions if d.name in names]
    for combination in islice(product(*(d.choices for d in deciding)), 10_000):
        recipe = space.resolve({d.name: choice for d, choice in zip(deciding, combination, strict=True)})
        backbone = facts.backbones.get(recipe.architecture())
        if backbone is not None:
            with contextlib.suppress(ValueError):  # `validate` says so
                yield recipe, backbone, open_parameters(recipe, backbone)


def _softmax_edits(recipe: Recipe) -> Iterator[str]:
    """Paths of edits that bring a softmax."""
    for path, value in recipe.own_edits():
        layers = value if path.endswith(".append") else (value,) if path.endswith(".replace") else ()
        if any(kind in ("Softmax", "LogSoftmax") for kind, _ in layers):
            yield path


def frozen_over_random(space: Space, facts: SpaceFacts) -> list[tuple[str, int]]:
    """Backbones with random weights that some configuration keeps frozen, and how many of their parameters at most."""
    worst: dict[int, tuple[BackboneFacts, int]] = {}
    for _, backbone, opening in list_openings(space, facts):
        if backbone.weights_sha256.startswith("random:"):
            trained = set(opening.parameters)
            frozen = sum(p.size for p in backbone.parameters if p.name not in trained and not p.kind.startswith("norm"))
            if frozen > worst.get(id(backbone), (backbone, 0))[1]:
                worst[id(backbone)] = (backbone, frozen)
    return [(backbone.backbone, frozen) for backbone, frozen in worst.values()]
