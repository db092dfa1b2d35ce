"""Fixtures: Ray clusters on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.execution import grid


@pytest.fixture(scope="session")
def grids() -> ModuleType:
    pytest.importorskip("ray", reason="NOT RUN: needs Ray")
    return grid


@pytest.fixture
def make_grid(grids: ModuleType, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`make_grid(nodes=2)`: a cluster whose head has no CPU for workers."""
    made: list[Any] = []

    def make(**settings: Any) -> Any:
        made.append(grids.Grid(tmp_path / "nodes", **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()
