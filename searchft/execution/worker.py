"""A worker: one process bound to one device. Trains jobs one after another, stays warm in between, never sees the storage.

It dies with its driver: the kernel kills it (Linux), and a thread compares its parent every half second (everywhere).
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import filelock
import psutil

from searchft.errors import SearchftError, StorageError
from searchft.execution.protocol import (
    CONTINUE,
    WORKER_LOCK,
    EpochDone,
    Job,
    JobDone,
    JobFailed,
    WorkerReady,
    WorkerSetup,
    held_folder,
)
from searchft.faults import fault
from searchft.files import is_disk_error, lock_file, remove_leftovers
from searchft.machine import collect_rarely, give_back_memory, keep_freed_memory, main_memory_bytes
from searchft.train.results import DivergedError, EpochResult

STAND_IN = "SEARCHFT_ANALYTIC"
"""Environment variable of tests: a module whose `train` and `GROUND` take the place of networks and data (tests/analytic.py)."""

_LOCK_WAIT_S = 30.0  # how long a successor waits for an orphan to notice that its driver is gone
_PLENTY = 2  # freed memory is kept for the next trial where the machine could still give so many times what the worker holds
_REFUSALS = (
    "can't allocate memory",
    "std::bad_alloc",
    "not enough memory",
    "Cannot allocate memory",
    "could not create a memory",
)
"""How allocators on a CPU refuse: plain RuntimeErrors that only their text tells apart."""


class Channel(Protocol):
    """A worker's end of the line to its driver; raises EOFError or ConnectionError once the driver has closed it."""

    def recv(self) -> Any: ...

    def send(self, obj: Any, /) -> None: ...


Train = Callable[[Job], Iterator[EpochResult]]
"""Trains a job, epoch by epoch; closed to stop."""

Prepare = Callable[[Any], Train]
"""Makes a Train of the driver's first message: a WorkerSetup, or what an executor sends in its place."""


def main(connection: Connection, device: str, threads: int, parent: int) -> None:
    """Trains until the connection closes. Called in a fresh process.

    Args:
        connection: speaks `execution.protocol` with the driver; a WorkerSetup comes first.
        device: a torch device name.
        threads: arithmetic threads on a CPU.
        parent: the driver's process id.
    """
    collect_rarely()
    live_and_die_with(parent)
    serve(connection, *load_training(device, threads))


def load_training(device: str, threads: int) -> tuple[Prepare, int]:
    """How to make a Train of a setup, and what memory the device has to give, in bytes. Call it in the thread that is to train."""
    if name := os.environ.get(STAND_IN):
        train: Train = importlib.import_module(name).train
        return lambda setup: train, 0
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    keep_freed_memory()
    import torch
    import tqdm

    torch.set_num_threads(threads)
    # tqdm (used inside torch.fx) would make a semaphore between processes, which a killed worker leaves behind.
    tqdm.tqdm.set_lock(threading.RLock())
    from searchft.data.images import reopen_images
    from searchft.features.store import FeatureStore
    from searchft.recipe import SpaceFacts, resolve
    from searchft.train.checkpoints import TrialFolder
    from searchft.train.fit import fit
    from searchft.train.inputs import TrainingData

    def prepare(setup: WorkerSetup) -> Train:
        store = FeatureStore(Path(setup.store), setup.store_budget_bytes) if setup.store else None
        facts = SpaceFacts.from_json(setup.facts)
        images = reopen_images(Path(setup.images))
        data = TrainingData(images=images, image_size=setup.image_size, store=store, device=torch.device(device))
        return lambda job: fit(resolve(job.recipe, facts), data, TrialFolder(Path(job.folder), job.key))

    memory_bytes = main_memory_bytes()
    if torch.device(device).type == "cuda":  # gpu: never reached on a machine without one
        memory_bytes = torch.cuda.mem_get_info(device)[0]
    return prepare, memory_bytes


def serve(connection: Channel, prepare: Prepare, memory_bytes: int = 0) -> None:
    """Takes a WorkerSetup, then jobs, until the driver closes the connection. `memory_bytes`: see WorkerReady."""
    try:
        setup = connection.recv()
        trouble: Exception | None = None
        try:
            train = prepare(setup)
        except Exception as error:  # each job is answered with it
            trouble = error
        unfit = "" if trouble is None else str(trouble) or type(trouble).__name__
        connection.send(WorkerReady(memory_bytes, unfit))
        while True:
            job: Job = connection.recv()
            fault("worker.job", f"{job.number}")
            connection.send(run_job(connection, job, train) if trouble is None else _failure(job, trouble))
            if main_memory_bytes() < _PLENTY * psutil.Process().memory_info().rss:
                give_back_memory()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def run_job(connection: Channel, job: Job, train: Train) -> JobDone | JobFailed:
    """Trains one job, sending every epoch; returns how it ended. Raises only where the connection is closed."""
    folder = Path(job.folder)
    try:
        with lock_file(folder / WORKER_LOCK).acquire(timeout=_LOCK_WAIT_S):
            fault("worker.locked", f"{job.number}")
            remove_leftovers(folder)
            for result in train(job):
                if not result.replayed:
                    fault("worker.epoch", f"{job.number} {result.epoch}")
                connection.send(EpochDone(job.number, result.to_json()))
                fault("worker.sent", f"{job.number} {result.epoch}")
                if connection.recv() != CONTINUE:
                    return JobDone(job.number)
        fault("worker.done", f"{job.number}")
        return JobDone(job.number)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        return _failure(job, error)


def _failure(job: Job, error: Exception) -> JobFailed:
    """What an exception means for its trial."""
    name = type(error).__name__
    text = str(error) or name
    if isinstance(error, filelock.Timeout):
        return held_folder(job)
    if isinstance(error, DivergedError):
        return JobFailed(job.number, "diverged", text)
    refused = isinstance(error, RuntimeError | OSError) and any(words in text for words in _REFUSALS)
    if refused or isinstance(error, MemoryError) or name == "OutOfMemoryError":
        return JobFailed(job.number, "memory", f"out of memory: {text.strip().splitlines()[0]}")
    if isinstance(error, SearchftError):
        return JobFailed(job.number, "storage" if isinstance(error, StorageError) else "input", text)
    if isinstance(error, OSError) and is_disk_error(error):
        return JobFailed(job.number, "storage", f"{error}. Free some space and run again.")
    return JobFailed(job.number, "error", f"{name}: {text}", "".join(traceback.format_exception(error)))


def live_and_die_with(parent: int) -> None:
    """Makes this process end when its driver does, and only then: signals from the terminal are the driver's business."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)

    if os.getppid() != parent:  # it died before we could ask
        os._exit(0)
    threading.Thread(target=watch, daemon=True).start()
