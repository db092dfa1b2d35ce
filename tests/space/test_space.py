"""Space: choices to recipes and labels, what is worth asking, what changed since."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable

import pytest

from searchft.recipe import Recipe, SpaceFacts
from searchft.space import Dimension, Space, differences

Build = Callable[..., Space]
Facts = Callable[..., SpaceFacts]

WIDE = (
    "unfrozen: [head, 1, layer2, all]",
    "head_widths: [[], [8], [8, 4]]",
    "dropout: [0.0, 0.5]",
    "optimizer: [adam, sgd]",
    "momentum: [0.9, 0.5]",
    "lr_multipliers: {top: [1, 0.5], deep: [1, 0.1]}",
    "batch_size: [32, 64, 128, 256]",
    "edits: [{}, {conv1.stride: 1, conv1.mode: fast, conv1.tag: '1', conv1.pair: [1, 2]}]",
)


def test_dimensions_are_asked_in_the_order_in_which_they_condition_each_other(space_of: Build) -> None:
    space = space_of(*reversed(WIDE))
    assert space.size() == 4 * 3 * 2 * 2 * 2 * 2 * 2 * 4 * 2
    assert [d.name for d in space.dimensions] == [
        *("edits", "unfrozen", "head_widths", "dropout", "optimizer", "batch_size"),
        *("lr_multipliers.top", "lr_multipliers.deep", "momentum"),
    ]


def test_resolve_fills_in_first_choices_and_keeps_fixed_values(space_of: Build) -> None:
    space = space_of("epochs: 3", "dropout: [0.5, 0.0]", "lr_multipliers: {deep: [0.1, 1], head: 2}")
    assert space.resolve({}) == Recipe(
        "torchvision/small", epochs=3, dropout=0.5, lr_multipliers=(("deep", 0.1), ("head", 2.0))
    )
    assert space.resolve({"dropout": 0.0, "lr_multipliers.deep": 1}).lr_multipliers == (("deep", 1.0), ("head", 2.0))


def test_resolve_refuses_unknown_names_and_values(space_of: Build) -> None:
    space = space_of("dropout: [0.5, 0.0]")
    for read in (space.resolve, space.labels_of):
        with pytest.raises(KeyError):
            read({"epochs": 3})
        for value in (0.1, False):
            with pytest.raises(ValueError, match="dropout must be one of"):
                read({"dropout": value})


@pytest.mark.parametrize(
    ("name", "choices", "labels"),
    [
        ("dropout", (0.0, 0.5), (0.0, 0.5)),
        ("unfrozen", ("head", 2, "2"), ("head", 2, "2")),
        ("head_widths", ((), (256,), (256, 128)), ("linear", "256", "256+128")),
        ("stages", ((), ("a", "b")), ("none", "a+b")),
        ("edits", ((), (("c.s", 1),), (("c.s", "1"),)), ("none", "c.s=1", 'c.s="1"')),
        ("edits", ((("c.s", (1, 2)),), (("c.s", True), ("d.p", "same"))), ("c.s=[1,2]", "c.s=true, d.p=same")),
        ("edits", ((("c.s", True),), (("c.s", "true"),)), ("c.s=true", 'c.s="true"')),
        ("lr_groups", ((("a", ("x", "y")), ("b", ("z",))),), ("a=x+y, b=z",)),
        ("auxiliary", (False, True), (False, True)),
        ("lr_multipliers.top", (1.0, 0.5), (1.0, 0.5)),
        ("weights_fallback", ("", "none"), ("", "none")),
    ],
)
def test_labels_are_readable_and_distinct(name: str, choices: tuple[object, ...], labels: tuple[object, ...]) -> None:
    dimension = Dimension(name, choices)
    assert dimension.labels == labels
    assert [dimension.index(choice) for choice in choices] == list(range(len(choices)))


def test_json_round_trip_gives_an_equal_space(space_of: Build) -> None:
    space = space_of(
        *WIDE,
        search="{enqueue: [{name: a}, {name: b, head_widths: [8, 4]}], timeout: 5}",
        data="{source: 'folder:x', split: {train: 2, val: 3}, folders: {train: a}}",
        overrides=("recipe.epochs=5",),
    )
    again = Space.from_json(json.loads(json.dumps(space.to_json())))
    assert again == space
    assert again.resolve({}) == space.resolve({})
    assert pickle.loads(pickle.dumps(space)) == space


def test_architectures_are_every_network_once(space_of: Build) -> None:
    space = space_of("strategy: [full, scratch, tinytl]", "weights: [A, B]", "edits: [{}, {conv1.stride: 1}]", "lr: [1, 2]")
    found = space.architectures()
    # full: A, B; scratch: none; tinytl: A, B with adapters; each with and without edits
    assert len(found) == 10
    assert all(recipe.architecture() == name for name, recipe in found.items())


def test_edits_of_one_backbone_are_a_choice_without_effect_on_the_other(space_of: Build, facts_of: Facts) -> None:
    space = space_of("edits: [{}, {torchvision/a: {x.keep: 2}}]", overrides=("recipe.backbone=[torchvision/a, torchvision/b]",))
    assert len(space.architectures()) == 3
    assert [chosen for chosen, _ in space.recipes(facts_of(space))] == [
        {"backbone": "torchvision/a", "edits": ()},
        {"backbone": "torchvision/a", "edits": (("torchvision/a", (("x.keep", 2),)),)},
        {"backbone": "torchvision/b"},
    ]


# --- what is worth asking ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "chosen", "active"),
    [
        ("unfrozen", {}, True),
        ("dropout", {"head_widths": ()}, False),
        ("dropout", {"head_widths": (8,)}, True),
        ("dropout", {}, True),  # the head's widths are still open
        ("momentum", {"optimizer": "adam"}, False),
        ("momentum", {"optimizer": "sgd"}, True),
        ("lr_multipliers.top", {"unfrozen": "head"}, False),
        ("lr_multipliers.top", {"unfrozen": 1}, True),
        ("lr_multipliers.deep", {"unfrozen": 1}, False),
        ("lr_multipliers.deep", {"unfrozen": "layer2"}, False),
        ("lr_multipliers.deep", {"unfrozen": "all"}, True),
        ("batch_size", {}, True),
    ],
)
def test_a_dimension_is_active_where_it_makes_a_difference(
    space_of: Build, facts_of: Facts, name: str, chosen: dict[str, object], active: bool
) -> None:
    space = space_of(*WIDE)
    assert space.is_active(name, chosen, facts_of(space)) is active


def test_facts_that_change_are_not_answered_from_those_before(space_of: Build, facts_of: Facts) -> None:
    space = space_of("batch_size: [128, 256]")
    small, large = facts_of(space, train=80), facts_of(space, train=300)
    assert [space.is_active("batch_size", {}, facts) for facts in (small, large, small)] == [False, True, False]


@pytest.mark.parametrize("norms", ["batch", "layer", ""])
@pytest.mark.parametrize(
    "lines",
    [
        WIDE[:4],
        ("unfrozen: [0, 1, 2, 3]", "head_widths: [[], [8]]", "dropout: [0.0, 0.5]", "head_activation: [relu, gelu]"),
        ("unfrozen: [head, 1, layer2, stem, all]", "lr_multipliers: {top: [1, 0.5], deep: [1, 0.5]}"),
        # first choices that mask each other
        ("unfrozen: [head, 1, all]", "parameters: [norm, bias, all]", "norm: [stats, affine]"),
        ("strategy: [head, full, bias, norm, scratch]", "weights: [A, none]"),
        ("epochs: [2, 8]", "patience: [8, 2, 0]", "head_first_epochs: [0, 4, 9]", "unfrozen: [head, all]"),
        ("horizontal_flip: [0.0, 0.5]", "augment_views: [0, 4]", "optimizer: [adam, sgd]", "momentum: [0.9, 0.1]"),
        ("schedule: [constant, step, exponential]", "lr_gamma: [0.9, 0.1]", "lr_step_epochs: [10, 5]"),
        ("stages: [[], [layer1], [layer1, layer2], [layer2]]", "layer_decay: [1, 0.5]"),
        ("batch_size: [64, 128, 80]", "seed: [0, 1]", "precision: [fp32, bf16]"),
    ],
)
def test_recipes_are_every_distinct_configuration_once(
    space_of: Build, facts_of: Facts, lines: tuple[str, ...], norms: str
) -> None:
    space = space_of(*lines)
    facts = facts_of(space, norms=norms)
    names = [d.name for d in space.dimensions]
    everything = {
        space.resolve(dict(zip(names, combination, strict=True))).key(facts)
        for combination in itertools.product(*(d.choices for d in space.dimensions))
    }
    found = list(space.recipes(facts))
    keys = [recipe.key(facts) for _, recipe in found]
    assert len(keys) == len(set(keys))
    assert set(keys) == everything
    for chosen, recipe in found:
        assert space.resolve(chosen).key(facts) == recipe.key(facts)
    assert [chosen for chosen, _ in space.recipes(facts)] == [chosen for chosen, _ in found]


def test_recipes_are_lazy_in_a_space_of_millions(space_of: Build, facts_of: Facts) -> None:
    space = space_of(*(f"{name}: [0.0, 0.1, 0.2, 0.3, 0.4]" for name in ("dropout", "input_dropout", "brightness", "contrast", "hue")),
                     "head_widths: [[], [8]]", "seed: [" + ", ".join(map(str, range(500))) + "]")  # fmt: skip
    assert space.size() > 3_000_000
    assert len(list(itertools.islice(space.recipes(facts_of(space)), 50))) == 50


# --- what changed --------------------------------------------------------------------------------------------------

BASE = ("dropout: [0.0, 0.5]", "epochs: 10")


@pytest.mark.parametrize(
    ("lines", "sections", "expected"),
    [
        (BASE, {}, []),
        ((*BASE, "norm: stats"), {"data": "{source: orl_faces, resize: squash}"}, []),
        (BASE, {"search": "{trials: 80}"}, ["search: search.trials was 40 and is 80"]),
        (BASE, {"search": "{pruner: asha}"}, ["search: search.pruner was 'median' and is 'asha'"]),
        (BASE, {"search": "{timeout: 60}"}, ["search: search.timeout was 0.0 and is 60.0"]),
        (BASE, {"search": "{seed: 1}"}, ["other: search.seed was 0 and is 1"]),
        (BASE, {"search": "{enqueue: [{name: a}]}"}, ["search: search.enqueue gained the row 'a'"]),
        (BASE, {"data": "{source: orl_faces, image_size: 96}"}, ["other: data.image_size was 224 and is 96"]),
        (("dropout: [0.0, 0.5, 0.8]", BASE[1]), {}, ["gained: recipe.dropout gained 0.8"]),
        ((*BASE, "head_widths: [[], [8]]"), {}, ["gained: recipe.head_widths gained 8"]),
        ((BASE[0], "epochs: [10, 20]"), {}, ["gained: recipe.epochs gained 20"]),
        (("dropout: 0.5", BASE[1]), {}, ["other: recipe.dropout lost 0.0"]),
        ((BASE[0], "epochs: 20"), {}, ["other: recipe.epochs was 10 and is 20"]),
        (("dropout: [0.5, 0]", BASE[1]), {}, ["other: recipe.dropout lists its choices in another order: 0.0, 0.5, now 0.5, 0.0"]),
        (("dropout: [0.5, 0, 1e-1]", BASE[1]), {},
         ["other: recipe.dropout lists its old choices in another order", "gained: recipe.dropout gained 0.1"]),
        (("dropout: [0.0, 0.4]", BASE[1]), {}, ["other: recipe.dropout lost 0.5", "gained: recipe.dropout gained 0.4"]),
    ],
)  # fmt: skip
def test_differences_are_sentences_with_a_kind(
    space_of: Build, lines: tuple[str, ...], sections: dict[str, str], expected: list[str]
) -> None:
    found = differences(space_of(*BASE), space_of(*lines, **sections))
    assert [f"{difference.kind}: {difference}" for difference in found] == expected


def test_rows_are_compared_by_what_they_run(space_of: Build) -> None:
    old = space_of(*BASE, search="{enqueue: [{name: a, dropout: 0.5}, {name: b}]}")
    same = space_of(*BASE, "lr_multipliers: {top: [1, 0.5]}", search="{enqueue: [{name: a, dropout: 0.5}, {name: b}]}")
    assert [d.kind for d in differences(old, same)] == ["gained"]
    other = space_of(*BASE, search="{enqueue: [{name: a, dropout: 0.0}]}")
    assert [(d.kind, str(d)) for d in differences(old, other)] == [
        ("other", "search.enqueue gives the row 'a' other values"),
        ("search", "search.enqueue lost the row 'b'"),
    ]


def test_a_moved_file_is_no_difference(space_of: Build) -> None:
    assert differences(*(space_of(data=f"{{source: 'folder:x', root: {root}}}") for root in ("/a", "/b"))) == []
