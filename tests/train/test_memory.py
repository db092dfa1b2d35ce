"""What a trial is expected to hold, against what autograd and the optimizer really keep; where values are kept, said in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from searchft.machine import Processor
from searchft.models import head_parameters
from searchft.recipe import OPTIMIZERS, SpaceFacts, resolve
from searchft.space import parse_space
from searchft.train.memory import PROCESS_BYTES, PeakMemory, Tape, choose_keeping, explain_openings, saved_bytes, training_model
from searchft.train.optimizers import build_optimizer

SIDE = 32


def model_of(recipe, facts):
    trial = resolve(recipe, facts)
    return training_model(recipe, trial.backbone, trial.opening, 40), trial.backbone, trial.opening


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_an_optimizer_keeps_as_many_numbers_as_the_table_says(optimizer, recipe, facts):
    recipe = replace(recipe, unfrozen="layer4", optimizer=optimizer, momentum=0.9)
    model, backbone, opening = model_of(recipe, facts)
    built = build_optimizer(recipe, opening, dict(model.named_parameters()), head_parameters(model, backbone))
    model(torch.randn(4, 3, SIDE, SIDE)).sum().backward()
    built.step()
    kept = sum(t.numel() for state in built.state.values() for t in state.values() if t.dim() > 0)
    assert kept == OPTIMIZERS[optimizer].states * resolve(recipe, facts).trained_parameters


@pytest.mark.parametrize("unfrozen", ["head", "layer4", "all"])
def test_the_estimate_at_any_batch_size_is_what_a_real_step_keeps(unfrozen, recipe, facts):
    peak = PeakMemory(SIDE)
    base = replace(recipe, unfrozen=unfrozen, batch_size=1)
    model, backbone, _ = model_of(base, facts)
    trained = resolve(base, facts).trained_parameters
    numbers = 2 * sum(p.size for p in backbone.parameters) + trained * (2 + OPTIMIZERS["sgd"].states)
    for batch in (8, 64):
        estimate = peak(resolve(replace(base, batch_size=batch), facts)) - PROCESS_BYTES - 4 * numbers
        assert estimate == pytest.approx(saved_bytes(model, SIDE, batch, 40, device="cpu"), rel=0.05, abs=200_000)


@pytest.mark.parametrize(
    ("unfrozen", "expected"), [("head", 512), ("layer4", 256 * 2 * 2), ("layer2.0.conv2", 64 * 8 * 8 + 128 * 4 * 4), ("all", 0)]
)
@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2)])
def test_what_crosses_the_edge_is_found_without_splitting(unfrozen, expected, dtype, size, recipe, facts):
    model, backbone, opening = model_of(replace(recipe, unfrozen=unfrozen), facts)
    trained = {*opening.parameters, *head_parameters(model, backbone)}
    assert Tape(model, SIDE).edge_bytes(trained, dtype) == expected * size


MB = 10**6


@pytest.mark.parametrize(
    ("bytes_per_image", "memory_bytes", "disk_bytes", "more", "keep", "words"),
    [
        (10_000, 20 * MB, 10 * MB, {}, "memory", "10 kB an image, 10 MB in all"),
        (10_000, 20 * MB - 2, 10 * MB, {}, "disk", "more than half of the 20 MB of free memory"),
        (10_000, 20 * MB, 10 * MB - 1, {}, "recompute", "10 MB in all, more than the 10 MB that the disk has"),
        (10_000, 20 * MB, 10 * MB, {"constant": False}, "recompute", "augment_views: n would keep n"),
        (10_000, 20 * MB, 10 * MB, {"why_whole": "cannot be traced"}, "recompute", "cannot be traced"),
        (0, 20 * MB, 10 * MB, {}, "recompute", "nothing is frozen"),
    ],
)
def test_memory_then_disk_then_nothing(
    bytes_per_image: int, memory_bytes: int, disk_bytes: int, more: dict[str, object], keep: str, words: str
) -> None:
    keeping = choose_keeping(bytes_per_image, 1000, memory_bytes, disk_bytes, **more)  # type: ignore[arg-type]
    assert keeping.keep == keep
    assert words in str(keeping)


SPACE = """
study: explained
data: {source: orl_faces, image_size: 32, split: {train: 2, val: 1, test: 1}}
recipe:
  backbone: torchvision/resnet18
  weights: none
  unfrozen: [head, layer4, all]
  precision: [fp32, auto]
"""


def test_every_opening_is_explained_in_a_line(facts: SpaceFacts, tmp_path: Path) -> None:
    lines = explain_openings(parse_space(SPACE), replace(facts, processor=Processor("cpu", "fast", native_bf16=True)), tmp_path)
    assert len(lines) == 6
    found = {(line.partition(":")[0].rpartition(" ")[2], "exact" in line): line for line in lines}
    assert "bfloat16 with BatchNorm folded in, trainable layers in float32" in found["head", False]
    assert "kept in memory (1.02 kB an image, 123 kB in all)" in found["head", False]
    assert "kept in memory (4.1 kB an image, 492 kB in all)" in found["layer4", True]
    assert "computed for every batch (nothing is frozen)" in found["all", True]


def test_a_large_space_is_explained_briefly(facts: SpaceFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchft.train.memory.MOST_LINES", 4)
    lines = explain_openings(parse_space(SPACE), facts, tmp_path)
    assert len(lines) == 5 and lines[-1].startswith("and 2 openings more")
