"""Workers as processes of this machine: one per device slot. The embedded default."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from searchft.errors import InputError
from searchft.execution.protocol import (
    REPLACED_AFTER,
    DeviceMemory,
    EpochDone,
    Job,
    JobFailed,
    Message,
    WorkerDied,
    WorkerReady,
    WorkerSetup,
)
from searchft.execution.worker import main


@dataclass(frozen=True)
class Slot:
    """A place for one worker."""

    device: str
    threads: int

    def __str__(self) -> str:
        return f"cpu ({self.threads} thread{'s' if self.threads != 1 else ''})" if self.device == "cpu" else self.device


def plan_slots(devices: str, workers: int, per_device: int = 1) -> list[Slot]:
    """Which workers to start.

    Args:
        devices: `auto`, `cpu`, or a comma-separated list such as `cuda:0,cuda:1`.
        workers: how many; 0: `per_device` for each of the devices. More than devices share them in turn.
        per_device: how many share a device, where `workers` does not say how many there are in all.

    Threads of a CPU are divided between its workers. Raises InputError for a device that does not exist.
    """
    if devices == "auto":
        names = _devices_of_this_machine()
    else:
        names = [name.strip() for name in devices.split(",") if name.strip()]
        for name in names:
            _check_device(name)
    count = workers or per_device * len(names)
    chosen = [names[i % len(names)] for i in range(count)]
    cpu_workers = max(1, sum(name == "cpu" for name in chosen))
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, available // cpu_workers)
    return [Slot(name, threads) for name in chosen]


_ACCELERATORS = ("nvidia*", "nvhost*", "dxg", "kfd")  # under /dev: NVIDIA's cards, its boards, cards under WSL, AMD's


def _devices_of_this_machine() -> list[str]:
    """Every CUDA device, or Apple's, or the processor. On Linux /dev shows whether there is a card without 2 s for torch."""
    if sys.platform == "linux" and not any(True for pattern in _ACCELERATORS for _ in Path("/dev").glob(pattern)):
        return ["cpu"]
    import torch

    if torch.cuda.is_available():  # gpu: never reached on a machine without one
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["mps"] if torch.backends.mps.is_available() else ["cpu"]


def _check_device(name: str) -> None:
    if name == "cpu":
        return
    import torch

    try:
        torch.empty(1, device=torch.device(name))
    except (RuntimeError, AssertionError) as error:
        known = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise InputError(f"must be devices of this machine ({', '.join(known)}) but got {name!r}", "--devices") from error


@dataclass
class _Worker:
    """A process and our end of its pipe."""

    process: SpawnProcess
    connection: Connection
    job: int | None = None  # its trial's number

    def send(self, message: object) -> None:
        """Sends, unless the worker is dead: `wait` will say so, with its job's number."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(message)


class LocalExecutor:
    """Spawns one process per slot and keeps it warm between jobs; a dead one is replaced at the next `submit`."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = tuple(slots)
        self.devices = tuple(map(str, self.slots))
        self.kind = self.slots[0].device.partition(":")[0]
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker | None] = [self._spawn(slot) for slot in self.slots]
        self._setup: WorkerSetup | None = None
        self._oom_kills = _count_oom_kills()
        self._memory = DeviceMemory()

    def _spawn(self, slot: Slot) -> _Worker:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, slot.device, slot.threads, os.getpid())
        process = self._context.Process(target=main, args=arguments, daemon=True)
        with _signals_held():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def start(self, setup: WorkerSetup) -> None:
        self._setup = setup
        for worker in self._workers:
            if worker is not None:
                worker.send(setup)

    def accepts(self, slot: int, memory_bytes: int) -> bool:
        return self._memory.fits(self.slots[slot].device, memory_bytes)

    def submit(self, slot: int, job: Job) -> None:
        self._memory.reserve(slot, self.slots[slot].device, job.memory_bytes)
        worker = self._workers[slot]
        if worker is None or not worker.process.is_alive():
            self._end(slot)
            worker = self._workers[slot] = self._spawn(self.slots[slot])
            worker.send(self._setup)
        worker.job = job.number
        worker.send(job)

    def wait(self, timeout_s: float) -> list[tuple[int, Message]]:
        ready = set(wait([worker.connection for worker in self._workers if worker is not None], timeout_s))
        messages: list[tuple[int, Message]] = []
        for slot, worker in enumerate(self._workers):
            if worker is None or worker.connection not in ready:
                continue
            try:
                message: Message | WorkerReady = worker.connection.recv()
            except (EOFError, ConnectionResetError):
                message = self._bury(slot, worker)
            if isinstance(message, WorkerReady):
                self._memory.set_size(self.slots[slot].device, message.memory_bytes)
                continue
            if not isinstance(message, EpochDone):
                worker.job = None
                self._memory.release(slot)
            if isinstance(message, JobFailed) and message.kind in REPLACED_AFTER:
                self._end(slot)  # the only sure way to give everything back; another starts with the next job
            messages.append((slot, message))
        return messages

    def _bury(self, slot: int, worker: _Worker) -> WorkerDied:
        worker.connection.close()
        worker.process.join(timeout=5)
        self._workers[slot] = None
        kills, code = _count_oom_kills(), worker.process.exitcode
        out_of_memory, self._oom_kills = code == -signal.SIGKILL and kills > self._oom_kills, kills
        reason = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return WorkerDied(worker.job, f"worker ended by {reason}", out_of_memory)

    def answer(self, slot: int, word: str) -> None:
        worker = self._workers[slot]
        if worker is not None:
            worker.send(word)

    def close(self) -> None:
        for worker in self._workers:  # all at once, then one by one
            if worker is not None:
                worker.process.kill()
        for slot in range(len(self._workers)):
            self._end(slot)

    def _end(self, slot: int) -> None:
        worker, self._workers[slot] = self._workers[slot], None
        if worker is not None:
            worker.process.kill()
            worker.process.join(timeout=5)
            worker.connection.close()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Blocks signals in a process started within: Ctrl-C reaches the whole group, also a worker that cannot ignore it yet."""
    resource_tracker.ensure_running()  # it would lift the block while it starts
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _count_oom_kills() -> int:
    """How often the kernel has ended a process of this cgroup for lack of memory; 0 where it does not say."""
    try:
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return 0
    counts = [0]
    for _, controllers, group in groups:
        root, name = Path("/sys/fs/cgroup"), "memory.events"
        if controllers:  # version 1
            root, name = root / "memory", "memory.oom_control"
            if "memory" not in controllers.split(","):
                continue
        for folder in (root / group.lstrip("/"), root):  # inside a container the group's own folder is often the root
            with contextlib.suppress(OSError):
                lines = (folder / name).read_text().splitlines()
                counts += [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]
                break
    return max(counts)
