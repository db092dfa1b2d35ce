"""The words between a driver and its workers: plain data, the same for a local process and for a remote actor.

Driver to worker: a `Job`, then after each `EpochDone` one answer, CONTINUE or STOP.
Worker to driver: `WorkerReady` once; then for each job `EpochDone` after each epoch and exactly one of `JobDone` and
`JobFailed`; `WorkerDied` is said by the executor on behalf of a worker that cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from searchft.recipe import Recipe

CONTINUE = "continue"
STOP = "stop"

WORKER_LOCK = "worker.lock"
"""Held in a job's folder while it trains: an orphan that has not noticed its driver's death writes beside nobody."""

OUTLIVING = ("memory", "error")
"""Kinds of failure that may outlive their job (memory that is not given back, a CUDA context that is dead): an executor
replaces the worker, never reuses it."""


@dataclass(frozen=True)
class Job:
    """One trial to train."""

    number: int
    """The trial's number in the study."""
    recipe: Recipe
    key: str
    folder: str
    """The trial's folder: checkpoint and best weights. A path of the driver's machine."""
    memory_bytes: int = 0
    """Estimated peak of what it will hold on its device; 0: not known."""


@dataclass(frozen=True)
class WorkerSetup:
    """What every worker of a study gets once, at its start. Paths are those of the worker's machine."""

    facts: Mapping[str, Any]
    """`SpaceFacts.to_json()`."""
    images: str
    """Folder of the decoded images."""
    image_size: int
    """Side of the square that the networks see, in pixels."""
    store: str
    """Folder of stored prefix values; empty: do not store."""
    store_budget_bytes: int = 8 << 30


@dataclass(frozen=True)
class WorkerReady:
    """The worker has taken its setup and waits for jobs: the first thing it says. For its executor; a driver never sees it."""

    host: str
    """Its machine's name."""
    memory_bytes: int
    """What its device could give to trials when it came up; 0: it cannot say."""
    unfit: str = ""
    """Why it cannot train: every job would end with this. Empty: it can."""


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
    kind: str
    """`memory`, `diverged`, `storage`, `held` (another process has the trial's folder), `input`, or `error` (an exception of the
    code's own)."""
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class WorkerDied:
    """The worker's process is gone. Its job, if it had one, can go on elsewhere from its checkpoint."""

    number: int | None
    reason: str
    out_of_memory: bool = False
    """Whether the kernel ended it for lack of memory."""


Message = EpochDone | JobDone | JobFailed | WorkerDied


def held_folder(job: Job) -> JobFailed:
    """What becomes of a job whose folder another process holds."""
    return JobFailed(job.number, "held", f"another process holds {job.folder}: end it and run again")


class Executor(Protocol):
    """Places jobs on workers. One job per slot at a time."""

    devices: tuple[str, ...]
    """One line for people per slot."""
    kind: str
    """What the workers train on: `cpu`, `cuda` or `mps`."""

    def start(self, setup: WorkerSetup) -> None:
        """Gives the workers what they will train on. Called once before the first `submit`."""

    def accepts(self, slot: int, memory_bytes: int) -> bool:
        """Whether a free slot could begin a trial of that estimated peak (0: not known) now: its worker is to be had, and its
        device has room beside the trials that run there. With none running there it accepts any: an estimate is no verdict."""

    def submit(self, slot: int, job: Job) -> None:
        """Gives a free slot a job."""

    def wait(self, timeout_s: float) -> list[tuple[int, Message]]:
        """Messages that arrived (slot, message), waiting at most `timeout_s` for the first one."""

    def answer(self, slot: int, word: str) -> None:
        """Answers an EpochDone with CONTINUE or STOP."""

    def close(self) -> None:
        """Ends all workers at once; their checkpoints stand. Safe to call twice."""
