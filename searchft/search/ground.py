"""What a study stands on: how its data and backbones are looked at, and which processes train on them.

Two rows: the real one, and the analytic one for tests of everything but training (see `execution.analytic_worker`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from searchft.execution.local import Slot, plan_slots
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
    worker_main: Callable[[Connection, str, int, int], None]
    """As `execution.worker.main`."""


def choose_ground() -> Ground:
    """The analytic ground where SEARCHFT_ANALYTIC is set, the real one everywhere else. Imports torch for neither."""
    from searchft.execution import analytic_worker, worker

    if os.environ.get(analytic_worker.VARIABLE):
        return Ground(
            describe=lambda space, cache, device: (analytic_worker.invented_facts(space), cache),
            explain=lambda space, facts: [f"{analytic_worker.VARIABLE} is set: nothing is trained"],
            plan_slots=lambda devices, workers, per_device: [Slot("analytic", 1)] * (workers or per_device),
            memory_of=lambda facts, side: lambda recipe: 0,
            worker_main=analytic_worker.main,
        )
    return Ground(_describe, _explain, plan_slots, _memory_of, worker.main)


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
