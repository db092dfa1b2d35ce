"""What a study stands on: how its data and backbones are looked at, and which processes train on them.

Two rows: the real one, and the analytic one for tests of everything but training (see `execution.analytic_worker`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from searchft.execution.local import Slot, plan_slots
from searchft.files import cache_folder
from searchft.recipe import Recipe, SpaceFacts
from searchft.space import Space


@dataclass(frozen=True)
class Ground:
    """Ways to look, measure, and train."""

    describe: Callable[[Space, Path], tuple[SpaceFacts, Path]]
    """A space's facts and the folder of its decoded images, given the cache folder. Raises InputError with every problem."""
    measure: Callable[[Space, SpaceFacts, Path, Callable[[str], None]], tuple[SpaceFacts, list[str]]]
    """The facts with what `train.numerics.measure` finds, given the folder of images, and a line for people about each."""
    plan_slots: Callable[[str, int, int], list[Slot]]
    """As `execution.local.plan_slots`."""
    memory_of: Callable[[SpaceFacts, int], Callable[[Recipe], int]]
    """As `train.memory.PeakMemory`: facts and the images' side to an estimate of a recipe's peak in bytes."""
    worker_main: Callable[[Connection, str, int, int], None]
    """As `execution.worker.main`."""


def choose_ground() -> Ground:
    """The analytic ground where SEARCHFT_ANALYTIC is set, the real one everywhere else. Imports torch for neither."""
    from searchft.execution import analytic_worker, worker

    if os.environ.get(analytic_worker.VARIABLE):
        return Ground(
            describe=lambda space, cache: (analytic_worker.invented_facts(space), cache),
            measure=lambda space, facts, images, say: (facts, [f"{analytic_worker.VARIABLE} is set: nothing is trained"]),
            plan_slots=lambda devices, workers, per_device: [Slot("analytic", 1)] * (workers or per_device),
            memory_of=lambda facts, side: lambda recipe: 0,
            worker_main=analytic_worker.main,
        )
    return Ground(_describe, _measure, plan_slots, _memory_of, worker.main)


def _describe(space: Space, cache: Path) -> tuple[SpaceFacts, Path]:
    from searchft.facts import describe

    facts, images = describe(space, cache)
    return facts, images.folder


def _memory_of(facts: SpaceFacts, side: int) -> Callable[[Recipe], int]:
    from searchft.train.memory import PeakMemory

    return PeakMemory(facts, side)


def _measure(space: Space, facts: SpaceFacts, images: Path, say: Callable[[str], None]) -> tuple[SpaceFacts, list[str]]:
    from searchft.data.images import reopen_images
    from searchft.train.numerics import measure

    found = measure(space, facts, reopen_images(images), cache_folder() / "features", say)
    numerics, keeping = {**facts.numerics, **found.numerics}, {**facts.keeping, **found.keeping}
    return replace(facts, numerics=numerics, keeping=keeping), found.notes
