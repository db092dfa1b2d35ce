"""What is asked for exactly is not measured; what is measured is taken only where it is clearly faster and works."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from searchft.features import (
    Prefix,
    calibrate_prefix,
    calibrate_suffix,
    gathered_bytes_per_s,
    native_bf16,
    seconds_per_image,
    split_model,
)
from searchft.features import calibrate as calibrate_module
from searchft.recipe import Numerics


@pytest.fixture
def prefix() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2))
    model.requires_grad_(False)
    model[4].requires_grad_(True)
    split = split_model(
        model, lambda training: [setattr(m, "training", False) for m in model.modules()], torch.randn(2, 3, 8, 8)
    )
    assert split.prefix is not None
    return split.prefix


def test_asked_for_precision_is_not_measured(prefix: nn.Module) -> None:
    assert calibrate_prefix(prefix, torch.randn(2, 3, 8, 8), precision="fp32") == Numerics()
    assert calibrate_prefix(prefix, torch.randn(2, 3, 8, 8), precision="bf16").prefix_dtype == "bfloat16"

    def never(dtype: torch.dtype, channels_last: bool, padded: bool) -> None:
        raise AssertionError("measured")

    assert calibrate_suffix(never, precision="fp32", small_maps=True) == ("float32", False, False)
    assert calibrate_suffix(never, precision="bf16", small_maps=True) == ("bfloat16", True, False)


def test_every_way_runs_and_the_model_is_untouched(prefix: nn.Module) -> None:
    before = {name: value.clone() for name, value in prefix.state_dict().items()}
    started = time.perf_counter()
    numerics = calibrate_prefix(prefix, torch.randn(8, 3, 8, 8))
    assert time.perf_counter() - started < 10
    assert numerics.suffix_dtype == "float32"
    assert numerics.prefix_dtype == "float32" or native_bf16("cpu")
    assert all(torch.equal(before[name], value) for name, value in prefix.state_dict().items())
    Prefix(prefix, numerics, "cpu")(torch.randn(3, 3, 8, 8))


def _decreed_seconds(way: Numerics, seconds: dict[str, float]) -> float:
    names = [n for n, on in (("fold", way.fold), ("bfloat16", way.prefix_dtype == "bfloat16")) if on]
    names += ["channels_last"] if way.channels_last else []
    if " ".join(names) in seconds:
        return seconds[" ".join(names)]
    result = 1.0
    for name in names:
        result *= seconds.get(name, 1.0)
    return result


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({}, Numerics()),
        ({"fold": 0.5}, Numerics(fold=True)),
        ({"fold": 0.96}, Numerics()),
        ({"fold": 0.8, "channels_last": 0.7}, Numerics(fold=True, channels_last=True)),
        ({"bfloat16": 0.5}, Numerics(prefix_dtype="bfloat16", channels_last=True)),
        ({"bfloat16": 0.9, "bfloat16 channels_last": 0.5}, Numerics(prefix_dtype="bfloat16", channels_last=True)),
        ({"bfloat16": float("inf"), "channels_last": 0.5}, Numerics(channels_last=True)),
    ],
)
def test_a_way_is_taken_only_if_clearly_faster(
    prefix: nn.Module, monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float], expected: Numerics
) -> None:
    """Fast or slow by decree: `seconds` are factors for single ways, or for two together."""

    def decreed(ways: dict[Numerics, object], *rest: object) -> dict[Numerics, float]:
        return {way: _decreed_seconds(way, seconds) for way in ways}

    monkeypatch.setattr(calibrate_module, "native_bf16", lambda device: True)
    monkeypatch.setattr(calibrate_module, "race", decreed)
    assert calibrate_prefix(prefix, torch.randn(2, 3, 8, 8), budget_s=60) == expected


def test_a_step_that_fails_is_not_taken() -> None:
    def step(dtype: torch.dtype, channels_last: bool, padded: bool) -> None:
        if channels_last and dtype == torch.float32:
            raise RuntimeError("not here")
        time.sleep(0.02 if dtype == torch.float32 else 0.001)

    assert calibrate_suffix(step) == (("bfloat16", True, False) if native_bf16("cpu") else ("float32", False, False))


@pytest.mark.parametrize("small_maps", [False, True])
def test_padding_first_is_measured_only_where_there_is_something_to_pad(small_maps: bool) -> None:
    def step(dtype: torch.dtype, channels_last: bool, padded: bool) -> None:
        assert small_maps or not padded
        time.sleep(0.002 if padded and dtype == torch.float32 and not channels_last else 0.02)

    assert calibrate_suffix(step, small_maps=small_maps)[2] is small_maps


def test_seconds_per_image_is_a_time(prefix: nn.Module) -> None:
    images: Tensor = torch.randn(4, 3, 8, 8)
    assert 0 < seconds_per_image(Prefix(prefix, Numerics(), "cpu"), images) < 1


@pytest.mark.parametrize("bytes_per_image", [1, 2048, 4 * 10**6])
def test_rows_of_any_size_are_gathered_at_some_rate(bytes_per_image: int) -> None:
    assert 1e3 < gathered_bytes_per_s(bytes_per_image) < 1e12
