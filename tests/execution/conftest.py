"""Fixtures: Ray clusters on this machine, and the harness that runs the real program."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load(name: str, path: Path) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_GRID = _load("ray_grid", Path(__file__).with_name("grid.py"))
_HARNESS = _load("resilience_harness", Path(__file__).parents[1] / "resilience" / "harness.py")


@pytest.fixture(scope="session")
def grids() -> ModuleType:
    pytest.importorskip("ray", reason="NOT RUN: needs Ray")
    return _GRID


@pytest.fixture(scope="session")
def harness() -> ModuleType:
    return _HARNESS


@pytest.fixture
def make_grid(grids: ModuleType, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`make_grid(nodes=2)`: a cluster whose head has no CPU for workers."""
    made: list[Any] = []

    def make(**settings: Any) -> Any:
        made.append(grids.Grid(tmp_path / "nodes", **settings))
        return made[-1]

    yield make
    for grid in made:
        grid.close()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`program("name", text=…)`: the program in a folder of that name. Whatever still runs is ended after the test."""
    made: list[Any] = []

    def make(name: str = "here", **settings: Any) -> Any:
        made.append(_HARNESS.Program(tmp_path / name, **settings))
        return made[-1]

    yield make
    for one in made:
        for process in one.processes():
            process.kill()
