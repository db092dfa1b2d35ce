"""A recipe in words says what tells trials apart, and nothing that has no effect."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from searchft.recipe import Recipe, SpaceFacts
from searchft.report.words import recipe_in_words, varying_fields, weights_in_words
from searchft.space import Space, parse_space

LR = {"lr_multipliers.top": 0.6, "lr_multipliers.deep": 0.1}


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"unfrozen": "head", "head_widths": ()}, "head only, linear head, batch 64, lr 1e-3"),
        (
            {"unfrozen": "layer3", "head_widths": (256, 128), "dropout": 0.5, **LR},
            "last 2 stages open, head 256+128 with dropout 0.5, batch 64, lr 1e-3 (top ×0.6, deep ×0.1)",
        ),
        ({"unfrozen": "layer4", "lr": 3e-4, **LR}, "last stage open, linear head, batch 64, lr 3e-4 (top ×0.6)"),
        ({"unfrozen": "all", "lr_multipliers.deep": 0.4}, "everything open, linear head, batch 64, lr 1e-3 (deep ×0.4)"),
    ],
)
def test_a_recipe_is_worded_as_a_person_would(space: Space, facts: SpaceFacts, chosen: dict[str, Any], words: str) -> None:
    assert recipe_in_words(space.resolve(chosen), facts, varying_fields(space)) == words


@pytest.mark.parametrize(
    ("values", "varying", "some", "none"),
    [
        ({"optimizer": "adamw", "weight_decay": 0.05}, (), "batch 64", "adamw"),
        ({"optimizer": "adamw", "weight_decay": 0.05}, ("optimizer", "weight_decay"), "adamw, lr 1e-3, weight decay 0.05", "?"),
        ({"optimizer": "adam", "momentum": 0.5}, ("momentum",), "batch 64", "momentum"),
        ({"dropout": 0.5, "head_widths": ()}, ("dropout",), "linear head", "dropout"),
        ({"edits": (("torchvision/alexnet", (("features.keep", 6),)),)}, ("edits",), "no edits", "alexnet"),
        ({"unfrozen": "layer4", "backbone": "timm/other"}, (), "open: layer4", "stage"),
    ],
    ids=("the same in all trials", "varies", "no momentum in adam", "no hidden layer", "another's edits", "unknown facts"),
)
def test_only_what_varies_and_has_an_effect_is_worded(
    space: Space, facts: SpaceFacts, values: dict[str, Any], varying: tuple[str, ...], some: str, none: str
) -> None:
    words = recipe_in_words(dataclasses.replace(space.resolve({}), **values), facts, varying)
    assert some in words and none not in words


def test_edits_of_its_own_backbone_are_worded(facts: SpaceFacts) -> None:
    recipe = Recipe("torchvision/alexnet", edits=(("torchvision/alexnet", (("features.keep", 6),)),))
    assert "features.keep=6" in recipe_in_words(recipe, facts, {"edits"})


@pytest.mark.parametrize(
    ("weights", "source", "words"),
    [
        ("none", "random", "random weights"),
        ("package", "package lite (lite0.pth)", "weights from package lite (lite0.pth)"),
        ("in1k", "/hub/x.pth", "weights in1k from /hub/x.pth"),
        ("in1k", "in1k", "weights in1k"),
    ],
)
def test_weights_are_named_once(facts: SpaceFacts, weights: str, source: str, words: str) -> None:
    backbone = dataclasses.replace(next(iter(facts.backbones.values())), weights=weights, weights_source=source)
    assert weights_in_words(backbone) == words


def test_a_strategy_that_varies_makes_its_fields_vary() -> None:
    space = parse_space("""
study: s
data: {source: orl_faces, image_size: 32}
recipe: {backbone: torchvision/resnet18, weights: none, strategy: [head, full]}
""")
    assert "unfrozen" in varying_fields(space) and "strategy" not in varying_fields(space)
