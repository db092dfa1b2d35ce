"""A recipe in words says what tells trials apart, and nothing that has no effect."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from searchft.recipe import Recipe, SpaceFacts
from searchft.report.words import recipe_in_words, varying_fields, weights_in_words
from searchft.space import Space, parse_space


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"unfrozen": "head", "head_widths": ()}, "head only, linear head, batch 64, lr 1e-3"),
        (
            {
                "unfrozen": "layer3",
                "head_widths": (256, 128),
                "dropout": 0.5,
                "lr_multipliers.top": 0.6,
                "lr_multipliers.deep": 0.1,
            },
            "last 2 stages open, head 256+128 with dropout 0.5, batch 64, lr 1e-3 (top ×0.6, deep ×0.1)",
        ),
        (
            {"unfrozen": "layer4", "lr": 3e-4, "lr_multipliers.top": 0.6, "lr_multipliers.deep": 0.1},
            "last stage open, linear head, batch 64, lr 3e-4 (top ×0.6)",
        ),
        ({"unfrozen": "all", "lr_multipliers.deep": 0.4}, "everything open, linear head, batch 64, lr 1e-3 (deep ×0.4)"),
    ],
)
def test_a_recipe_is_said_as_a_person_would(space: Space, facts: SpaceFacts, chosen: dict[str, Any], words: str) -> None:
    assert recipe_in_words(space.resolve(chosen), facts, varying_fields(space)) == words


def test_what_is_the_same_in_all_trials_is_not_said(space: Space, facts: SpaceFacts) -> None:
    recipe = dataclasses.replace(space.resolve({}), optimizer="adamw", weight_decay=0.05)
    assert "adamw" not in recipe_in_words(recipe, facts, varying_fields(space))
    words = recipe_in_words(recipe, facts, {"optimizer", "weight_decay"})
    assert "adamw" in words and "weight decay 0.05" in words


@pytest.mark.parametrize(
    ("weights", "source", "words"),
    [
        ("none", "random", "random weights"),
        ("package", "package lite (lite0.pth)", "weights from package lite (lite0.pth)"),
        ("in1k", "/hub/x.pth", "weights in1k from /hub/x.pth"),
        ("in1k", "in1k", "weights in1k"),
    ],
)
def test_weights_are_said_without_saying_it_twice(facts: SpaceFacts, weights: str, source: str, words: str) -> None:
    backbone = dataclasses.replace(next(iter(facts.backbones.values())), weights=weights, weights_source=source)
    assert weights_in_words(backbone) == words


def test_a_varying_value_without_effect_is_not_said(space: Space, facts: SpaceFacts) -> None:
    recipe = dataclasses.replace(space.resolve({}), optimizer="adam", momentum=0.5, dropout=0.5, head_widths=())
    words = recipe_in_words(recipe, facts, {"momentum", "dropout"})
    assert "momentum" not in words and "dropout" not in words


def test_edits_of_another_backbone_are_not_said(facts: SpaceFacts) -> None:
    recipe = Recipe("torchvision/resnet18", edits=(("torchvision/alexnet", (("features.keep", 6),)),))
    assert "alexnet" not in recipe_in_words(recipe, facts, {"edits"}) and "no edits" in recipe_in_words(
        recipe, facts, {"edits"}
    )
    assert "features.keep=6" in recipe_in_words(dataclasses.replace(recipe, backbone="torchvision/alexnet"), facts, {"edits"})


def test_a_recipe_that_the_facts_do_not_know_still_has_words(space: Space, facts: SpaceFacts) -> None:
    stranger = dataclasses.replace(space.resolve({"unfrozen": "layer4"}), backbone="timm/other")
    assert "layer4" in recipe_in_words(stranger, facts)


def test_a_strategy_that_varies_makes_its_fields_vary() -> None:
    space = parse_space("""
study: s
data: {source: orl_faces, image_size: 32}
recipe: {backbone: torchvision/resnet18, weights: none, strategy: [head, full]}
""")
    assert "unfrozen" in varying_fields(space) and "strategy" not in varying_fields(space)
