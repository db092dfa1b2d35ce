"""Frozen values come back as they were: types, layouts, shapes. What the cache promises is in tests/test_cache.py."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from searchft.features import FeatureStore

KEY = "ab" * 16


def rows(start: int, stop: int) -> tuple[Tensor, ...]:
    """A different value in every place."""
    place = torch.arange(start, stop, dtype=torch.float32)
    maps = (place[:, None] + torch.arange(24) / 100).view(-1, 2, 3, 4)
    return (place[:, None].expand(-1, 3).contiguous(), maps.to(torch.bfloat16).contiguous(memory_format=torch.channels_last))


def test_values_come_back_as_they_were(tmp_path: Path) -> None:
    for compute in (rows, None):
        values = FeatureStore(tmp_path, 10**9).values(KEY, 600, compute)
        assert values is not None
        for got, wanted in zip(values, rows(0, 600), strict=True):
            assert got.dtype == wanted.dtype
            assert got.stride() == wanted.stride()
            assert torch.equal(got, wanted)
            assert not got.is_inference()


def test_what_computing_took_is_known_to_whoever_uses_the_values(tmp_path: Path) -> None:
    def slow(start: int, stop: int) -> tuple[Tensor, ...]:
        time.sleep(0.05)
        return rows(start, stop)

    FeatureStore(tmp_path, 10**9).values(KEY, 300, slow)
    store = FeatureStore(tmp_path, 10**9)
    store.values(KEY, 300, None)
    assert 0.1 <= store.computed_s[KEY] < 5


def test_values_of_another_number_of_images_are_computed_again(tmp_path: Path) -> None:
    FeatureStore(tmp_path, 10**9).values(KEY, 300, rows)
    values = FeatureStore(tmp_path, 10**9).values(KEY, 299, rows)
    assert values is not None and all(map(torch.equal, values, rows(0, 299)))


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another shape"):
        FeatureStore(tmp_path, 10**9).values(KEY, 600, lambda a, b: (torch.zeros(b - a, 3 if a else 2),))
    with pytest.raises(ValueError, match="another shape"):
        FeatureStore(tmp_path, 10**9).values(KEY, 600, lambda a, b: (torch.zeros(5, 2),))


def test_a_tensor_keeps_its_values_from_being_removed(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 4000)
    (values,) = store.values(KEY, 250, lambda a, b: (torch.ones(b - a, 3),)) or ()
    view = values[10:20].flatten()
    del values
    assert store.values("cd", 250, lambda a, b: (torch.ones(b - a, 3),)) is None
    assert "others hold 3000" in store.refusal and view.sum() == 30


def test_no_values_are_given_with_a_reason(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 100)
    assert store.values(KEY, 10, None) is None and store.refusal == "nothing is stored"
    assert store.values(KEY, 10, rows) is None and store.refusal == "needs 600 bytes, the budget is 100"
    assert store.values(KEY, 1, rows) is not None and store.refusal == ""
    with pytest.raises(ValueError, match="at least 1"):
        store.values(KEY, 0, rows)
