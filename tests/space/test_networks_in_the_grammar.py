"""Edits that change modules, edits of one backbone, strategies that leave the depth to the space, rows for every seed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from searchft.errors import InputError
from searchft.recipe import SpaceFacts
from searchft.space import Space, notes, parse_space, validate

HEADER = "study: s\ndata: {source: orl_faces}\nrecipe:\n  backbone: torchvision/small\n"


def test_layers_are_read_into_classes_and_arguments(space_of: Callable[..., Space]) -> None:
    space = space_of("edits: {features.append: [{Conv2d: {in_channels: 3, out_channels: 8, kernel_size: [3, 3]}}, ReLU]}")
    assert space.resolve({}).edits == (
        ("features.append", (("Conv2d", (("in_channels", 3), ("kernel_size", (3, 3)), ("out_channels", 8))), ("ReLU", ()))),
    )
    assert Space.from_json(space.to_json()) == space


def test_edits_of_one_backbone_are_a_choice_without_effect_on_the_other(
    space_of: Callable[..., Space], facts_of: Callable[..., SpaceFacts]
) -> None:
    text = HEADER.replace("torchvision/small", "[torchvision/a, torchvision/b]")
    space = parse_space(text + "  edits: [{}, {torchvision/a: {x.keep: 2}}]\n", "x.yaml")
    assert len(space.architectures()) == 3
    facts = facts_of(space)
    assert [chosen for chosen, _ in space.recipes(facts)] == [
        {"backbone": "torchvision/a", "edits": ()},
        {"backbone": "torchvision/a", "edits": (("torchvision/a", (("x.keep", 2),)),)},
        {"backbone": "torchvision/b"},
    ]


@pytest.mark.parametrize(
    ("edits", "rule"),
    [
        ("{x.keep: 0}", "must give x.keep a whole number of modules to keep, at least 1,"),
        ("{x.append: []}", "must give x.append 1 to 100 layers"),
        ("{x.append: [Conv3d]}", "not 'Conv3d', did you mean 'Conv2d'?"),
        ("{x.replace: {Linear: 3}}", "must give x.replace layers such as ReLU"),
        ("{x.replace: {Linear: {weight: {a: 1}}}}", "must give Linear.weight a number"),
        ("{x.replace: {Linear: {device: cuda}}}", "must give Linear plain arguments of its own, not 'device'"),
        ("{resnet/18/x: {y.keep: 1}}", "must name a backbone before edits of its own"),
        ("{torchvision/a: 3}", "must give torchvision/a a mapping of edits"),
    ],
)
def test_malformed_edits_are_told_with_the_rule(space_of: Callable[..., Space], edits: str, rule: str) -> None:
    with pytest.raises(InputError) as caught:
        space_of(f"edits: {edits}")
    assert rule in str(caught.value)


def test_partial_leaves_the_depth_to_the_space(space_of: Callable[..., Space]) -> None:
    space = space_of("strategy: [full, partial, head]", "unfrozen: 1")
    assert [space.resolve({"strategy": s}).unfrozen for s in ("full", "partial", "head")] == ["all", 1, "head"]
    with pytest.raises(InputError, match="must not stand beside strategy full"):
        space_of("strategy: [full, head]", "unfrozen: 1")


def test_a_row_with_a_list_of_seeds_is_a_row_for_each() -> None:
    text = HEADER + "  seed: [0, 1, 2]\n  lr: [1e-3, 1e-2]\nsearch:\n  enqueue:\n    - {name: A, lr: 1e-2, seed: [0, 2]}\n"
    space = parse_space(text, "x.yaml")
    assert [(row.name, dict(row.chosen)) for row in space.enqueue] == [
        ("A, seed 0", {"lr": 1e-2, "seed": 0}),
        ("A, seed 2", {"lr": 1e-2, "seed": 2}),
    ]
    with pytest.raises(InputError, match="must be one of the choices 0, 1, 2 but got 7"):
        parse_space(text.replace("[0, 2]", "[0, 7]"), "x.yaml")


def test_more_tensors_than_any_network_has_are_a_mistake_and_fewer_never(
    space_of: Callable[..., Space], facts_of: Callable[..., SpaceFacts]
) -> None:
    space = space_of("unfrozen_tensors: [0, 9]")
    assert validate(space, facts_of(space)) == []
    beyond = space_of("unfrozen_tensors: [0, 10]")
    assert "must be at most 9" in str(validate(beyond, facts_of(beyond))[0])


def test_notes_name_a_softmax_by_edit_and_a_layer_wider_than_the_data(
    space_of: Callable[..., Space], facts_of: Callable[..., SpaceFacts]
) -> None:
    space = space_of("edits: {x.append: [{Softmax: {dim: 0}}]}", "head_widths: [[128], []]", "unfrozen: all")
    told = [str(note) for note in notes(space, facts_of(space, train=80))]
    assert any("x.append puts a softmax into the network" in note for note in told)
    assert not any("very wide" in note for note in told)
    told = [str(note) for note in notes(space, facts_of(space, train=20))]
    assert any("a hidden layer of 128 is very wide for 20 training images" in note for note in told)
