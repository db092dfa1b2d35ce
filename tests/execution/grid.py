"""A Ray cluster of several nodes on this machine: real processes, really killed. Loaded by test_ray.py and by the kill table."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.resilience.harness import ROOT

QUICK_TO_NOTICE = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
"""Ray's own settings take about 14 s to believe that a node is dead."""

WAYS = ("worker", "raylet", "node")
"""What can be killed: a worker's process; a node's daemon, with which its workers go; everything that a node has started."""


class Grid:
    """Nodes of one CPU each, each with a cache folder of its own."""

    def __init__(self, folder: Path, head_cpus: int = 0, nodes: int = 0, settings: dict[str, Any] | None = None) -> None:
        from ray.cluster_utils import Cluster

        self.folder, self.made, self.cluster = folder, 0, Cluster()
        self.nodes: list[Any] = []
        """Those on which workers may be."""
        self.add(head_cpus, include_dashboard=False, _system_config=QUICK_TO_NOTICE if settings is None else settings)
        self.address: str = self.cluster.address
        for _ in range(nodes):
            self.add()

    def add(self, cpus: int = 1, **more: Any) -> Any:
        """One more node; the first is the head."""
        self.made += 1
        cache = self.folder / f"node-{self.made}"
        environment = {"SEARCHFT_CACHE": str(cache), "PYTHONPATH": ROOT}
        settings = {"num_cpus": cpus, "object_store_memory": 80 << 20, "env_vars": environment, **more}
        node = self.cluster.add_node(wait=self.made == 1, **settings)
        node.cache = cache
        if cpus:
            self.nodes.append(node)
        return node

    def raylet(self, node: Any) -> psutil.Process:
        return psutil.Process(node.all_processes["raylet"][0].process.pid)

    def workers(self, node: Any) -> list[psutil.Process]:
        """Our workers there."""
        with contextlib.suppress(psutil.Error):
            return [p for p in self.raylet(node).children() if "RayWorker" in " ".join(p.cmdline())]
        return []

    def busy_node(self, within_s: float = 60.0) -> Any:
        """A node that has a worker of ours."""
        return await_that(lambda: next((n for n in self.nodes if self.workers(n)), None), within_s)

    def kill(self, node: Any, way: str) -> None:
        """Ends one of WAYS by SIGKILL. A node whose daemon is gone belongs to the cluster no more."""
        raylet = self.raylet(node)
        victims = {"worker": self.workers(node), "raylet": [raylet], "node": [raylet, *raylet.children(recursive=True)]}[way]
        for process in victims:
            with contextlib.suppress(psutil.Error):
                os.kill(process.pid, signal.SIGKILL)
        if way != "worker":
            self.nodes.remove(node)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.cluster.shutdown()


def await_that(condition: Callable[[], Any], within_s: float = 120.0) -> Any:
    """The first true value of `condition`, asked 50 times a second."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        time.sleep(0.02)
    return value


def epochs_begun(program: Any) -> int:
    try:
        return sum(program.epochs("epoch.begun").values())
    except FileNotFoundError:
        return 0


def run_with_losses(grid: Grid, program: Any, ways: tuple[str, ...], epochs_apart: int = 8, timeout_s: float = 300.0) -> int:
    """Runs the program on the grid and strikes each time that so many more epochs were begun; returns how often it did.

    A lost node is replaced by a new one at once, which joins while the study runs; `added` only adds one.
    """
    process = program.start()
    struck = 0
    try:
        for way in ways:
            goal = epochs_begun(program) + epochs_apart
            await_that(lambda goal=goal: epochs_begun(program) >= goal or process.poll() is not None, timeout_s)
            if process.poll() is not None:
                break
            if way != "added":
                grid.kill(grid.busy_node(), way)
                program.kills += 1
                struck += 1
            if way != "worker":
                grid.add()
        out, err = process.communicate(timeout=timeout_s)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 0, f"{out}\n{err}"
    program.said = out + err
    return struck
