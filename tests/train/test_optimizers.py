"""Schedules are pure functions of recipe and step: truth tables. A bare step is the optimizer's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from searchft.recipe import Recipe
from searchft.train.optimizers import bare_step, lr_factor

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
    cosine = replace(RECIPE, schedule="cosine", warmup_epochs=2.0)
    assert [lr_factor(cosine, step, 4) for step in (8, 24)] == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_a_bare_step_is_the_optimizers_step(kind: type[torch.optim.Optimizer]) -> None:
    def trained(bare: bool) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
        optimizer = kind([weight], lr=0.1, weight_decay=0.01, fused=True)  # type: ignore[call-arg]
        step = bare_step(optimizer) if bare else optimizer.step
        for scale in (1.0, 2.0, 3.0):
            optimizer.zero_grad()
            (weight * scale).square().sum().backward()
            step()
        return weight.detach()

    assert torch.equal(trained(True), trained(False))
