"""Random values that must never change by accident: with other ones an old study's trials could not be repeated."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from searchft.data.transforms import Augment
from searchft.recipe import Recipe
from searchft.train.fit import batch_indices, epoch_order
from searchft.train.inputs import augmentation_text, mixed_seed


@pytest.mark.parametrize(
    ("seed", "epoch", "order"),
    [(0, 0, [5, 2, 1, 6, 7, 4, 3, 0]), (0, 1, [3, 6, 2, 5, 7, 0, 1, 4]), (5, 0, [2, 3, 0, 5, 6, 1, 7, 4])],
)
def test_the_order_of_an_epoch(seed: int, epoch: int, order: list[int]) -> None:
    assert epoch_order(8, seed, epoch).tolist() == order


@pytest.mark.parametrize(
    ("field", "strength", "seen"),
    [
        ("horizontal_flip", 0.5, [(66, 66), (162, 66), (66, 66), (162, 66)]),
        ("rotation", 45.0, [(70, 70), (70, 70), (66, 66), (66, 66)]),
        ("brightness", 0.5, [(38, 38), (71, 71), (43, 43), (68, 68)]),
        ("contrast", 0.5, [(46, 46), (70, 70), (58, 58), (53, 53)]),
        ("saturation", 0.5, [(73, 70), (67, 67), (81, 75), (68, 67)]),
        ("hue", 0.5, [(95, 113), (114, 100), (67, 70), (77, 95)]),
        ("grayscale", 0.5, [(98, 84), (66, 66), (98, 84), (66, 66)]),
        ("crop_scale", 0.3, [(54, 51), (54, 51), (72, 72), (78, 39)]),
    ],
)
def test_what_each_augmentation_makes_of_an_image(field: str, strength: float, seen: list[tuple[int, int]]) -> None:
    """Four views of a ramp: the means of its left half (red) and upper half (green).

    An augmentation that comes later must draw its values after these, in a call of its own.
    """
    ramp = torch.arange(20, dtype=torch.uint8) * 12
    image = torch.stack([ramp.expand(20, 20), ramp.view(20, 1).expand(20, 20), torch.full((20, 20), 100).byte()], -1)
    changes: dict[str, Any] = {field: strength}
    augment = Augment(Recipe("x", **changes), 16)
    views = [augment(image[None], torch.Generator().manual_seed(mixed_seed(0, 0, i)))[0].float() for i in range(4)]
    found = [(float(view[:, :8, 0].mean()), float(view[:8, :, 1].mean())) for view in views]
    assert found == [pytest.approx(pair, abs=1) for pair in seen]


def test_the_names_of_stored_views() -> None:
    views = Recipe("x", horizontal_flip=0.5, crop_scale=0.7, augment_views=4, seed=3)
    assert augmentation_text(views) == "horizontal_flip=0.5,crop_scale=0.7,seed=3"


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (8, 4, [4, 4]), (1, 4, [1]), (5, 1, [1, 1, 1, 2]), (3, 100, [3])],
)
def test_a_leftover_of_one_joins_its_neighbour(count: int, size: int, sizes: list[int]) -> None:
    batches = batch_indices(torch.arange(count), size)
    assert [len(b) for b in batches] == sizes
    assert torch.cat(batches).tolist() == list(range(count))


def test_seeds_of_neighbours_differ_and_fit_a_generator() -> None:
    seeds = {mixed_seed(*parts) for parts in itertools.product(range(8), repeat=3)}
    assert len(seeds) == 512 and all(0 <= seed < 2**63 for seed in seeds)
