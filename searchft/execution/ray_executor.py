"""Workers as actors of a Ray cluster, one per slot. Ray finds each a node and its share of a GPU.

The executor outlives its workers. Where one is lost, with its process or with its node, another is asked for at once; Ray
places it when there is room, on a node that is left or on one that joins. Until it is ready its slot accepts no trial.

What the driver knows is never ahead of the trial's folder: the files that an epoch changed arrive with it, and are in place
before the driver hears of it. A lost node therefore costs at most the epoch under way. A worker that only seems lost (the
network was down) can do no harm: nobody listens to it any more, and it writes to nothing but its own node.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from searchft import __version__
from searchft.errors import InputError, StorageError
from searchft.execution.analytic_worker import VARIABLE as ANALYTIC
from searchft.execution.protocol import EpochDone, Job, JobDone, JobFailed, Message, WorkerDied, WorkerReady, WorkerSetup
from searchft.execution.ray_cluster import FLAG, Share, answers, connect, describe_cluster, living_nodes, plan_shares
from searchft.execution.ray_files import PIECE_BYTES, read_checkpoint, what_it_needs, write_checkpoint
from searchft.execution.ray_words import Ask, Delivery, Outset, Parcel, Placed
from searchft.execution.room import Room
from searchft.files import lock_file, remove_leftovers

NOTICE_AFTER_S = 30.0
"""How long workers may wait for a place before people are told."""

_PLACING_S = 3.0
"""How long `start` waits for Ray to say where the workers are, so that the first lines can name their nodes."""

_LOCK_WAIT_S = 2.0
"""How long a folder may be held by a local worker whose driver was killed: it looks every half second."""

_HEAD_EVERY_S = 5.0
"""How often the head node is asked whether it is there."""

HEAD_PATIENCE_S = 40.0
"""How long it may be away: Ray gives up after 60 s."""

_TRIES = 5
"""How often in a row a worker may fail to come up, before its slot is given up."""


_OUT_OF_MEMORY = ("memory pressure", "(OOM)", "OutOfMemory")
"""How Ray says that its memory monitor ended a worker before the kernel would have to."""


@dataclass
class _Seat:
    """A slot's worker of the moment."""

    actor: Any
    hearing: Any
    """The outstanding `hear`."""
    placed: Placed | None = None
    ready: bool = False
    unfit: str = ""
    """Why it can never train."""
    failures: int = 0
    """Workers of this slot that never came up, in a row."""
    job: Job | None = None
    given: bool = False
    """Whether the worker has the job (or it waits until there is one)."""
    lock: filelock.BaseFileLock | None = None

    @property
    def name(self) -> str:
        return f"worker on {self.placed.host}" if self.placed else "worker"

    @property
    def device(self) -> str:
        """Tells devices apart: those of two nodes, and two GPUs of one."""
        return f"{self.placed.host} {self.placed.gpu or 'cpu'}" if self.placed else ""


def start_on_ray(address: str, workers: int | None, gpus_per_worker: float | None, say: Callable[[str], None]) -> RayExecutor:
    """Connects to a cluster (see `ray_cluster.connect`) and asks it for workers (see `plan_shares`). Raises InputError."""
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
        say: told what people must know beside the driver's events: that no node has room, that a node is not fit.
        leave: whether `close` disconnects from Ray, too.
    """

    def __init__(self, share: Share, say: Callable[[str], None] = lambda text: None, leave: bool = False) -> None:
        import ray

        from searchft.execution.ray_worker import RayWorker

        self.share = share
        self._say, self._leave = say, leave
        self._ray = ray
        self._actor: Any = ray.remote(RayWorker)
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if name.startswith("SEARCHFT_") and name not in ("SEARCHFT_CACHE", "SEARCHFT_STORAGE")  # the node's own; a secret
        } | {"OMP_NUM_THREADS": str(share.cpus)}
        self._analytic = bool(os.environ.get(ANALYTIC))
        self._outset: Outset | None = None
        self._pieces: dict[tuple[str, int], Any] = {}
        """Pieces of large files in Ray's object store, where some node asked for them."""
        self._room = Room()
        self._early: list[tuple[int, Message]] = []
        """What the driver hears at its next `wait`."""
        self._seats = [self._spawn() for _ in range(share.workers)]
        self.devices = (f"Ray worker, {self._kind()}",) * share.workers
        self.kind = "cuda" if share.gpus else "cpu"
        self._unplaced_since, self._told = time.monotonic(), 0
        self._head: str = ray.get_runtime_context().gcs_address
        self._head_asked = self._head_seen = time.monotonic()
        self._closed = False

    def _kind(self, gpu: str = "") -> str:
        """What a slot computes on, for people."""
        if not self.share.gpus:
            return f"cpu ({self.share.cpus} thread{'s' if self.share.cpus != 1 else ''})"
        share = f" ({self.share.gpus:g} of it)" if self.share.gpus < 1 else ""
        return f"GPU {gpu}".rstrip() + share

    def _spawn(self, failures: int = 0) -> _Seat:
        """A worker for Ray to place, now or when there is room."""
        actor: Any = self._actor.options(  # Ray is not to restart it: its successor must be told everything anew
            num_cpus=self.share.cpus,
            num_gpus=self.share.gpus,
            max_concurrency=2,
            max_restarts=0,
            scheduling_strategy="SPREAD",
        ).remote(self._environment, self.share.cpus, self._analytic)
        if self._outset is not None:
            actor.tell.remote(self._outset)
        return _Seat(actor, actor.hear.remote(), failures=failures)

    def start(self, setup: WorkerSetup) -> None:
        self._outset = Outset(setup, None) if self._analytic else what_it_needs(setup)
        for seat in self._seats:
            if seat.actor is not None:
                seat.actor.tell.remote(self._outset)
        deadline = time.monotonic() + _PLACING_S
        while time.monotonic() < deadline and not all(seat.placed for seat in self._seats):
            self._early += self.wait(0.1)

    # Trials

    def accepts(self, slot: int, memory_bytes: int) -> bool:
        seat = self._seats[slot]
        return seat.ready and seat.job is None and self._room.fits(seat.device, memory_bytes)

    def submit(self, slot: int, job: Job) -> None:
        seat = self._seats[slot]
        seat.job, seat.given = job, False
        folder = Path(job.folder)
        lock = lock_file(folder / "worker.lock")
        try:
            lock.acquire(timeout=_LOCK_WAIT_S)
        except filelock.Timeout:
            seat.job = None
            failed = JobFailed(job.number, "held", f"another process holds {folder}: end it and run again")
            self._early.append((slot, failed))
            return
        seat.lock = lock
        remove_leftovers(folder)
        self._room.take(slot, seat.device, job.memory_bytes)
        self._give(seat)

    def _give(self, seat: _Seat) -> None:
        """Hands the slot's job to its worker, once there is one that is ready."""
        if seat.job is not None and seat.ready and not seat.given:
            seat.actor.tell.remote(Delivery(seat.job, read_checkpoint(Path(seat.job.folder))))
            seat.given = True

    def answer(self, slot: int, word: str) -> None:
        seat = self._seats[slot]
        if seat.given:
            seat.actor.tell.remote(word)

    # Messages

    def wait(self, timeout_s: float) -> list[tuple[int, Message]]:
        messages, self._early = self._early, []
        self._notice()
        self._check_head()
        slots = {seat.hearing: slot for slot, seat in enumerate(self._seats) if seat.hearing is not None}
        ready, _ = self._ray.wait(list(slots), num_returns=1, timeout=0 if messages else timeout_s)
        if ready:  # it stops at the first one
            ready, _ = self._ray.wait(list(slots), num_returns=len(slots), timeout=0)
        for reference in ready:
            messages += self._heard(slots[reference], reference)
        return messages

    def _heard(self, slot: int, reference: Any) -> list[tuple[int, Message]]:
        seat = self._seats[slot]
        try:
            parcels: list[Parcel] = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return self._lost(slot, error)
        seat.hearing = seat.actor.hear.remote()
        messages = []
        for parcel in parcels:
            message = self._take(slot, seat, parcel)
            if message is not None:
                messages.append((slot, message))
        return messages

    def _take(self, slot: int, seat: _Seat, parcel: Parcel) -> Message | None:
        """What the driver is to hear of a parcel."""
        match parcel.message:
            case Placed() as placed:
                seat.placed = placed
                line = f"node {placed.host}, {self._kind(placed.gpu)}"
                self.devices = (*self.devices[:slot], line, *self.devices[slot + 1 :])
                if placed.version != __version__:
                    self._give_up(seat, f"it has searchft {placed.version}, the driver {__version__}")
            case WorkerReady() as word:
                if word.unfit:
                    self._give_up(seat, word.unfit)
                elif not seat.unfit:
                    seat.ready, seat.failures = True, 0
                    self._room.has(seat.device, word.memory_bytes)
                    self._give(seat)
            case Ask() as question:
                seat.actor.tell.remote(self._piece(question))
            case EpochDone() | JobDone() | JobFailed() as message if seat.job is not None and message.number == seat.job.number:
                write_checkpoint(Path(seat.job.folder), parcel.files)
                if isinstance(message, EpochDone):
                    return message
                self._end_job(slot, seat)
                if isinstance(message, JobFailed) and message.kind == "memory":  # the only sure way to give everything back
                    self._ray.kill(seat.actor)
                    self._seats[slot] = self._spawn()
                if isinstance(message, JobFailed) and message.kind == "storage":
                    message = JobFailed(message.number, message.kind, f"{seat.name}: {message.message}", message.traceback)
                return message
        return None

    def _end_job(self, slot: int, seat: _Seat) -> None:
        self._room.leave(slot)
        seat.job, seat.given = None, False
        if seat.lock is not None:
            seat.lock.release()
            seat.lock = None

    def _piece(self, question: Ask) -> Any:
        """A reference: Ray brings the bytes to whoever is told it."""
        key = question.sha256, question.piece
        if key not in self._pieces:
            assert self._outset is not None
            files = [weights.file for weights in self._outset.weights]
            files += [self._outset.images.pixels] if self._outset.images is not None else []
            path = next(file.path for file in files if file.sha256 == question.sha256)
            with open(path, "rb") as file:
                file.seek(question.piece * PIECE_BYTES)
                self._pieces[key] = self._ray.put(file.read(PIECE_BYTES))
        return self._pieces[key]

    # Losses

    def _lost(self, slot: int, error: Exception) -> list[tuple[int, Message]]:
        """A worker is gone: what the driver hears, and another in its place."""
        seat = self._seats[slot]
        text = str(error)
        with contextlib.suppress(Exception):
            self._ray.kill(seat.actor)  # where it lives after all, cut off from us
        failures = 0 if seat.ready else seat.failures + 1
        if failures >= _TRIES:
            seat.actor = seat.hearing = None
            self._give_up(seat, (text.strip().splitlines() or [type(error).__name__])[-1].strip())
            return []
        new = self._seats[slot] = self._spawn(failures)
        if seat.job is not None and not seat.given:  # it never had it: its successor will
            new.job, new.lock = seat.job, seat.lock
            return []
        if seat.placed is None:
            return []
        number = seat.job.number if seat.job is not None else None
        self._end_job(slot, seat)
        memory = isinstance(error, self._ray.exceptions.OutOfMemoryError) or any(words in text for words in _OUT_OF_MEMORY)
        reason = f"{seat.name} ended with its node" if "node has died" in text else f"{seat.name} ended unexpectedly"
        return [(slot, WorkerDied(number, reason, out_of_memory=memory))]

    def _give_up(self, seat: _Seat, why: str) -> None:
        """Leaves a slot empty whose worker cannot train; it keeps its place, so that no other is put there. Raises InputError if
        none is left."""
        seat.unfit = why
        if all(other.unfit for other in self._seats):
            raise InputError(f"no worker can train. On {seat.name}: {why}", FLAG)
        self._say(f"warning: {seat.name} cannot take part: {why}")

    def _notice(self) -> None:
        """Tells people once that workers wait for a place, and what would give them one."""
        waiting = sum(seat.placed is None and not seat.unfit for seat in self._seats)
        if not waiting:
            self._unplaced_since, self._told = time.monotonic(), 0
        elif waiting != self._told and time.monotonic() - self._unplaced_since > NOTICE_AFTER_S:
            self._told = waiting
            with contextlib.suppress(Exception):  # the head node may be away for a moment
                self._say(
                    f"{waiting} of {len(self._seats)} workers wait for a place: each asks for {self.share}, "
                    f"the cluster has {describe_cluster()}"
                )

    def _check_head(self) -> None:
        """Raises StorageError once the head node has been away for too long: Ray itself would end this process, without a word to
        whoever watches. A cluster that restarts its head within that time goes on."""
        now = time.monotonic()
        if now - self._head_asked < _HEAD_EVERY_S:
            return
        self._head_asked = now
        if answers(self._head):
            self._head_seen = time.monotonic()
        elif now - self._head_seen > HEAD_PATIENCE_S:
            raise StorageError(f"the head node of the Ray cluster ({self._head}) is gone: start it again and run again")

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
