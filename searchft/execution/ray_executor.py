"""Workers as actors of a Ray cluster, one per slot. Ray finds each a node and its share of a GPU.

What differs from `local.LocalExecutor`: a worker has to be placed before its slot accepts a trial, and Ray may place it anew
on another node; the trial's folder stays here, locked by this process, and its files travel with the messages (`ray_files`).

The files that an epoch changed are in place before the driver receives it, so a lost node costs at most the epoch under way. A
worker that only seems lost does no harm: nobody receives from it any more, and it writes to nothing but its own node.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from searchft._version import __version__
from searchft.errors import InputError, StorageError
from searchft.execution.protocol import (
    REPLACED_AFTER,
    WORKER_LOCK,
    DeviceMemory,
    EpochDone,
    Job,
    JobFailed,
    Message,
    WorkerDied,
    WorkerReady,
    WorkerSetup,
    held_folder,
)
from searchft.execution.ray_cluster import (
    FLAG,
    Share,
    connect,
    count_words,
    describe_cluster,
    is_listening,
    living_nodes,
    plan_shares,
)
from searchft.execution.ray_files import (
    PIECE_BYTES,
    NodeSetup,
    PieceRequest,
    WithFiles,
    find_needs,
    read_checkpoint,
    write_checkpoint,
)
from searchft.execution.ray_worker import Placed, RayWorker
from searchft.files import lock_file, remove_leftovers

NOTICE_AFTER_S = 30.0  # how long workers may wait for a place before a line says so
_PLACING_S = 3.0  # how long `start` waits for Ray to place the workers, so that the first lines can name their nodes
_LOCK_WAIT_S = 2.0  # how long a local worker whose driver was killed may hold a folder: it looks every half second
_HEAD_EVERY_S, _HEAD_AWAY_S = 5.0, 40.0  # between looks for the head node; how long it may be away (Ray gives up after 60 s)
_TRIES = 5  # how often in a row a worker may fail to come up, before its slot is given up
_OUT_OF_MEMORY = ("memory pressure", "(OOM)", "OutOfMemory")  # in errors of workers that Ray's memory monitor ended


@dataclass
class _Seat:
    """A slot's worker of the moment."""

    actor: Any
    receiving: Any  # the outstanding call of `receive`
    failures: int = 0  # workers of this slot that never came up, in a row
    placed: Placed | None = None
    ready: bool = False
    unfit: str = ""  # why it can never train
    job: Job | None = None
    sent: bool = False  # whether the worker has the job (or it waits until there is one)
    lock: filelock.BaseFileLock | None = None

    @property
    def name(self) -> str:
        return f"worker on {self.placed.host}" if self.placed else "worker"

    @property
    def device(self) -> str:
        """Tells devices apart: those of two nodes, and two GPUs of one."""
        return f"{self.placed.host} {self.placed.gpu or 'cpu'}" if self.placed else ""


def start_on_ray(address: str, workers: int | None, gpus_per_worker: float | None, say: Callable[[str], None]) -> RayExecutor:
    """Connects to a cluster (`ray_cluster.connect`) and asks it for workers (`plan_shares`). Raises InputError."""
    ours = connect(address)
    try:
        return RayExecutor(plan_shares(living_nodes(), workers, gpus_per_worker), say, ours)
    except BaseException:
        if ours:
            import ray

            ray.shutdown()
        raise


class RayExecutor:
    """An Executor (see `protocol`). Ray is connected already.

    Args:
        share: how many workers, and what each asks for.
        say: gets what people must know beside the driver's events: that no node has room, that a node is not fit.
        leave: whether `close` disconnects from Ray, too.
    """

    def __init__(self, share: Share, say: Callable[[str], None] = lambda text: None, leave: bool = False) -> None:
        import ray

        self._ray = ray
        self._actor: Any = ray.remote(RayWorker)
        self.share, self._say, self._leave = share, say, leave
        own = ("SEARCHFT_CACHE", "SEARCHFT_STORAGE")  # the node's own; a secret
        self._environment = {n: v for n, v in os.environ.items() if n.startswith("SEARCHFT_") and n not in own}
        self._environment["OMP_NUM_THREADS"] = str(share.cpus)
        self._needs: NodeSetup | None = None
        self._pieces: dict[tuple[str, int], Any] = {}  # of large files, in Ray's object store, once some node asked for them
        self._memory = DeviceMemory()
        self._early: list[tuple[int, Message]] = []  # what the driver receives at its next `wait`
        self._seats = [self._spawn() for _ in range(share.workers)]
        self.devices = (f"Ray worker, {self._describe_device()}",) * share.workers
        self.kind = "cuda" if share.gpus else "cpu"
        self._unplaced_since, self._unplaced_said = time.monotonic(), 0
        self._head: str = ray.get_runtime_context().gcs_address
        self._head_asked = self._head_seen = time.monotonic()
        self._closed = False

    def _describe_device(self, gpu: str = "") -> str:
        if not self.share.gpus:
            return f"cpu ({count_words(self.share.cpus, 'thread')})"
        return f"GPU {gpu}".rstrip() + (f" ({self.share.gpus:g} of it)" if self.share.gpus < 1 else "")

    def _spawn(self, failures: int = 0) -> _Seat:
        """A worker for Ray to place, now or when there is room."""
        actor: Any = self._actor.options(
            num_cpus=self.share.cpus,
            num_gpus=self.share.gpus,
            max_concurrency=2,
            max_restarts=0,  # its successor must be given everything anew
            scheduling_strategy="SPREAD",
        ).remote(self._environment, self.share.cpus)
        if self._needs is not None:
            actor.send.remote(self._needs)
        return _Seat(actor, actor.receive.remote(), failures)

    def start(self, setup: WorkerSetup) -> None:
        self._needs = find_needs(setup)
        for seat in self._seats:
            if seat.actor is not None:
                seat.actor.send.remote(self._needs)
        deadline = time.monotonic() + _PLACING_S
        while time.monotonic() < deadline and not all(seat.placed for seat in self._seats):
            self._early += self.wait(0.1)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for slot, seat in enumerate(self._seats):
            with contextlib.suppress(Exception):
                self._ray.kill(seat.actor)
            self._end_job(slot, seat)
        self._pieces.clear()
        if self._leave:
            self._ray.shutdown()

    # Trials

    def accepts(self, slot: int, memory_bytes: int) -> bool:
        seat = self._seats[slot]
        return seat.ready and seat.job is None and self._memory.fits(seat.device, memory_bytes)

    def submit(self, slot: int, job: Job) -> None:
        seat = self._seats[slot]
        lock = lock_file(Path(job.folder) / WORKER_LOCK)
        try:
            lock.acquire(timeout=_LOCK_WAIT_S)
        except filelock.Timeout:
            self._early.append((slot, held_folder(job)))
            return
        seat.job, seat.sent, seat.lock = job, False, lock
        remove_leftovers(Path(job.folder))
        self._memory.reserve(slot, seat.device, job.memory_bytes)
        self._send_job(seat)

    def _send_job(self, seat: _Seat) -> None:
        """Sends the slot's job to its worker, once there is one that is ready."""
        if seat.job is not None and seat.ready and not seat.sent:
            seat.actor.send.remote(WithFiles(seat.job, read_checkpoint(Path(seat.job.folder))))
            seat.sent = True

    def answer(self, slot: int, word: str) -> None:
        if self._seats[slot].sent:
            self._seats[slot].actor.send.remote(word)

    def _end_job(self, slot: int, seat: _Seat) -> None:
        self._memory.release(slot)
        if seat.lock is not None:
            seat.lock.release()
        seat.job, seat.sent, seat.lock = None, False, None

    # Messages

    def wait(self, timeout_s: float) -> list[tuple[int, Message]]:
        messages, self._early = self._early, []
        self._say_who_waits()
        self._check_head()
        slots = {seat.receiving: slot for slot, seat in enumerate(self._seats) if seat.receiving is not None}
        ready, _ = self._ray.wait(list(slots), num_returns=1, timeout=0 if messages else timeout_s)
        if ready:  # it stops at the first one
            ready, _ = self._ray.wait(list(slots), num_returns=len(slots), timeout=0)
        for reference in ready:
            slot = slots[reference]
            seat = self._seats[slot]
            try:
                received: list[WithFiles] = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                messages += self._replace_lost(slot, seat, error)
                continue
            seat.receiving = seat.actor.receive.remote()
            for one in received:
                messages += self._handle(slot, seat, one)
        return messages

    def _handle(self, slot: int, seat: _Seat, received: WithFiles) -> list[tuple[int, Message]]:
        """What the driver receives of a worker's message."""
        message = received.message
        if isinstance(message, Placed):
            seat.placed = message
            line = f"node {message.host}, {self._describe_device(message.gpu)}"
            self.devices = (*self.devices[:slot], line, *self.devices[slot + 1 :])
            if message.version != __version__:
                self._give_up(seat, f"it has searchft {message.version}, the driver {__version__}")
        elif isinstance(message, WorkerReady):
            if message.unfit:
                self._give_up(seat, message.unfit)
            elif not seat.unfit:
                seat.ready, seat.failures = True, 0
                self._memory.set_size(seat.device, message.memory_bytes)
                self._send_job(seat)
        elif isinstance(message, PieceRequest):
            seat.actor.send.remote(self._find_piece(message))
        elif seat.job is not None and message.number == seat.job.number:
            write_checkpoint(Path(seat.job.folder), received.files)  # before the driver receives the message
            if not isinstance(message, EpochDone):
                self._end_job(slot, seat)
            if isinstance(message, JobFailed) and message.kind in REPLACED_AFTER:
                self._ray.kill(seat.actor)
                self._seats[slot] = self._spawn()
            if isinstance(message, JobFailed) and message.kind == "storage":
                message = dataclasses.replace(message, message=f"{seat.name}: {message.message}")
            return [(slot, message)]
        return []

    def _find_piece(self, request: PieceRequest) -> Any:
        """A reference: Ray brings the bytes to whoever is sent it."""
        key = request.sha256, request.piece
        if key not in self._pieces:
            files = self._needs.files if self._needs is not None else ()
            path = next(file.path for file in files if file.sha256 == request.sha256)
            with open(path, "rb") as file:
                file.seek(request.piece * PIECE_BYTES)
                self._pieces[key] = self._ray.put(file.read(PIECE_BYTES))
        return self._pieces[key]

    # Losses

    def _replace_lost(self, slot: int, seat: _Seat, error: Exception) -> list[tuple[int, Message]]:
        """A worker is gone: asks for another in its place; returns what the driver receives."""
        text = str(error)
        with contextlib.suppress(Exception):
            self._ray.kill(seat.actor)  # where it lives after all, cut off from us
        failures = 0 if seat.ready else seat.failures + 1
        if failures >= _TRIES:
            seat.actor = seat.receiving = None
            self._give_up(seat, (text.strip().splitlines() or [type(error).__name__])[-1].strip())
            return []
        new = self._seats[slot] = self._spawn(failures)
        if seat.job is not None and not seat.sent:  # it never had it: its successor will
            new.job, new.lock = seat.job, seat.lock
            return []
        if seat.placed is None:
            return []
        number = seat.job.number if seat.job is not None else None
        self._end_job(slot, seat)
        memory = isinstance(error, self._ray.exceptions.OutOfMemoryError) or any(words in text for words in _OUT_OF_MEMORY)
        how = "with its node" if "node has died" in text else "unexpectedly"
        return [(slot, WorkerDied(number, f"{seat.name} ended {how}", memory))]

    def _give_up(self, seat: _Seat, why: str) -> None:
        """Leaves a slot empty; its worker keeps its place, so that no other is put there. Raises InputError if none is left."""
        seat.unfit = why
        if all(other.unfit for other in self._seats):
            raise InputError(f"no worker can train. On {seat.name}: {why}", FLAG)
        self._say(f"warning: {seat.name} cannot take part: {why}")

    def _say_who_waits(self) -> None:
        """Says once that workers wait for a place, and what would give them one."""
        waiting = sum(seat.placed is None and not seat.unfit for seat in self._seats)
        if not waiting:
            self._unplaced_since, self._unplaced_said = time.monotonic(), 0
        elif waiting != self._unplaced_said and time.monotonic() - self._unplaced_since > NOTICE_AFTER_S:
            self._unplaced_said = waiting
            with contextlib.suppress(Exception):  # the head node may be away for a moment
                asked = f"each asks for {self.share}, the cluster has {describe_cluster()}"
                self._say(f"{waiting} of {len(self._seats)} workers wait for a place: {asked}")

    def _check_head(self) -> None:
        """Raises StorageError once the head node has been away for too long: Ray itself would end this process without a word."""
        now = time.monotonic()
        if now - self._head_asked < _HEAD_EVERY_S:
            return
        self._head_asked = now
        if is_listening(self._head):
            self._head_seen = time.monotonic()
        elif now - self._head_seen > _HEAD_AWAY_S:
            raise StorageError(f"the head node of the Ray cluster ({self._head}) is gone: start it again and run again")
