"""A search from end to end: its workers, its study, and the driver between them. `searchft run` and `searchft.run` share it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from searchft.errors import InputError
from searchft.execution.local import LocalExecutor
from searchft.execution.protocol import Executor, WorkerSetup
from searchft.files import cache_folder, store_budget_bytes
from searchft.search.driver import run_study
from searchft.search.events import Event
from searchft.search.ground import Ground, choose_ground
from searchft.search.start import ReadyStudy, open_study
from searchft.space import Space


@dataclass(frozen=True)
class Placement:
    """Where the workers are to run."""

    devices: str = "auto"  # `auto`, `cpu`, or e.g. `cuda:0,cuda:1`.
    workers: int | None = None  # trials at once; None or 0: as many as there are devices
    workers_per_device: int = 1  # how many share a device, where `workers` is not given
    ray: str | None = None
    """`auto` (the Ray cluster of this machine, else one that is started here) or HOST:PORT; None: processes of this machine."""
    gpus_per_worker: float | None = None  # on Ray: GPUs, or a share of one, for each worker


def build_executor(placement: Placement, ground: Ground, say: Callable[[str], None]) -> Executor:
    """The workers, whose processes begin to import torch at once; `say` gets what people must know of a cluster.

    Raises InputError for devices or a cluster that are not there, and for a placement that says twice who places the workers.
    """
    if placement.ray is None:
        if placement.gpus_per_worker is not None:
            raise InputError("has a meaning only with --ray", "--gpus-per-worker")
        slots = ground.plan_slots(placement.devices, placement.workers or 0, placement.workers_per_device)
        return LocalExecutor(slots)
    if placement.devices != "auto" or placement.workers_per_device != 1:
        flag = "--devices" if placement.devices != "auto" else "--workers-per-device"
        raise InputError("must not stand beside --ray: Ray places the workers", flag)
    from searchft.execution.ray_executor import start_on_ray

    return start_on_ray(placement.ray, placement.workers or None, placement.gpus_per_worker, say)


@dataclass(frozen=True)
class Session:
    """A study that is open, with workers that know what they will train on."""

    study: ReadyStudy
    executor: Executor
    ground: Ground

    def events(self, stopping: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Runs the study to its budget, or until `stopping`; see `run_study`."""
        study = self.study
        memory_of = self.ground.memory_of(study.space.data.image_size)
        parts = study.space, study.facts, study.ledger, self.executor, study.folder
        return run_study(*parts, resumed=study.resumed, stopping=stopping, memory_of=memory_of)


@contextlib.contextmanager
def open_session(
    space: Space,
    studies: Path,
    placement: Placement,
    *,
    storage: str = "",
    fresh: bool = False,
    extend: bool = False,
    keep_values: bool = True,
    say: Callable[[str], None] = lambda text: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Iterator[Session]:
    """Opens or creates the study of `space` and starts its workers; on leaving, both are let go.

    `keep_values`: whether workers keep what frozen layers compute. `warn` gets what people must know of a cluster, however quiet
    the rest is. The others, and what is raised: see `build_executor` and `open_study`.
    """
    ground = choose_ground()
    executor = build_executor(placement, ground, warn)  # its processes import torch while we look at the data
    try:
        study = open_study(
            space, studies, storage=storage, fresh=fresh, extend=extend, say=say, ground=ground, device=executor.kind
        )
        with study.ledger:
            store = cache_folder() / "features"
            setup = WorkerSetup(
                facts=study.facts.to_json(),
                images=str(study.images),
                image_size=study.space.data.image_size,
                store=str(store) if keep_values else "",
                store_budget_bytes=store_budget_bytes(store),
            )
            executor.start(setup)
            yield Session(study, executor, ground)
    finally:
        executor.close()
