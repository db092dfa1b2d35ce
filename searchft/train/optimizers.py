"""Recipe -> torch optimizer with one parameter group per effective learning rate."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import torch
from torch import nn

from searchft.recipe import HEAD, OPTIMIZERS, Opening, Recipe


def build_optimizer(
    recipe: Recipe, opening: Opening, parameters: Mapping[str, nn.Parameter], head: Mapping[str, nn.Parameter]
) -> torch.optim.Optimizer:
    """The recipe's optimizer over the open backbone parameters and the head.

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
    row = OPTIMIZERS[recipe.optimizer]
    module, name = row.build.split(":")
    arguments = {field: getattr(recipe, field) for field in row.takes} | ({"fused": True} if row.fused else {})
    optimizer: torch.optim.Optimizer = getattr(importlib.import_module(module), name)(groups, lr=recipe.lr, **arguments)
    return optimizer


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's rate to its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
