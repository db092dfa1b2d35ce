"""A worker on a Ray cluster: the same code as a local one (`worker.serve`) in a thread of an actor's process.

Ray calls `send` and `receive`; training runs beside them and speaks through two queues. Ray ends the process when the driver is gone.
Nothing of searchft is imported at the top: the environment that the driver sends must be set before.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_RECEIVE_S = 20.0  # how long `receive` waits for a message before it returns empty-handed and is asked again


@dataclass(frozen=True)
class Placed:
    """Ray has started the worker: its first message, before it imports anything slow."""

    host: str
    gpu: str
    """Ray's name of its GPU on that machine; empty on a processor."""
    version: str
    """Of searchft there."""


class RayWorker:
    """The actor. `send` and `receive` may run at the same time, each at most once."""

    def __init__(self, environment: Mapping[str, str], threads: int) -> None:
        import ray

        os.environ.update(environment)
        for number in (signal.SIGINT, signal.SIGHUP):  # the driver's business; SIGTERM is how Ray ends its processes
            with contextlib.suppress(ValueError):
                signal.signal(number, signal.SIG_IGN)
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        gpus = ray.get_gpu_ids()  # by Ray's names, those that this actor has a share of
        threading.Thread(target=self._work, args=(str(gpus[0]) if gpus else "", threads), daemon=True).start()

    def send(self, message: Any) -> None:
        """The driver's next message."""
        self._inbox.put(message)

    def receive(self) -> list[Any]:
        """WithFiles for the driver: at least one, unless none comes for a while."""
        found: list[Any] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._outbox.get(timeout=_RECEIVE_S))
            while True:
                found.append(self._outbox.get_nowait())
        return found

    def _work(self, gpu: str, threads: int) -> None:
        from searchft._version import __version__
        from searchft.execution.protocol import WorkerReady
        from searchft.execution.ray_files import QueueChannel, WithFiles, make_own_folder, settle
        from searchft.execution.worker import load_training, serve
        from searchft.files import cache_folder

        try:
            channel = QueueChannel(self._inbox, self._outbox, make_own_folder())
            channel.send(Placed(socket.gethostname(), gpu, __version__))
            prepare, memory_bytes = load_training("cuda:0" if gpu else "cpu", threads)
            serve(channel, lambda needs: prepare(settle(needs, cache_folder(), channel.fetch)), memory_bytes)
        except BaseException as error:  # a package that is missing here, a cache folder that cannot be written
            traceback.print_exc()  # into Ray's log of this process
            self._outbox.put(WithFiles(WorkerReady(0, f"{type(error).__name__}: {error}")))
