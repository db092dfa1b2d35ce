"""Learning-rate schedules as pure functions: factor = f(recipe, step, steps per epoch). A table, one row a schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from searchft.recipe import Recipe


def _constant(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    return 1.0


def _cosine(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """From 1 to 0 along half a cosine after the warm-up, without restarts (Loshchilov & Hutter 2017, arXiv:1608.03983)."""
    warmup = recipe.warmup_epochs * steps_per_epoch
    total = max(1.0, recipe.epochs * steps_per_epoch - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, max(0.0, step - warmup) / total)))


def _exponential(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    return float(recipe.lr_gamma ** (step // steps_per_epoch))


def _step(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    return float(recipe.lr_gamma ** (step // steps_per_epoch // recipe.lr_step_epochs))


SCHEDULES: Mapping[str, Callable[[Recipe, int, int], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "exponential": _exponential,
    "step": _step,
}


def lr_factor(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Factor on every learning rate at an optimizer step.

    Args:
        step: 0-based count of optimizer steps since the start of the trial.
        steps_per_epoch: optimizer steps in one epoch, at least 1.

    Linear warm-up (from 1/n to 1 over n = warmup_epochs x steps_per_epoch steps) multiplies the schedule.
    """
    factor = SCHEDULES[recipe.schedule](recipe, step, steps_per_epoch)
    warmup = recipe.warmup_epochs * steps_per_epoch
    if step < warmup:
        factor *= min(1.0, (step + 1) / warmup)
    return factor
