"""What facts tell about a space: errors stop, notes do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from searchft.recipe import SpaceFacts
from searchft.space import Space, notes, validate
from searchft.space.validate import frozen_over_random

Build = Callable[..., Space]
Facts = Callable[..., SpaceFacts]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("unfrozen: [head, 1, layer1, layer2.0, layer2.0.conv, all]",), []),
        (("stages: [[layer1], [stem, layer2]]",), []),
        (("unfrozen_tensors: [0, 9]",), []),
        (
            ("unfrozen: [head, layer3]",),
            [
                "x.yaml:6: recipe.unfrozen: must be 'head', 'all', a count, or a stage (stem, layer1, layer2) or module of "
                "torchvision/small but got 'layer3', did you mean 'layer2'?"
            ],
        ),
        (
            ("unfrozen: [1, 4]",),
            ["x.yaml:6: recipe.unfrozen: must be at most 3, the stages of torchvision/small, but got 4"],
        ),
        (
            ("stages: [[layer1], [layer1, leyer2]]",),
            [
                "x.yaml:6: recipe.stages: must name stages of torchvision/small (stem, layer1, layer2) but got 'leyer2', "
                "did you mean 'layer2'?"
            ],
        ),
        (
            ("unfrozen_tensors: 10",),
            ["x.yaml:6: recipe.unfrozen_tensors: must be at most 9, the parameter tensors of torchvision/small, but got 10"],
        ),
        (
            ("lr_groups:", "  early: [stem, conv1]"),
            ["x.yaml:7: recipe.lr_groups.early: must name stages of torchvision/small (stem, layer1, layer2) but got 'conv1'"],
        ),
    ],
)
def test_facts_show_what_does_not_exist(space_of: Build, facts_of: Facts, lines: tuple[str, ...], expected: list[str]) -> None:
    space = space_of(*lines)
    assert [str(problem) for problem in validate(space, facts_of(space))] == expected


def test_a_fault_in_two_backbones_is_told_for_each(space_of: Build, facts_of: Facts) -> None:
    space = space_of("unfrozen: [head, layer9]", overrides=("recipe.backbone=[torchvision/small, timm/other]",))
    found = [str(problem) for problem in validate(space, facts_of(space))]
    assert len(found) == 2 and "torchvision/small" in found[0] and "timm/other" in found[1]


def test_networks_that_could_not_be_described_are_skipped(space_of: Build, facts_of: Facts) -> None:
    space = space_of("unfrozen: [head, layer9]")
    facts = facts_of(space)
    assert validate(space, SpaceFacts(facts.data, {})) == []
    assert notes(space, SpaceFacts(facts.data, {})) == []


@pytest.mark.parametrize(
    ("lines", "frozen"),
    [
        (("weights: none", "unfrozen: [1, all]"), [("torchvision/small", 200)]),
        (("weights: none", "unfrozen: all"), []),
        (("strategy: [full, scratch]",), []),
        (("strategy: scratch", "norm: frozen"), []),
    ],
)
def test_random_layers_that_stay_frozen_are_counted(
    space_of: Build, facts_of: Facts, lines: tuple[str, ...], frozen: list[tuple[str, int]]
) -> None:
    space = space_of(*lines)
    assert frozen_over_random(space, facts_of(space)) == frozen
    assert notes(space, facts_of(space)) == []


KNOWN = {"weights_sha256": "0" * 64}


@pytest.mark.parametrize(
    ("lines", "facts", "expected"),
    [
        (("unfrozen: all",), KNOWN, []),
        (
            ("batch_size: [64, 128, 256]",),
            KNOWN,
            [
                "x.yaml:6: recipe.batch_size: 128, 256 exceed the 80 training images and are the same: every batch will be the "
                "whole set"
            ],
        ),
        (
            ("unfrozen: [head, 1]", "lr_multipliers: {top: [1, 0.5], deep: 0.1}"),
            KNOWN,
            ["x.yaml:7: recipe.lr_multipliers.deep: has no effect: no configuration opens anything in the group deep"],
        ),
        (
            ("parameters: [all, norm]", "unfrozen: all"),
            {**KNOWN, "norms": ""},
            ["x.yaml:6: recipe.parameters: norm opens nothing but the head: torchvision/small has no normalization layers"],
        ),
        (("auxiliary: true",), KNOWN, ["x.yaml:6: recipe.auxiliary: has no effect: torchvision/small has no auxiliary heads"]),
        (("auxiliary: true",), {**KNOWN, "has_auxiliary_heads": True}, []),
        (
            ("final_softmax: [false, true]",),
            KNOWN,
            [
                "x.yaml:6: recipe.final_softmax: puts a softmax before the cross entropy, which has one: a known mistake, kept "
                "for comparison"
            ],
        ),
    ],
)
def test_notes_say_what_a_person_should_know(
    space_of: Build, facts_of: Facts, lines: tuple[str, ...], facts: dict[str, object], expected: list[str]
) -> None:
    space = space_of(*lines)
    assert [str(note) for note in notes(space, facts_of(space, **facts))] == expected
    assert validate(space, facts_of(space, **facts)) == []


def test_the_random_values_of_scratch_are_not_taken_for_frozen_ones(space_of: Build, facts_of: Facts) -> None:
    def told(*lines: str) -> list[tuple[str, int]]:
        space = space_of("strategy: [full, head, bias, scratch]", *lines)
        facts, known = facts_of(space), facts_of(space, **KNOWN)
        weights = {name: recipe.weights for name, recipe in space.architectures().items()}
        networks = {name: (facts if weights[name] == "none" else known).backbones[name] for name in weights}
        return frozen_over_random(space, SpaceFacts(facts.data, networks))

    assert told("weights: package") == []
    assert [frozen for _, frozen in told("weights: [package, none]")] == [300]
