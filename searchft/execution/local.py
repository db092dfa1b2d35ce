"""Workers as processes of this machine: one per device slot. The embedded default."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from searchft.errors import InputError
from searchft.execution.protocol import Job, JobDone, JobFailed, Message, WorkerDied, WorkerReady, WorkerSetup
from searchft.execution.room import Room
from searchft.execution.worker import main


@dataclass(frozen=True)
class Slot:
    """A place for one worker."""

    device: str
    threads: int

    def __str__(self) -> str:
        return (
            f"{self.device} ({self.threads} thread{'s' if self.threads != 1 else ''})" if self.device == "cpu" else self.device
        )


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


_ACCELERATORS = ("nvidia*", "nvhost*", "dxg", "kfd")
"""Under /dev: NVIDIA's cards, its boards, cards under WSL, AMD's."""


def _devices_of_this_machine() -> list[str]:
    """Every CUDA device, or Apple's, or the processor.

    A Linux machine without a device file of any card is known not to have one without importing torch: its worker starts two
    seconds earlier, and imports torch while the driver does.
    """
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


class LocalExecutor:
    """Spawns one process per slot and keeps it warm between jobs; a dead one is replaced at the next `submit`."""

    def __init__(self, slots: Sequence[Slot], main: Callable[[Connection, str, int, int], None] = main) -> None:
        self.slots = tuple(slots)
        self._main = main
        self.devices = tuple(map(str, self.slots))
        self.kind = self.slots[0].device.partition(":")[0]
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[tuple[SpawnProcess, Connection] | None] = [self._spawn(slot) for slot in self.slots]
        self._jobs: list[int | None] = [None] * len(self.slots)
        self._setup: WorkerSetup | None = None
        self._oom_kills = _kernel_oom_kills()
        self._room = Room()

    def _spawn(self, slot: Slot) -> tuple[SpawnProcess, Connection]:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, slot.device, slot.threads, os.getpid())
        process = self._context.Process(target=self._main, args=arguments, daemon=True)
        with _signals_held():
            process.start()
        theirs.close()
        return process, ours

    def start(self, setup: WorkerSetup) -> None:
        self._setup = setup
        for slot, worker in enumerate(self._workers):
            if worker is not None:
                self._tell(slot, worker[1])

    def _tell(self, slot: int, connection: Connection) -> None:
        """Sends the setup; a worker that has died before it had anything to do is replaced by the next `submit`."""
        try:
            connection.send(self._setup)
        except (BrokenPipeError, ConnectionResetError):
            self._end(slot)

    def accepts(self, slot: int, memory_bytes: int) -> bool:
        return self._room.fits(self.slots[slot].device, memory_bytes)

    def submit(self, slot: int, job: Job) -> None:
        self._room.take(slot, self.slots[slot].device, job.memory_bytes)
        worker = self._workers[slot]
        if worker is None:
            worker = self._workers[slot] = self._spawn(self.slots[slot])
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                worker[1].send(self._setup)
        self._jobs[slot] = job.number
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            worker[1].send(job)  # where it died while idle, `wait` will say so, with this job's number

    def wait(self, timeout_s: float) -> list[tuple[int, Message]]:
        ready = set(wait([w[1] for w in self._workers if w is not None], timeout_s))
        messages: list[tuple[int, Message]] = []
        for slot, worker in enumerate(self._workers):
            if worker is None or worker[1] not in ready:
                continue
            try:
                message: Message | WorkerReady = worker[1].recv()
            except (EOFError, ConnectionResetError):
                message = self._bury(slot)
            if isinstance(message, WorkerReady):
                self._room.has(self.slots[slot].device, message.memory_bytes)
                continue
            if isinstance(message, JobFailed) and message.kind == "memory":
                self._end(slot)  # the only sure way to give everything back; another starts with the next job
            if isinstance(message, JobDone | JobFailed | WorkerDied):
                self._jobs[slot] = None
                self._room.leave(slot)
            messages.append((slot, message))
        return messages

    def _bury(self, slot: int) -> WorkerDied:
        worker = self._workers[slot]
        assert worker is not None
        process, connection = worker
        connection.close()
        process.join(timeout=5)
        self._workers[slot] = None
        kills = _kernel_oom_kills()
        out_of_memory = process.exitcode == -signal.SIGKILL and kills > self._oom_kills
        self._oom_kills = kills
        code = process.exitcode
        reason = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return WorkerDied(self._jobs[slot], f"worker ended by {reason}", out_of_memory)

    def answer(self, slot: int, word: str) -> None:
        worker = self._workers[slot]
        if worker is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # as in submit
                worker[1].send(word)

    def close(self) -> None:
        for worker in self._workers:
            if worker is not None:
                worker[0].kill()
        for slot in range(len(self._workers)):
            self._end(slot)

    def _end(self, slot: int) -> None:
        worker = self._workers[slot]
        if worker is not None:
            worker[0].kill()
            worker[0].join(timeout=5)
            worker[1].close()
            self._workers[slot] = None


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """A process started within begins with these signals blocked: Ctrl-C in a terminal reaches the whole group, also a worker
    that has not come to ignoring it. Ours are delivered afterwards."""
    resource_tracker.ensure_running()  # it would lift the block while it starts
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kernel_oom_kills() -> int:
    """How often the kernel has ended a process of this cgroup for lack of memory; 0 where it does not say."""
    if sys.platform != "linux":
        return 0
    try:
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return 0
    counts = [0]
    for _, controllers, group in groups:
        if controllers == "":  # version 2
            counts.append(_oom_kills_in(Path("/sys/fs/cgroup"), group, "memory.events"))
        elif "memory" in controllers.split(","):
            counts.append(_oom_kills_in(Path("/sys/fs/cgroup/memory"), group, "memory.oom_control"))
    return max(counts)


def _oom_kills_in(root: Path, group: str, name: str) -> int:
    # inside a container the group's own folder is often the root
    for folder in (root / group.lstrip("/"), root):
        try:
            lines = (folder / name).read_text().splitlines()
        except OSError:
            continue
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0
