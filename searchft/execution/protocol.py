"""The messages between a driver and its workers: plain data, the same for a local process and for a remote actor.

Driver to worker: a `WorkerSetup`, then jobs, and after each `EpochDone` one answer, CONTINUE or STOP. Worker to driver:
`WorkerReady` once; for each job `EpochDone` after each epoch and exactly one of `JobDone` and `JobFailed`. `WorkerDied` comes from
the executor, on behalf of a worker that cannot speak.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from searchft.recipe import Recipe

CONTINUE = "continue"
STOP = "stop"

WORKER_LOCK = "worker.lock"
"""Held in a job's folder while it trains, so that an orphan whose driver died never writes beside its successor."""

REPLACED_AFTER = ("memory", "error")
"""Failures that may outlive their job (memory not given back, a dead CUDA context): the executor replaces the worker."""


@dataclass(frozen=True)
class Job:
    """One trial to train."""

    number: int
    recipe: Recipe
    key: str
    folder: str  # for checkpoint and best weights; a path of the driver's machine
    memory_bytes: int = 0  # estimated peak on its device; 0: not known


@dataclass(frozen=True)
class WorkerSetup:
    """What every worker of a study gets once, at its start. Paths are those of the worker's machine."""

    facts: Mapping[str, Any]  # `SpaceFacts.to_json()`
    images: str  # folder of the decoded images
    image_size: int  # side of the square that the networks see, in pixels
    store: str  # folder of stored values of the frozen part; empty: do not store
    store_budget_bytes: int = 8 << 30


@dataclass(frozen=True)
class WorkerReady:
    """The worker has its setup and waits for jobs. For its executor; a driver never sees it."""

    memory_bytes: int  # what its device could give to trials when it came up; 0: not known
    unfit: str = ""  # why every job would fail here; empty: the worker can train


@dataclass(frozen=True)
class EpochDone:
    """One epoch of the running job; `result` is `EpochResult.to_json()`. The worker waits for the driver's answer."""

    number: int
    result: Mapping[str, Any]


@dataclass(frozen=True)
class JobDone:
    """The job ended: all epochs, early stopping, or the driver's STOP."""

    number: int


@dataclass(frozen=True)
class JobFailed:
    """The job ended in an error."""

    number: int
    kind: str  # `memory`, `diverged`, `storage`, `held` (by another process), `input`, or `error` (any other exception)
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class WorkerDied:
    """The worker's process is gone. Its job, if it had one, can go on elsewhere from its checkpoint."""

    number: int | None
    reason: str
    out_of_memory: bool = False  # whether the kernel ended it for lack of memory


Message = EpochDone | JobDone | JobFailed | WorkerDied


def held_folder(job: Job) -> JobFailed:
    """What becomes of a job whose folder another process holds."""
    return JobFailed(job.number, "held", f"another process holds {job.folder}: end it and run again")


class Executor(Protocol):
    """Places jobs on workers. One job per slot at a time."""

    devices: tuple[str, ...]  # a line for people per slot
    kind: str  # what the workers train on: `cpu`, `cuda` or `mps`

    def start(self, setup: WorkerSetup) -> None:
        """Gives the workers what they will train on. Called once before the first `submit`."""

    def accepts(self, slot: int, memory_bytes: int) -> bool:
        """Whether a free slot could begin a trial of that estimated peak (0: not known) now: its worker is ready and its device
        has memory left beside the trials that run there. With none running it accepts any: an estimate is no verdict."""

    def submit(self, slot: int, job: Job) -> None:
        """Gives a free slot a job."""

    def wait(self, timeout_s: float) -> list[tuple[int, Message]]:
        """Messages that arrived (slot, message), waiting at most `timeout_s` for the first one."""

    def answer(self, slot: int, word: str) -> None:
        """Answers an EpochDone with CONTINUE or STOP."""

    def close(self) -> None:
        """Ends all workers at once; their checkpoints stand. Safe to call twice."""


class DeviceMemory:
    """What an executor's trials have reserved on each device (any name that tells devices apart).

    Estimates err, so a device on which nothing runs takes any trial (whose failure would be recorded as out of memory), and a
    device of unknown size takes all that come.
    """

    SHARE = 0.9  # of a device that estimates may add up to: allocators round up, and libraries keep workspaces

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._reserved: dict[int, tuple[str, int]] = {}

    def set_size(self, device: str, size_bytes: int) -> None:
        """Notes what a device could give when it was free; the largest figure of several workers counts."""
        self._sizes[device] = max(size_bytes, self._sizes.get(device, 0))

    def fits(self, device: str, memory_bytes: int) -> bool:
        """Whether a trial of that peak may begin there now."""
        there = [reserved for place, reserved in self._reserved.values() if place == device]
        size = self._sizes.get(device, 0)
        return not there or not size or sum(there) + memory_bytes <= self.SHARE * size

    def reserve(self, slot: int, device: str, memory_bytes: int) -> None:
        self._reserved[slot] = (device, memory_bytes)

    def release(self, slot: int) -> None:
        """The slot's trial ended; a second call changes nothing."""
        self._reserved.pop(slot, None)
