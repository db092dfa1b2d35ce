"""What a study stands on, in words that every view shares: data, backbones, weights that fell back, the command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from searchft.recipe import BackboneFacts, SpaceFacts
from searchft.report.words import weights_in_words
from searchft.space import Space
from searchft.space.validate import frozen_over_random


def data_in_words(facts: SpaceFacts) -> str:
    """`orl_faces, 40 classes, 80 train, 120 val, 200 test`."""
    sizes = ", ".join(f"{facts.data.size(split)} {split}" for split, _ in facts.data.counts)
    return f"{facts.data.source}, {len(facts.data.classes)} classes, {sizes}"


def ground_lines(space: Space, facts: SpaceFacts) -> list[tuple[str, str]]:
    """(name, value) of the data, every backbone, and how the search goes about."""
    search = space.search
    lines = [("data", f"{data_in_words(facts)}, {space.data.image_size} px")]
    lines += [("backbone", f"{b.backbone}, {weights_in_words(b)}") for _, b in backbones_of(space, facts)]
    lines.append(("search", f"{search.sampler}, pruner {search.pruner}, {search.trials} trials, seed {search.seed}"))
    return list(dict.fromkeys(lines))


def backbones_of(space: Space, facts: SpaceFacts) -> Iterator[tuple[str, BackboneFacts]]:
    """The space's architectures with their facts, those that the facts know."""
    for architecture in space.architectures():
        if architecture in facts.backbones:
            yield architecture, facts.backbones[architecture]


def weights_warnings(space: Space, facts: SpaceFacts) -> list[str]:
    """A sentence in capitals for every fallback, and for frozen layers over random weights."""
    warnings = []
    asked = {name: recipe.weights for name, recipe in space.architectures().items()}
    for name, backbone in backbones_of(space, facts):
        if backbone.fell_back:
            used = "RANDOM WEIGHTS" if backbone.weights == "none" else f"WEIGHTS {backbone.weights}"
            wanted = asked.get(name, "THOSE ASKED FOR")
            warnings.append(f"FALLBACK: {backbone.backbone} STARTS FROM {used}, NOT FROM {wanted}: {backbone.fell_back}")
    for name, frozen in frozen_over_random(space, facts):
        warnings.append(f"FROZEN LAYERS ARE RANDOM: up to {frozen:,} parameters of {name} stay frozen at random values")
    return list(dict.fromkeys(warnings))


def command_of(space: Space) -> str:
    """The command that made the study, overrides included."""
    return shlex.join(["searchft", "run", space.source or "SPACE", *(word for o in space.overrides for word in ("--set", o))])
