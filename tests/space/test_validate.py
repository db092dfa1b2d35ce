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
        (("unfrozen: [head, 1, layer1, layer2.0, layer2.0.conv, all]",), ""),
        (("stages: [[layer1], [stem, layer2]]",), ""),
        (("unfrozen_tensors: [0, 9]",), ""),
        (("unfrozen: [head, layer3]",), "6: recipe.unfrozen: must be 'head', 'all', a count, or a stage (stem, layer1, layer2) or "
         "module of torchvision/small but got 'layer3', did you mean 'layer2'?"),
        (("unfrozen: [1, 4]",), "6: recipe.unfrozen: must be at most 3, the stages of torchvision/small, but got 4"),
        (("stages: [[layer1], [layer1, leyer2]]",), "6: recipe.stages: must name stages of torchvision/small (stem, layer1, layer2) "
         "but got 'leyer2', did you mean 'layer2'?"),
        (("unfrozen_tensors: [0, 10]",),
         "6: recipe.unfrozen_tensors: must be at most 9, the parameter tensors of torchvision/small, but got 10"),
        (("lr_groups:", "  early: [stem, conv1]"),
         "7: recipe.lr_groups.early: must name stages of torchvision/small (stem, layer1, layer2) but got 'conv1'"),
    ],
)  # fmt: skip
def test_facts_show_what_does_not_exist(space_of: Build, facts_of: Facts, lines: tuple[str, ...], expected: str) -> None:
    space = space_of(*lines)
    assert [str(problem) for problem in validate(space, facts_of(space))] == ([f"x.yaml:{expected}"] if expected else [])


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
        ("unfrozen: all", {}, ""),
        ("batch_size: [64, 128, 256]", {}, "batch_size: 128, 256 exceed the 80 training images and are the same"),
        (
            "lr_multipliers: {top: [1, 0.5], head: 0.1}",
            {},
            "lr_multipliers.top: has no effect: no configuration opens anything in",
        ),
        (
            "parameters: norm",
            {"norms": ""},
            "parameters: norm opens nothing but the head: torchvision/small has no normalization",
        ),
        ("auxiliary: true", {}, "auxiliary: has no effect: torchvision/small has no auxiliary heads"),
        ("auxiliary: true", {"has_auxiliary_heads": True}, ""),
        ("final_softmax: [false, true]", {}, "final_softmax: puts a softmax before the cross entropy, which has one: a known"),
        ("edits: {x.append: [{Softmax: {dim: 0}}]}", {}, "edits: x.append puts a softmax into the network: before the cross"),
        ("head_widths: [[128], []]", {}, ""),
        ("head_widths: [[128], []]", {"train": 30}, "head_widths: a hidden layer of 128 is very wide for 30 training images"),
    ],
)
def test_notes_say_what_a_person_should_know(
    space_of: Build, facts_of: Facts, lines: str, facts: dict[str, object], expected: str
) -> None:
    space = space_of(lines, "epochs: 1", *([] if "batch" in lines else ["batch_size: 8"]))
    known = facts_of(space, **KNOWN, **facts)
    found = [str(note) for note in notes(space, known)]
    assert len(found) == bool(expected) and all(note.startswith(f"x.yaml:6: recipe.{expected}") for note in found)
    assert validate(space, known) == []


def test_the_random_values_of_scratch_are_not_taken_for_frozen_ones(space_of: Build, facts_of: Facts) -> None:
    def told(*lines: str) -> list[tuple[str, int]]:
        space = space_of("strategy: [full, head, bias, scratch]", *lines)
        facts, known = facts_of(space), facts_of(space, **KNOWN)
        weights = {name: recipe.weights for name, recipe in space.architectures().items()}
        networks = {name: (facts if weights[name] == "none" else known).backbones[name] for name in weights}
        return frozen_over_random(space, SpaceFacts(facts.data, networks))

    assert told("weights: package") == []
    assert [frozen for _, frozen in told("weights: [package, none]")] == [300]
