"""What only facts can tell about a space: stages that do not exist, groups that are never open, and the like.

`validate` returns errors, `notes` what a person should know but may want (a batch larger than the training set).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
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
    return _problems(space, _errors(space, facts))


def notes(space: Space, facts: SpaceFacts) -> list[Problem]:
    """What a person should know before the search starts. None of it stops anything."""
    return _problems(space, _remarks(space, facts))


def _problems(space: Space, rules: Iterator[tuple[str, str]]) -> list[Problem]:
    return list(dict.fromkeys(Problem(space.where(f"recipe.{name}"), f"recipe.{name}", rule) for name, rule in rules))


def _errors(space: Space, facts: SpaceFacts) -> Iterator[tuple[str, str]]:
    networks = _networks(space, facts)
    # A count beyond one network's tensors opens all of it: only beyond every network's is it a mistake.
    most = max((len(backbone.parameters) for _, backbone in networks), default=0)
    for recipe, backbone in networks:
        for opener in EXCLUSIVE:
            for value in space.choices(opener):
                if rule := _opener_rule(recipe, backbone, opener, value, most):
                    yield opener, rule
        names = backbone.stage_names
        for group, stages in (pair for groups in space.choices("lr_groups") for pair in groups):
            for stage in (stage for stage in stages if stage not in names):
                rule = f"must name stages of {backbone.backbone} ({listed(names)}) but got {stage!r}"
                yield f"lr_groups.{group}", rule + did_you_mean(stage, names)


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


def _remarks(space: Space, facts: SpaceFacts) -> Iterator[tuple[str, str]]:
    size, networks = facts.data.train_size, _networks(space, facts)
    large = [batch for batch in space.choices("batch_size") if batch > size > 0]
    if large:
        same = " and are the same" if len(large) > 1 else ""
        yield "batch_size", f"{listed(large)} exceed the {size} training images{same}: every batch will be the whole set"
    openings = [opening for _, _, opening in list_openings(space, facts)]
    if not openings:
        return
    live = {HEAD, *(group for opening in openings for group, names in opening.groups.items() if names)}
    for name in [*space.fixed, *space.by_name]:
        group = name.partition(".")[2]
        if name.startswith(MULTIPLIER + ".") and group not in live:
            yield name, f"has no effect: no configuration opens anything in the group {group}"
    if "norm" in space.choices("parameters"):
        for _, backbone in networks:
            if not any(parameter.kind.startswith("norm") for parameter in backbone.parameters):
                yield "parameters", f"norm opens nothing but the head: {backbone.backbone} has no normalization layers"
    if True in space.choices("auxiliary") and not any(backbone.has_auxiliary_heads for _, backbone in networks):
        names = dict.fromkeys(backbone.backbone for _, backbone in networks)
        yield "auxiliary", f"has no effect: {listed(names)} has no auxiliary heads"
    if True in space.choices("final_softmax"):
        yield "final_softmax", "puts a softmax before the cross entropy, which has one: a known mistake, kept for comparison"
    for path, value in (edit for recipe, _ in networks for edit in recipe.own_edits()):
        layers = value if path.endswith(".append") else (value,) if path.endswith(".replace") else ()
        if any(kind in ("Softmax", "LogSoftmax") for kind, _ in layers):
            softmax = "puts a softmax into the network: before the cross entropy, which has one, it is a known mistake"
            yield "edits", f"{path} {softmax}"
    widest = max((width for widths in space.choices("head_widths") for width in widths), default=0)
    if widest > WIDE * size > 0:
        yield "head_widths", f"a hidden layer of {widest} is very wide for {size} training images"


def _networks(space: Space, facts: SpaceFacts) -> list[tuple[Recipe, BackboneFacts]]:
    known = facts.backbones
    return [(recipe, known[name]) for name, recipe in space.architectures().items() if name in known]


def list_openings(space: Space, facts: SpaceFacts) -> Iterator[tuple[Recipe, BackboneFacts, Opening]]:
    """Every opening of the space: each combination of what decides a network and what opens it, the first 10,000."""
    for recipe in islice(space.combinations("strategy", *names_that_decide(NETWORK, OPENING), "lr_groups"), 10_000):
        backbone = facts.backbones.get(recipe.architecture())
        if backbone is not None:
            with contextlib.suppress(ValueError):  # `validate` says so
                yield recipe, backbone, open_parameters(recipe, backbone)


def frozen_over_random(space: Space, facts: SpaceFacts) -> list[tuple[str, int]]:
    """Backbones with random weights that some configuration keeps frozen, and how many of their parameters at most."""
    worst: dict[int, tuple[str, int]] = {}
    for _, backbone, opening in list_openings(space, facts):
        if backbone.weights_sha256.startswith("random:"):
            trained = set(opening.parameters)
            frozen = sum(p.size for p in backbone.parameters if p.name not in trained and not p.kind.startswith("norm"))
            if frozen > worst.get(id(backbone), ("", 0))[1]:
                worst[id(backbone)] = (backbone.backbone, frozen)
    return list(worst.values())
