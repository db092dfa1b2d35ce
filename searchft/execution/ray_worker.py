"""A worker on a Ray cluster: the same code as a local one (`worker.serve`) in a thread of an actor's process.

Ray calls `send` and `receive`; training runs beside them and speaks through two queues. The trial's folder is node-local and
lasts as long as the trial runs here: what it holds travels with each epoch. Ray ends the process when the driver is gone.

This module imports nothing of searchft at its top: the environment that the driver sends must be set before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import shutil
import signal
import socket
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from searchft.execution.protocol import Job
    from searchft.execution.ray_files import BigFile, ChangedFiles, NodeSetup, WithFiles

_RECEIVE_S = 20.0
"""How long `receive` waits for a message before it returns empty-handed and is asked again."""


@dataclass(frozen=True)
class Placed:
    """Ray has started the worker: the first thing it says, before it imports anything slow."""

    host: str
    """Its machine's name."""
    gpu: str
    """Ray's name of its GPU on that machine; empty on a processor."""
    version: str
    """Of searchft there."""


class RayWorker:
    """The actor. `send` and `receive` may run at the same time, each at most once."""

    def __init__(self, environment: Mapping[str, str], threads: int, analytic: bool) -> None:
        os.environ.update(environment)
        for number in (signal.SIGINT, signal.SIGHUP):  # the driver's business; SIGTERM is how Ray ends its processes
            with contextlib.suppress(ValueError):
                signal.signal(number, signal.SIG_IGN)
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._work, args=(_given_gpu(), threads, analytic), daemon=True).start()

    def send(self, message: Any) -> None:
        """The driver's next message."""
        self._inbox.put(message)

    def receive(self) -> list[Any]:
        """WithFiles for the driver: at least one, unless nothing is said for a while."""
        found: list[Any] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._outbox.get(timeout=_RECEIVE_S))
            while True:
                found.append(self._outbox.get_nowait())
        return found

    def _work(self, gpu: str, threads: int, analytic: bool) -> None:
        from searchft._version import __version__
        from searchft.execution.protocol import WorkerReady
        from searchft.execution.ray_files import WithFiles, settle
        from searchft.execution.worker import serve, training
        from searchft.files import cache_folder, store_budget_bytes

        try:
            channel = QueueChannel(self._inbox, self._outbox, make_own_folder())
            channel.send(Placed(socket.gethostname(), gpu, __version__))
            if analytic:
                from searchft.execution.analytic_worker import analytic_fit

                serve(channel, lambda needs: analytic_fit)
                return
            prepare, memory_bytes = training("cuda:0" if gpu else "cpu", threads)

            def settle_and_prepare(needs: NodeSetup) -> Any:
                setup = settle(needs, cache_folder(), channel.fetch)
                budget_bytes = store_budget_bytes(Path(setup.store)) if setup.store else 0
                return prepare(dataclasses.replace(setup, store_budget_bytes=budget_bytes))

            serve(channel, settle_and_prepare, memory_bytes)
        except BaseException as error:  # a package that is missing here, a cache folder that cannot be written
            traceback.print_exc()  # into Ray's log of this process
            unfit = f"{type(error).__name__}: {error}"
            self._outbox.put(WithFiles(WorkerReady(socket.gethostname(), 0, unfit), {}))


class QueueChannel:
    """What `worker.serve` speaks into. Turns jobs that come with files into node-local folders, and takes their files along."""

    def __init__(self, inbox: queue.SimpleQueue[Any], outbox: queue.SimpleQueue[Any], folder: Path) -> None:
        self._inbox, self._outbox, self._folder = inbox, outbox, folder
        self._changed: ChangedFiles | None = None

    def recv(self) -> Any:
        from searchft.execution.ray_files import WithFiles

        message = self._inbox.get()
        return self._unpack(message) if isinstance(message, WithFiles) else message

    def send(self, message: Any, /) -> None:
        from searchft.execution.protocol import EpochDone, JobDone, JobFailed
        from searchft.execution.ray_files import WithFiles

        files: Mapping[str, bytes] = {}
        if self._changed is not None and isinstance(message, EpochDone | JobDone | JobFailed):
            with contextlib.suppress(OSError):  # a disk that fails is reported by whoever wrote there
                files = self._changed.take()
            if not isinstance(message, EpochDone):
                shutil.rmtree(self._changed.folder, ignore_errors=True)
                self._changed = None
        self._outbox.put(WithFiles(message, files))

    def fetch(self, needed: BigFile) -> Iterator[bytes]:
        """A file of the driver's, piece by piece."""
        from searchft.execution.ray_files import PIECE_BYTES, PieceRequest

        for piece in range(-(-needed.size_bytes // PIECE_BYTES)):
            self.send(PieceRequest(needed.sha256, piece))
            yield self.recv()

    def _unpack(self, given: WithFiles) -> Job:
        from searchft.execution.ray_files import ChangedFiles, write_checkpoint

        job: Job = given.message
        folder = self._folder / f"{job.number:04d}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True)
            write_checkpoint(folder, given.files)
        except Exception:  # then it begins again, and the first checkpoint that cannot be written says why
            shutil.rmtree(folder, ignore_errors=True)
        self._changed = ChangedFiles(folder)
        return dataclasses.replace(job, folder=str(folder))


def make_own_folder() -> Path:
    """A folder of this process below the node's cache folder. Those that killed workers left are removed first."""
    from searchft.files import cache_folder, lock_file

    root = cache_folder() / "ray"
    root.mkdir(parents=True, exist_ok=True)
    with lock_file(root / "making.lock"):
        for left in (entry for entry in root.iterdir() if entry.is_dir()):
            with contextlib.suppress(TimeoutError), lock_file(left / "alive.lock").acquire(blocking=False):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=root, prefix="worker-"))
        _held.append(lock_file(folder / "alive.lock"))
        _held[-1].acquire()
    return folder


_held: list[Any] = []
"""Locks that last as long as this process."""


def _given_gpu() -> str:
    """Ray's name of the GPU that this actor has a share of; empty: none."""
    import ray

    with contextlib.suppress(Exception):
        return str(ray.get_gpu_ids()[0])
    return ""
