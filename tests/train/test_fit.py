"""What `fit` promises: exact repeats, exact resumes, the store changes nothing, frozen means frozen."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from searchft.data.images import Images
from searchft.errors import StorageError
from searchft.features.store import FeatureStore
from searchft.models import build_model
from searchft.recipe import Recipe, SpaceFacts, resolve
from searchft.train.checkpoints import TrialFolder, check_delta
from searchft.train.fit import fit
from searchft.train.inputs import TrainingData
from searchft.train.network import KEPT, Networks
from searchft.train.results import DivergedError, EpochResult

Run = Callable[..., list[EpochResult]]


@pytest.fixture
def run(facts: SpaceFacts, faces: Images) -> Run:
    """`run(recipe, folder, …)`: the results of a fit with the clock taken out, so that they compare."""

    def fitted(
        recipe: Recipe,
        folder: Path | None = None,
        stop_after: int | None = None,
        store: FeatureStore | None = None,
        data: TrainingData | None = None,
    ) -> list[EpochResult]:
        trial = resolve(recipe, facts)
        where = TrialFolder(folder, trial.key) if folder is not None else None
        results = itertools.islice(fit(trial, data or TrainingData(faces, 32, store), where), stop_after)
        return [replace(result, seconds=0.0, stored_s=0.0, replayed=False) for result in results]

    return fitted


def same_weights(one: Path, other: Path) -> bool:
    a, b = (load_file(folder / "best.safetensors") for folder in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "change",
    [
        {"unfrozen": "head"},
        {"unfrozen": "layer4", "head_widths": (32,), "dropout": 0.5},
        {"horizontal_flip": 0.5, "rotation": 20.0, "augment_views": 2},
        pytest.param({"unfrozen": "layer3", "norm": "frozen"}, marks=pytest.mark.slow),
        pytest.param({"unfrozen": "all", "parameters": "bias"}, marks=pytest.mark.slow),
    ],
    ids=lambda c: "-".join(map(str, c.values())),
)
def test_the_store_changes_no_number_in_fp32(
    run: Run, change: dict[str, object], recipe: Recipe, store: FeatureStore, tmp_path: Path
) -> None:
    chosen = replace(recipe, epochs=2, **change)
    with_store = run(chosen, tmp_path / "a", store=store)
    without = run(chosen, tmp_path / "b", store=FeatureStore(tmp_path / "small", 1000))
    assert store.entries() and with_store == without
    assert same_weights(tmp_path / "a", tmp_path / "b")


def test_a_resumed_fit_equals_an_uninterrupted_one(run: Run, recipe: Recipe, tmp_path: Path) -> None:
    chosen = replace(recipe, unfrozen="layer4", optimizer="adam", lr=1e-3, epochs=4, dropout=0.3, head_widths=(16,))
    whole = run(chosen, tmp_path / "whole")
    run(chosen, tmp_path / "cut", stop_after=2)
    resumed = run(chosen, tmp_path / "cut")
    assert resumed == whole
    assert same_weights(tmp_path / "whole", tmp_path / "cut")


def test_epochs_of_an_earlier_run_are_replayed_and_marked(
    run: Run, faces: Images, facts: SpaceFacts, recipe: Recipe, tmp_path: Path
) -> None:
    run(recipe, tmp_path, stop_after=2)
    folder = TrialFolder(tmp_path, recipe.key(facts))
    assert [r.replayed for r in fit(resolve(recipe, facts), TrainingData(faces, 32), folder)] == [True, True, False]
    assert [r.replayed for r in fit(resolve(recipe, facts), TrainingData(faces, 32), folder)] == [True, True, True]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "another recipe's"])
def test_a_damaged_checkpoint_is_noticed_and_the_trial_runs_again(
    run: Run, damage: str, faces: Images, facts: SpaceFacts, recipe: Recipe, tmp_path: Path
) -> None:
    whole = run(recipe, tmp_path)
    last = tmp_path / "last.ckpt"
    content = bytearray(last.read_bytes())
    if damage == "truncated":
        last.write_bytes(content[:-20])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        last.write_bytes(content)
    key = "0" * 20 if damage == "another recipe's" else recipe.key(facts)
    results = list(fit(resolve(recipe, facts), TrainingData(faces, 32), TrialFolder(tmp_path, key)))
    assert not any(r.replayed for r in results)
    assert [replace(r, seconds=0.0, stored_s=0.0) for r in results] == whole


def test_what_ran_before_in_a_worker_changes_nothing(run: Run, faces: Images, recipe: Recipe, tmp_path: Path) -> None:
    """A network is shared by trials that train the same parameters; heads, groups of rates and random states are not."""
    chosen = replace(recipe, unfrozen="layer4", lr_multipliers=(("top", 0.5),), head_widths=(16,), dropout=0.5, epochs=2)
    cold = run(chosen, tmp_path / "cold")
    data = TrainingData(faces, 32)
    run(replace(recipe, unfrozen=1, lr_multipliers=(("backbone", 0.1),), epochs=1), data=data)
    torch.rand(7)
    assert run(chosen, tmp_path / "warm", data=data) == cold
    assert same_weights(tmp_path / "cold", tmp_path / "warm")


def test_an_evicted_network_is_freed_at_once(facts: SpaceFacts, recipe: Recipe) -> None:
    """Before, 78 MB of each ResNet-18 stayed: networks refer to themselves, and the collector looks rarely."""
    trial, networks = resolve(replace(recipe, unfrozen="head"), facts), Networks()
    gc.disable()
    try:
        first = weakref.ref(networks.get(trial, trial.opening, 32, torch.device("cpu"), 0))
        for side in range(33, 33 + KEPT):
            networks.get(trial, trial.opening, side, torch.device("cpu"), 0)
        assert first() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("norm", ["frozen", "affine", "stats"])
def test_only_what_is_open_is_in_the_delta(run: Run, norm: str, facts: SpaceFacts, recipe: Recipe, tmp_path: Path) -> None:
    chosen = replace(recipe, unfrozen="layer4", norm=norm, epochs=1)
    run(chosen, tmp_path)
    backbone, opening = resolve(chosen, facts).backbone, resolve(chosen, facts).opening
    statistics = {f"{n}.{b}" for n in opening.train_norms for b in ("running_mean", "running_var", "num_batches_tracked")}
    delta = load_file(tmp_path / "best.safetensors")
    assert set(delta) == {*opening.parameters, *statistics, "fc.weight", "fc.bias"}
    fresh = build_model(chosen, backbone, 40, 0).state_dict()
    moved = {name for name in delta if not torch.equal(delta[name], fresh[name])}
    assert {"layer4.1.conv2.weight", "fc.weight"} <= moved


@pytest.mark.slow
def test_the_head_first_then_the_rest(run: Run, facts: SpaceFacts, recipe: Recipe, tmp_path: Path) -> None:
    chosen = replace(recipe, unfrozen="layer4", epochs=3, head_first_epochs=2, optimizer="adam", lr=1e-3)
    probe = run(replace(chosen, unfrozen="head", head_first_epochs=0, epochs=2))
    both = run(chosen, tmp_path)
    assert len(both) == 3 and len(probe) == 2
    assert any("layer4" in name for name in TrialFolder(tmp_path, chosen.key(facts)).load().state)  # type: ignore[union-attr]
    for stop in (1, 2):
        run(chosen, tmp_path / f"cut{stop}", stop_after=stop)
        assert run(chosen, tmp_path / f"cut{stop}") == both


def test_a_loss_that_is_no_number_ends_the_fit_with_its_reason(run: Run, recipe: Recipe) -> None:
    with pytest.raises(DivergedError, match=r"the training loss became (nan|inf) in epoch"):
        run(replace(recipe, unfrozen="all", lr=1e30, epochs=5))


def test_patience_stops_early(run: Run, recipe: Recipe) -> None:
    results = run(replace(recipe, lr=1e-12, epochs=9, patience=2))
    best = max(range(len(results)), key=lambda i: (results[i].val_accuracy, -i))
    assert len(results) == best + 3 < 9


def test_steps_between_epochs_can_be_validated(run: Run, recipe: Recipe) -> None:
    results = run(replace(recipe, validate_every=2, epochs=2))
    assert [step for r in results for step, _, _ in r.step_curve] == [2, 4, 6, 8]


@pytest.mark.slow
def test_augmented_images_differ_from_epoch_to_epoch_and_repeat_exactly(run: Run, recipe: Recipe, store: FeatureStore) -> None:
    augmented = replace(recipe, horizontal_flip=0.5, rotation=20.0, epochs=2)
    first = run(augmented, store=store)
    assert first == run(augmented)
    assert first != run(replace(recipe, epochs=2))


def test_an_epoch_result_survives_json() -> None:
    result = EpochResult(3, 0.5, 0.25, float("nan"), 0.75, 0.7, 1.5, ((40, 0.5, 0.6),))
    back = EpochResult.from_json(result.to_json())
    assert dataclasses.replace(back, val_loss=0.0) == dataclasses.replace(result, val_loss=0.0)
    assert back.val_loss != back.val_loss


def test_a_disk_that_fills_under_the_store_ends_the_fit_with_what_to_do(run: Run, recipe: Recipe, tmp_path: Path) -> None:
    class Full(FeatureStore):
        def values(self, *args: object) -> None:  # type: ignore[override]
            self.refusal = f"the disk is full ({self.root})"

    with pytest.raises(StorageError, match="Free some space and run again, or run with --no-store"):
        run(recipe, store=Full(tmp_path, 10**9))


def test_damaged_best_weights_are_noticed(run: Run, facts: SpaceFacts, recipe: Recipe, tmp_path: Path) -> None:
    """safetensors has no checksum: a flipped weight would be exported without a word."""
    whole = run(recipe, tmp_path, stop_after=2)
    best = tmp_path / "best.safetensors"
    content = bytearray(best.read_bytes())
    content[-5] ^= 1
    best.write_bytes(content)
    with pytest.raises(StorageError, match=r"best\.safetensors is damaged"):
        check_delta(best)
    assert TrialFolder(tmp_path, recipe.key(facts)).load() is None
    assert run(recipe, tmp_path, stop_after=2) == whole
    check_delta(best)
