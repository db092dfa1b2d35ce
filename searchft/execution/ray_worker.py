"""A worker on a Ray cluster: the same code as a local one (`worker.serve`) in a thread of an actor's process.

Ray calls `tell` and `hear`; training runs beside them and speaks through two queues. The trial's folder is node-local and
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from searchft.execution.protocol import Job, WorkerSetup
    from searchft.execution.ray_files import ChangedFiles
    from searchft.execution.ray_words import BigFile, Delivery

_PATIENCE_S = 20.0
"""How long `hear` waits for something to say before it returns empty-handed and is asked again."""


class RayWorker:
    """The actor. `tell` and `hear` may run at the same time, each at most once."""

    def __init__(self, environment: Mapping[str, str], threads: int, analytic: bool) -> None:
        os.environ.update(environment)
        for number in (signal.SIGINT, signal.SIGHUP):  # the driver's business; SIGTERM is how Ray ends its processes
            with contextlib.suppress(ValueError):
                signal.signal(number, signal.SIG_IGN)
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        gpu = _given_gpu()
        threading.Thread(target=self._work, args=(gpu, threads, analytic), daemon=True).start()

    def tell(self, message: Any) -> None:
        """The driver's next word."""
        self._inbox.put(message)

    def hear(self) -> list[Any]:
        """Parcels for the driver: at least one, unless nothing is said for a while."""
        try:
            said = [self._outbox.get(timeout=_PATIENCE_S)]
        except queue.Empty:
            return []
        with contextlib.suppress(queue.Empty):
            while True:
                said.append(self._outbox.get_nowait())
        return said

    def _work(self, gpu: str, threads: int, analytic: bool) -> None:
        from searchft import __version__
        from searchft.execution.protocol import WorkerReady
        from searchft.execution.ray_words import Outset, Placed
        from searchft.execution.worker import serve, training

        device = "cuda:0" if gpu else "cpu"
        channel: QueueChannel | None = None
        try:
            channel = QueueChannel(self._inbox, self._outbox, own_folder())
            channel.send(Placed(socket.gethostname(), device, gpu, __version__))
            if analytic:
                from searchft.execution.analytic_worker import analytic_fit

                serve(channel, lambda outset: analytic_fit)
                return
            from searchft.execution.ray_files import settle
            from searchft.files import cache_folder, store_budget_bytes

            prepare, memory_bytes = training(device, threads)

            def here(outset: Outset) -> Any:
                setup: WorkerSetup = settle(outset, cache_folder(), channel.fetch)
                budget_bytes = store_budget_bytes(Path(setup.store)) if setup.store else 0
                return prepare(dataclasses.replace(setup, store_budget_bytes=budget_bytes))

            serve(channel, here, memory_bytes)
        except BaseException as error:  # a package that is missing here, a cache folder that cannot be written
            unfit = f"{type(error).__name__}: {error}"
            traceback.print_exc()  # into Ray's log of this process
            from searchft.execution.ray_words import Parcel

            self._outbox.put(Parcel(WorkerReady(socket.gethostname(), 0, unfit), {}))


class QueueChannel:
    """What `worker.serve` speaks into. Turns deliveries into node-local folders, and these into parcels."""

    def __init__(self, inbox: queue.SimpleQueue[Any], outbox: queue.SimpleQueue[Any], folder: Path) -> None:
        self._inbox, self._outbox, self._folder = inbox, outbox, folder
        self._changed: ChangedFiles | None = None

    def recv(self) -> Any:
        from searchft.execution.ray_words import Delivery

        message = self._inbox.get()
        return self._unpack(message) if isinstance(message, Delivery) else message

    def send(self, message: Any, /) -> None:
        from searchft.execution.protocol import EpochDone, JobDone, JobFailed
        from searchft.execution.ray_words import Parcel

        files: Mapping[str, bytes] = {}
        if self._changed is not None and isinstance(message, EpochDone | JobDone | JobFailed):
            with contextlib.suppress(OSError):  # a disk that fails is reported by whoever wrote there
                files = self._changed.take()
        if self._changed is not None and isinstance(message, JobDone | JobFailed):
            shutil.rmtree(self._changed.folder, ignore_errors=True)
            self._changed = None
        self._outbox.put(Parcel(message, files))

    def fetch(self, needed: BigFile) -> Iterator[bytes]:
        """A file of the driver's, piece by piece."""
        from searchft.execution.ray_files import PIECE_BYTES
        from searchft.execution.ray_words import Ask

        for piece in range(-(-needed.size_bytes // PIECE_BYTES)):
            self.send(Ask(needed.sha256, piece))
            yield self.recv()

    def _unpack(self, delivery: Delivery) -> Job:
        from searchft.execution.ray_files import ChangedFiles, write_checkpoint

        folder = self._folder / f"{delivery.job.number:04d}"
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True)
        try:
            write_checkpoint(folder, delivery.files)
        except Exception:  # then it begins again, and the first checkpoint that cannot be written says why
            shutil.rmtree(folder, ignore_errors=True)
        self._changed = ChangedFiles(folder)
        return dataclasses.replace(delivery.job, folder=str(folder))


def own_folder() -> Path:
    """A folder of this process below the node's cache folder. Those that killed workers left are removed first."""
    from searchft.files import cache_folder, lock_file

    root = cache_folder() / "ray"
    root.mkdir(parents=True, exist_ok=True)
    with lock_file(root / "making.lock"):
        for left in root.iterdir():
            if left.is_dir():
                alive = lock_file(left / "alive.lock")
                with contextlib.suppress(TimeoutError), alive.acquire(blocking=False):
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
        given = ray.get_gpu_ids()
        return str(given[0]) if given else ""
    return ""
