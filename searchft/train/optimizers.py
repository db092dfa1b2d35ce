"""Recipe -> torch optimiser with one parameter group per effective learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from searchft.recipe import HEAD, Opening, Recipe


def _sgd(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True)


def _adam(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def _adamw(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


OPTIMIZERS: Mapping[str, Callable[[list[dict[str, Any]], Recipe], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
}


def build_optimizer(
    recipe: Recipe, opening: Opening, parameters: Mapping[str, nn.Parameter], head: Mapping[str, nn.Parameter]
) -> torch.optim.Optimizer:
    """The recipe's optimiser over the open backbone parameters and the head.

    Args:
        parameters: every parameter of the model by name.
        head: the head's parameters by name.

    Each group carries `base_lr` = lr x group multiplier x layer_decay^distance; the schedule multiplies it every step.
    Groups are ordered (head first, then by rate of first appearance), so that state dicts fit from run to run.
    """
    rates = opening.rates(recipe)
    by_rate: dict[float, list[nn.Parameter]] = {rates[HEAD]: list(head.values())}
    for name in opening.parameters:
        by_rate.setdefault(rates[name], []).append(parameters[name])
    groups = [{"params": members, "lr": recipe.lr * rate, "base_lr": recipe.lr * rate} for rate, members in by_rate.items()]
    return OPTIMIZERS[recipe.optimizer](groups, recipe)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's rate to its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
