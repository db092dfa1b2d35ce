"""Fixtures around the harness: the real program in folders of its own, uninterrupted runs to compare with, a small disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.resilience import harness
from tests.search.conftest import postgres_server as postgres_server  # the fixture is here too


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The numbers of the analytic study, run without interruption."""
    uninterrupted = harness.Program(tmp_path_factory.mktemp("whole"))
    uninterrupted.finish()
    assert uninterrupted.recomputed() == 0
    return uninterrupted.numbers()


@pytest.fixture(scope="session")
def real_whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The small real study, run without interruption: the program that ran it."""
    uninterrupted = harness.Program(tmp_path_factory.mktemp("real"), text=harness.REAL, epoch_ms=0)
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
