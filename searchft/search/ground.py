"""What a study stands on: how its data and backbones are looked at, and where trials of a size fit. Tests put another in its place."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from searchft.execution.local import Slot, plan_slots
from searchft.execution.worker import STAND_IN
from searchft.files import cache_folder
from searchft.recipe import Recipe, SpaceFacts, resolve
from searchft.space import Space


@dataclass(frozen=True)
class Ground:
    """Ways to look, explain, and train."""

    describe: Callable[[Space, Path, str], tuple[SpaceFacts, Path]]
    """A space's facts and the folder of its decoded images, given the cache folder and the device that its trials will train
    on. Raises InputError with every problem."""
    explain: Callable[[Space, SpaceFacts], list[str]]
    """A line for people about each opening, as `train.memory.explain_openings`."""
    plan_slots: Callable[[str, int, int], list[Slot]]
    """As `execution.local.plan_slots`."""
    memory_of: Callable[[SpaceFacts, int], Callable[[Recipe], int]]
    """Facts and the images' side to an estimate of a recipe's peak in bytes (`train.memory.PeakMemory`)."""


def choose_ground() -> Ground:
    """The real ground, or that of the module which SEARCHFT_ANALYTIC names. Imports no torch."""
    if name := os.environ.get(STAND_IN):
        stand_in: Ground = importlib.import_module(name).GROUND
        return stand_in
    return Ground(_describe, _explain, plan_slots, _memory_of)


def _describe(space: Space, cache: Path, device: str) -> tuple[SpaceFacts, Path]:
    from searchft.facts import describe

    facts, images = describe(space, cache, device)
    return facts, images.folder


def _memory_of(facts: SpaceFacts, side: int) -> Callable[[Recipe], int]:
    from searchft.train.memory import PeakMemory

    peak = PeakMemory(side)
    return lambda recipe: peak(resolve(recipe, facts))


def _explain(space: Space, facts: SpaceFacts) -> list[str]:
    from searchft.train.memory import explain_openings

    return explain_openings(space, facts, cache_folder() / "features")
