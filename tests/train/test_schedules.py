"""Schedules are pure functions of recipe and step: truth tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from searchft.recipe import Recipe
from searchft.train.schedules import lr_factor

RECIPE = Recipe("torchvision/resnet18", epochs=10, lr_gamma=0.5, lr_step_epochs=2)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("constant", 0, 1.0),
        ("constant", 39, 1.0),
        ("exponential", 3, 1.0),
        ("exponential", 4, 0.5),
        ("exponential", 8, 0.25),
        ("step", 7, 1.0),
        ("step", 8, 0.5),
        ("step", 16, 0.25),
        ("cosine", 0, 1.0),
        ("cosine", 20, 0.5),
        ("cosine", 40, 0.0),
    ],
)
def test_factor_at_a_step_with_four_steps_an_epoch(schedule: str, step: int, expected: float) -> None:
    assert lr_factor(replace(RECIPE, schedule=schedule), step, 4) == pytest.approx(expected)


def test_warm_up_rises_linearly_to_the_schedule() -> None:
    recipe = replace(RECIPE, warmup_epochs=1.0)
    assert [lr_factor(recipe, step, 4) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_cosine_begins_after_the_warm_up() -> None:
    recipe = replace(RECIPE, schedule="cosine", warmup_epochs=2.0)
    assert lr_factor(recipe, 8, 4) == pytest.approx(1.0)
    assert lr_factor(recipe, 24, 4) == pytest.approx(0.5)
