"""A Ray cluster: connecting to it in silence, what it has, and how that is shared among workers.

Ray prints, sets signal handlers and waits for minutes; a search on it should read, stop and fail as one on this machine does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from searchft.errors import InputError

FLAG = "--ray"

_CONNECT_TIMEOUT_S = 5.0  # for the head node to accept a connection
_INIT_TIMEOUT_S = 120.0  # for Ray to join a cluster whose head answers, or to start here (over a minute on a busy machine)
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # the last call of a dead actor
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a warning about a change to come
    "RAY_LOG_TO_DRIVER": "0",
    "RAY_TQDM": "0",
}


def count_words(count: float, thing: str) -> str:
    """`1 CPU`, `3 CPUs`."""
    return f"{count:g} {thing}{'s' if count != 1 else ''}"


@dataclass(frozen=True)
class Share:
    """What each worker asks Ray for."""

    workers: int
    cpus: int
    """Also its arithmetic threads."""
    gpus: float

    def __str__(self) -> str:
        return count_words(self.cpus, "CPU") + (f" and {self.gpus:g} GPU" if self.gpus else "")


def plan_shares(nodes: Sequence[Mapping[str, float]], workers: int | None, gpus_per_worker: float | None) -> Share:
    """How many workers, and what each asks for.

    Args:
        nodes: each living node's resources (`CPU`, `GPU`).
        workers: how many; None: as many as the GPUs give room for, or one per node on processors.
        gpus_per_worker: share of a GPU, or several of them; None: one where the cluster has any.

    Without GPUs each gets as many processors as leave room for all, at least one. Raises InputError where the number of workers
    has to be given, or the share makes no sense.
    """
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    cpus = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    share = gpus_per_worker if gpus_per_worker is not None else float(sum(gpus) > 0)
    if share > 1 and share != int(share):
        raise InputError(f"must be at most 1 or a whole number but got {share:g}", "--gpus-per-worker")
    if workers is None:
        workers = sum(int(n * (1 / share) + 1e-6) if share <= 1 else n // int(share) for n in gpus) if share else len(cpus)
        if not workers:
            what = "GPU" if share else "node with a CPU"
            raise InputError(f"must be given: the cluster has no {what} yet", "--workers")
    if share:
        return Share(workers, 1, share)
    each = max(cpus, default=1)
    while each > 1 and sum(n // each for n in cpus) < workers:
        each -= 1
    return Share(workers, each, 0.0)


def connect(address: str) -> bool:
    """Joins the cluster at `address` (`auto`, or HOST:PORT of the head node), of which this machine must be a node.

    Where `auto` finds none, Ray is started on this machine. Returns whether Ray is to be left again. Raises InputError, within
    seconds, where Ray is not installed, nothing answers, or it cannot be joined.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise InputError("needs Ray: pip install 'searchft[ray]'", FLAG) from error
    if ray.is_initialized():  # by somebody else, who also leaves it
        return False
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    with contextlib.suppress(Exception):
        # No public way: Ray prints what its daemons say about dead nodes to our stdout, where answers go
        from ray._private import worker

        worker._worker_logs_enabled = False
    address = os.environ.get("RAY_ADDRESS", "") or "auto" if address == "auto" else address
    if address != "auto":
        _check_address(address)
    try:
        _init(address=address)
    except ConnectionError:  # `auto`, and nothing runs here
        _init(address="local", include_dashboard=False)
    return True


def _init(**settings: Any) -> None:
    """`ray.init` with a bound, in a thread: it would wait for minutes, and Ctrl-C with it; there it cannot set signal handlers."""
    import ray

    answers: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def initialize() -> None:
        try:
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL, configure_logging=True, **settings)
        except BaseException as error:
            answers.put(error)
            return
        answers.put(None)
        threading.Event().wait()  # Linux ends Ray's daemons with the thread that started them

    where = settings["address"]
    try:
        with _stderr_held():
            threading.Thread(target=initialize, daemon=True).start()
            trouble = answers.get(timeout=_INIT_TIMEOUT_S)
    except queue.Empty:
        raise InputError(f"Ray does not answer at {where} within {_INIT_TIMEOUT_S:.0f} s", FLAG) from None
    if isinstance(trouble, ConnectionError) and where == "auto":
        raise trouble
    if trouble is not None:
        text = " ".join(str(trouble).split()).rstrip(".")[:300] or type(trouble).__name__
        hint = "" if where in ("auto", "local") else f". Is this machine a node of that cluster (ray start --address={where})?"
        raise InputError(f"cannot join Ray at {where}: {text}{hint}", FLAG) from trouble


def _check_address(address: str) -> None:
    """Raises InputError unless Ray listens there: it would itself try for a minute, aloud."""
    if "://" in address:
        rule = f"must be HOST:PORT of a head node that this machine has joined (no Ray Client) but got {address}"
        raise InputError(rule, FLAG)
    if not all(address.rpartition(":")) or not address.rpartition(":")[2].isdigit():
        raise InputError(f"must be HOST:PORT of the cluster's head node (usually HOST:6379) but got {address!r}", FLAG)
    try:
        with _open(address, _CONNECT_TIMEOUT_S) as connection:
            # Ray's control store greets as gRPC does, unlike its dashboard, on whose port many try first
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            greets = connection.recv(9)[3:4] == b"\x04"
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"nobody answers at {address} ({reason}): is it the head node's address and port?", FLAG) from error
    if not greets and not os.environ.get("RAY_USE_TLS"):
        raise InputError(f"must be HOST:PORT of the cluster's head node but what answers at {address} is not Ray", FLAG)


def is_listening(address: str) -> bool:
    """Whether anybody listens at HOST:PORT, found out within a second."""
    with contextlib.suppress(OSError), _open(address, 1.0):
        return True
    return False


def _open(address: str, timeout_s: float) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s)


@contextlib.contextmanager
def _stderr_held() -> Iterator[None]:
    """While Ray connects, its compiled part writes warnings straight to file descriptor 2; what matters of them it raises, too."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def living_nodes() -> list[Mapping[str, float]]:
    """The resources of each node that lives."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def describe_cluster() -> str:
    """What the cluster has, for people: `3 CPUs and 1 GPU on 2 nodes`."""
    nodes = living_nodes()
    cpus, gpus = (count_words(sum(node.get(name, 0.0) for node in nodes), name) for name in ("CPU", "GPU"))
    return f"{cpus} and {gpus} on {count_words(len(nodes), 'node')}"
