"""What a trial is expected to hold, against what autograd and the optimiser really keep."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from searchft.models import build_model, freeze, head_parameters, set_modes
from searchft.recipe import OPTIMIZERS, resolve
from searchft.train.memory import PROCESS_BYTES, PeakMemory, Tape, saved_bytes
from searchft.train.optimizers import build_optimizer

SIDE = 32


def model_of(recipe, facts):
    trial = resolve(recipe, facts)
    backbone, opening = trial.backbone, trial.opening
    model = build_model(recipe, backbone, 40, head_seed=0)
    freeze(model, backbone, opening)
    set_modes(model, backbone, opening, True)
    return model, backbone, opening


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_an_optimiser_keeps_as_many_numbers_as_the_table_says(optimizer, recipe, facts):
    recipe = dataclasses.replace(recipe, unfrozen="layer4", optimizer=optimizer, momentum=0.9)
    model, backbone, opening = model_of(recipe, facts)
    built = build_optimizer(recipe, opening, dict(model.named_parameters()), head_parameters(model, backbone))
    model(torch.randn(4, 3, SIDE, SIDE)).sum().backward()
    built.step()
    kept = sum(t.numel() for state in built.state.values() for t in state.values() if t.dim() > 0)
    assert kept == OPTIMIZERS[optimizer].states * resolve(recipe, facts).trained_parameters


@pytest.mark.parametrize("unfrozen", ["head", "layer4", "all"])
def test_the_estimate_at_any_batch_size_is_what_a_real_step_keeps(unfrozen, recipe, facts):
    peak = PeakMemory(SIDE)
    base = dataclasses.replace(recipe, unfrozen=unfrozen, batch_size=1)
    model, backbone, _ = model_of(base, facts)
    trained = resolve(base, facts).trained_parameters
    numbers = 2 * sum(p.size for p in backbone.parameters) + trained * (2 + OPTIMIZERS["sgd"].states)
    for batch in (8, 64):
        told = peak(resolve(dataclasses.replace(base, batch_size=batch), facts)) - PROCESS_BYTES - 4 * numbers
        assert told == pytest.approx(saved_bytes(model, SIDE, batch, 40, device="cpu"), rel=0.05, abs=200_000)


def test_a_batch_larger_than_the_set_counts_as_the_set(recipe, facts):
    peak = PeakMemory(SIDE)
    whole, more = (resolve(dataclasses.replace(recipe, batch_size=size), facts) for size in (80, 4096))
    assert peak(whole) == peak(more)


@pytest.mark.parametrize(
    ("unfrozen", "expected"), [("head", 512), ("layer4", 256 * 2 * 2), ("layer2.0.conv2", 64 * 8 * 8 + 128 * 4 * 4), ("all", 0)]
)
@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2)])
def test_what_crosses_the_edge_is_found_without_splitting(unfrozen, expected, dtype, size, recipe, facts):
    model, backbone, opening = model_of(dataclasses.replace(recipe, unfrozen=unfrozen), facts)
    trained = {*opening.parameters, *head_parameters(model, backbone)}
    assert Tape(model, SIDE).edge_bytes(trained, dtype) == expected * size
