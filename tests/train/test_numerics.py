"""Numbers by rule: one table, and facts alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from searchft.data.images import Images
from searchft.features import FeatureStore
from searchft.machine import Processor
from searchft.models import describe_backbone
from searchft.recipe import Recipe, SpaceFacts, resolve
from searchft.recipe.numerics import DEPTHWISE, HEAD_ALONE, OTHERS, RULES, Numerics, find_rule, rule_for
from searchft.train.fit import fit
from searchft.train.inputs import TrainingData

CPU, FAST_CPU = Processor("cpu", "plain"), Processor("cpu", "fast", native_bf16=True)
CARD, OLD_CARD = Processor("cuda", "card", native_bf16=True), Processor("cuda", "old card")


@pytest.mark.parametrize(
    ("precision", "processor", "trains", "frozen", "trainable", "flags"),
    [
        ("fp32", FAST_CPU, OTHERS, "float32", "float32", (False, False, False)),
        ("bf16", CPU, DEPTHWISE, "bfloat16", "bfloat16", (True, False, False)),
        ("auto", FAST_CPU, HEAD_ALONE, "bfloat16", "float32", (True, True, False)),
        ("auto", FAST_CPU, OTHERS, "bfloat16", "bfloat16", (True, True, False)),
        ("auto", FAST_CPU, DEPTHWISE, "bfloat16", "float32", (True, True, True)),
        ("auto", CPU, OTHERS, "float32", "float32", (True, True, False)),
        ("auto", CPU, DEPTHWISE, "float32", "float32", (True, True, True)),
        ("auto", CARD, DEPTHWISE, "bfloat16", "bfloat16", (True, True, False)),
        ("auto", OLD_CARD, OTHERS, "float32", "float32", (True, True, False)),
        ("auto", Processor("mps"), OTHERS, "float32", "float32", (False, False, False)),
    ],
)
def test_the_table(
    precision: str, processor: Processor, trains: str, frozen: str, trainable: str, flags: tuple[bool, bool, bool]
) -> None:
    rule = find_rule(precision, processor, trains)
    assert rule.numerics == Numerics(frozen, trainable, *flags)
    assert rule.why and all(row.why for row in RULES)


@pytest.mark.parametrize(
    ("backbone", "unfrozen", "trains"),
    [
        ("torchvision/resnet18", "all", "others"),
        ("torchvision/mobilenet_v2", "head", "head"),
        ("torchvision/mobilenet_v2", "features.17", "others"),  # 1.0 % of its numbers
        ("torchvision/mobilenet_v2", "all", "depthwise"),  # 2.9 %
        ("torchvision/convnext_tiny", "all", "others"),  # 1.2 %: linear layers dominate it
    ],
)
def test_how_much_of_what_trains_is_depthwise_follows_from_facts(
    facts: SpaceFacts, backbone: str, unfrozen: str, trains: str
) -> None:
    recipe = Recipe(backbone, weights="none", unfrozen=unfrozen)
    known = SpaceFacts(facts.data, {recipe.architecture(): describe_backbone(recipe, 0)}, FAST_CPU)
    assert rule_for(recipe, known).trains == trains
    assert rule_for(recipe, SpaceFacts.from_json(known.to_json())) == rule_for(recipe, known)


def test_numerics_are_part_of_the_key_and_follow_from_the_pinned_processor(facts: SpaceFacts, recipe: Recipe) -> None:
    auto = replace(recipe, precision="auto")
    fast, named = replace(facts, processor=FAST_CPU), replace(facts, processor=replace(FAST_CPU, name="another"))
    assert auto.key(fast) == auto.key(named) != auto.key(facts)
    assert recipe.key(fast) == recipe.key(facts)
    assert resolve(auto, fast).numerics.frozen_dtype == "bfloat16"


def test_a_trial_is_resolved_once_and_whole(facts: SpaceFacts, recipe: Recipe) -> None:
    asked = replace(recipe, unfrozen="layer4", head_first_epochs=1, batch_size=4096, momentum=0.9)
    trial = resolve(asked, facts)
    assert trial.recipe.batch_size == facts.data.train_size and trial.key == asked.key(facts)
    assert trial.canonical == asked.canonical(facts)
    assert trial.opening.parameters and not trial.head_opening.parameters
    open_sizes = [p.size for p in trial.backbone.parameters if p.name in trial.opening.parameters]
    assert trial.trained_parameters == sum(open_sizes) + 40 * (512 + 1)


@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_bfloat16_trains_and_agrees_roughly(
    precision: str, faces: Images, facts: SpaceFacts, recipe: Recipe, store: FeatureStore
) -> None:
    chosen = replace(recipe, unfrozen="layer4", lr=1e-3, epochs=2)
    exact = list(fit(resolve(chosen, facts), TrainingData(faces, 32)))
    known = replace(facts, processor=FAST_CPU)
    fast = list(fit(resolve(replace(chosen, precision=precision), known), TrainingData(faces, 32, store)))
    assert exact[0].train_loss == pytest.approx(fast[0].train_loss, rel=0.05)
