"""How an epoch's order becomes batches."""

from __future__ import annotations

import pytest
import torch

from searchft.train.fit import batch_indices
from searchft.train.inputs import mixed_seed


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (8, 4, [4, 4]), (1, 4, [1]), (5, 1, [1, 1, 1, 2]), (3, 100, [3])],
)
def test_a_leftover_of_one_joins_its_neighbour(count: int, size: int, sizes: list[int]) -> None:
    batches = batch_indices(torch.arange(count), size)
    assert [len(b) for b in batches] == sizes
    assert torch.cat(batches).tolist() == list(range(count))


def test_seeds_of_neighbours_are_unrelated_and_fit_a_generator() -> None:
    seeds = {mixed_seed(seed, epoch, index) for seed in range(8) for epoch in range(8) for index in range(8)}
    assert len(seeds) == 512
    assert all(0 <= seed < 2**63 for seed in seeds)
    torch.Generator().manual_seed(max(seeds))
