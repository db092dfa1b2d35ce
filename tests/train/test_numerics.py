"""What is measured once: numerics by opening, and whether keeping the frozen part's values pays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from searchft.data.images import Images
from searchft.features import FeatureStore
from searchft.recipe import Keeping, Numerics, Recipe, SpaceFacts, keeping_name, numerics_name, open_parameters
from searchft.space import parse_space
from searchft.train import numerics as numerics_module
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
    return measure(parse_space(SPACE), facts, faces, tmp_path_factory.mktemp("cache") / "features")


def test_every_opening_is_measured_once_and_told(measured, facts: SpaceFacts, faces: Images, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert len(measured.numerics) == len(measured.keeping) == len(measured.notes) == 2
    assert all(keep.seconds_per_image > 0 for keep in measured.keeping.values())
    assert all(keep.keep in ("memory", "disk", "recompute") and keep.reason for keep in measured.keeping.values())
    known = replace(facts, numerics=measured.numerics, keeping=measured.keeping)
    assert not measure(parse_space(SPACE), known, faces, tmp_path / "features").keeping


def test_exact_precision_is_not_measured_but_keeping_is(faces: Images, facts: SpaceFacts, tmp_path: Path) -> None:
    found = measure(parse_space(SPACE, overrides=["recipe.precision=fp32"]), facts, faces, tmp_path / "features")
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
    name = keeping_name(recipe, open_parameters(recipe, facts.backbones[recipe.architecture()]))
    refusing = replace(facts, keeping={name: Keeping("recompute", "by decree", 1, 1.0)})
    with_store = [replace(r, seconds=0.0, stored_s=0.0) for r in fit(recipe, TrainingData(faces, facts, 32, store))]
    assert store.entries()
    store.clear()
    data = TrainingData(faces, refusing, 32, store)
    assert [replace(r, seconds=0.0, stored_s=0.0) for r in fit(recipe, data)] == with_store
    assert not [entry for entry in store.entries() if not entry.held]


@pytest.mark.slow
def test_each_precision_of_a_space_is_measured(faces: Images, facts: SpaceFacts, tmp_path: Path) -> None:
    """Values of one precision are no values of the other, and `auto` behind another precision is measured all the same."""
    changes = ["recipe.precision=[fp32,auto]", "recipe.unfrozen=layer4"]
    found = measure(parse_space(SPACE, overrides=changes), facts, faces, tmp_path / "features")
    assert len(found.keeping) == 2 and len(found.numerics) == 1


@pytest.mark.slow
def test_where_the_edge_does_not_fit_a_narrower_place_is_kept(
    faces: Images, facts: SpaceFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened inside a block, the trained part reads the block's input and what is inside: the input alone is smaller."""
    space = parse_space(SPACE, overrides=["recipe.precision=fp32", "recipe.unfrozen=layer2.0.conv2"])
    (edge,) = measure(space, facts, faces, tmp_path / "features").keeping.values()
    assert edge.at == "" and edge.size_bytes == 120 * (64 * 8 * 8 + 128 * 4 * 4) * 4
    monkeypatch.setattr(numerics_module, "store_budget_bytes", lambda folder: edge.size_bytes - 1)
    found = measure(space, facts, faces, tmp_path / "features")
    ((name, narrow),) = found.keeping.items()
    assert narrow.keep == "memory" and narrow.at.startswith("layer1.1.")
    assert narrow.size_bytes == 120 * 64 * 8 * 8 * 4
    assert 0 < narrow.rest_seconds_per_image < narrow.seconds_per_image
    assert f"kept at {narrow.at}: 16.4 kB an image instead of 24.6 kB at the edge" in found.notes[0]
    known = replace(facts, keeping=found.keeping)
    assert SpaceFacts.from_json(known.to_json()) == known
    recipe = space.resolve({})
    assert keeping_name(recipe, open_parameters(recipe, facts.backbones[recipe.architecture()])) == name
    data = TrainingData(faces, known, 32, FeatureStore(tmp_path / "features", narrow.size_bytes))
    kept = [replace(r, seconds=0.0, stored_s=0.0) for r in fit(recipe, data)]
    assert sum(entry.size_bytes for entry in data.store.entries()) == narrow.size_bytes  # type: ignore[union-attr]
    assert kept == [replace(r, seconds=0.0, stored_s=0.0) for r in fit(recipe, TrainingData(faces, facts, 32))]


def test_facts_of_a_study_from_before_shallower_cuts_still_load(facts: SpaceFacts) -> None:
    plain = replace(facts, keeping={"a": Keeping("memory", "so", 1, 0.5)}).to_json()
    for field in ("at", "rest_seconds_per_image"):
        del plain["keeping"]["a"][field]
    assert SpaceFacts.from_json(plain).keeping["a"] == Keeping("memory", "so", 1, 0.5, "", 0.0)


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
