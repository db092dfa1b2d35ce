"""Fixtures around the harness: the real program in folders of its own, uninterrupted runs to compare with, a small disk."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_HARNESS = _load("resilience_harness", Path(__file__).with_name("harness.py"))
_SEARCH = _load("search_conftest", Path(__file__).parents[1] / "search" / "conftest.py")

postgres_server = _SEARCH.postgres_server


@pytest.fixture(scope="session")
def harness() -> ModuleType:
    return _HARNESS


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Any]:
    """`program("name", text=…)`: the program in a folder of that name. Whatever still runs is ended after the test."""
    made: list[Any] = []

    def make(name: str = "here", **settings: Any) -> Any:
        made.append(_HARNESS.Program(tmp_path / name, **settings))
        return made[-1]

    yield make
    for one in made:
        for process in one.processes():
            process.kill()


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The numbers of the analytic study, run without interruption."""
    uninterrupted = _HARNESS.Program(tmp_path_factory.mktemp("whole"))
    uninterrupted.finish()
    assert uninterrupted.recomputed() == 0
    return uninterrupted.numbers()


@pytest.fixture(scope="session")
def real_whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The small real study, run without interruption: the program that ran it."""
    uninterrupted = _HARNESS.Program(tmp_path_factory.mktemp("real"), text=_HARNESS.REAL, epoch_ms=0)
    uninterrupted.finish()
    return uninterrupted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """`small_disk("name", "2m")`: a file system of that size. Needs the right to mount."""
    mounted: list[Path] = []

    def mount(name: str, size: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"NOT RUN: a full disk needs the right to mount a tmpfs ({done.stderr.strip() or os.geteuid()})")
        mounted.append(folder)
        return folder

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", "-l", str(folder)], check=False)
