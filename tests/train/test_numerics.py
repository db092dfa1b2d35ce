"""What is measured once: numerics by opening, and whether keeping the frozen part's values pays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from searchft.data.images import Images
from searchft.features import FeatureStore
from searchft.recipe import Keeping, Numerics, Recipe, SpaceFacts, numerics_name, open_parameters
from searchft.space import parse_space
from searchft.train.fit import fit
from searchft.train.inputs import TrainingData
from searchft.train.numerics import in_words, measure

SPACE = """
study: measured
data: {source: orl_faces, image_size: 32, split: {train: 2, val: 1, test: 1}}
recipe:
  backbone: torchvision/resnet18
  weights: none
  unfrozen: [head, layer4]
  epochs: 2
"""


@pytest.fixture(scope="module")
def measured(faces: Images, facts: SpaceFacts, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    return measure(parse_space(SPACE), facts, faces, tmp_path_factory.mktemp("store"))


def test_every_opening_is_measured_once_and_told(measured, facts: SpaceFacts, faces: Images, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert len(measured.numerics) == len(measured.keeping) == len(measured.notes) == 2
    assert all(keep.seconds_per_image > 0 for keep in measured.keeping.values())
    assert all(keep.keep in ("memory", "disk", "recompute") and keep.reason for keep in measured.keeping.values())
    known = replace(facts, numerics=measured.numerics, keeping=measured.keeping)
    assert not measure(parse_space(SPACE), known, faces, tmp_path).keeping


def test_exact_precision_is_not_measured_but_keeping_is(faces: Images, facts: SpaceFacts, tmp_path: Path) -> None:
    found = measure(parse_space(SPACE, overrides=["recipe.precision=fp32"]), facts, faces, tmp_path)
    assert not found.numerics
    assert len(found.keeping) == 2


def test_what_was_chosen_is_part_of_the_key(facts: SpaceFacts, recipe: Recipe) -> None:
    auto = replace(recipe, precision="auto")
    name = numerics_name(auto, open_parameters(auto, facts.backbones[auto.architecture()]))
    fast = replace(facts, numerics={name: Numerics("bfloat16", "bfloat16", True, True)})
    assert auto.key(fast) != auto.key(facts)
    assert recipe.key(fast) == recipe.key(facts)


def test_what_is_not_worth_keeping_is_not_stored_and_the_numbers_stay(
    faces: Images, facts: SpaceFacts, recipe: Recipe, store: FeatureStore
) -> None:
    name = numerics_name(recipe, open_parameters(recipe, facts.backbones[recipe.architecture()]))
    refusing = replace(facts, keeping={name: Keeping("recompute", "by decree", 1, 1.0)})
    with_store = [replace(r, seconds=0.0, stored_s=0.0) for r in fit(recipe, TrainingData(faces, facts, 32, store))]
    assert store.entries()
    store.clear()
    data = TrainingData(faces, refusing, 32, store)
    assert [replace(r, seconds=0.0, stored_s=0.0) for r in fit(recipe, data)] == with_store
    assert not [entry for entry in store.entries() if not entry.held]


@pytest.mark.parametrize(
    ("numerics", "words"),
    [
        (Numerics(), "frozen part float32; trained part float32"),
        (
            Numerics("bfloat16", "float32", True, True),
            "frozen part bfloat16, BatchNorm folded; trained part float32, channels last",
        ),
    ],
)
def test_numerics_in_words(numerics: Numerics, words: str) -> None:
    assert in_words(numerics) == words


def test_bfloat16_trains_and_agrees_roughly(faces: Images, facts: SpaceFacts, recipe: Recipe, store: FeatureStore) -> None:
    chosen = replace(recipe, unfrozen="layer4", lr=1e-3, epochs=2)
    exact = list(fit(chosen, TrainingData(faces, facts, 32)))
    fast = list(fit(replace(chosen, precision="bf16"), TrainingData(faces, facts, 32, store)))
    assert exact[0].train_loss == pytest.approx(fast[0].train_loss, rel=0.05)
