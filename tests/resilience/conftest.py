"""Fixtures around the harness: uninterrupted runs to compare with, finished studies to damage, a small disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.resilience import harness
from tests.search.conftest import postgres_server as postgres_server  # the fixture is here too


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> harness.Program:
    """The program that ran the analytic study without interruption. Read only."""
    program = harness.Program(tmp_path_factory.mktemp("whole"))
    program.finish()
    assert program.recomputed() == 0
    return program


@pytest.fixture(scope="session")
def whole(uninterrupted: harness.Program) -> list[Any]:
    """Its numbers."""
    return uninterrupted.numbers()


@pytest.fixture
def finished(uninterrupted: harness.Program, program: Callable[..., harness.Program]) -> harness.Program:
    """A copy of that finished study, to change."""
    copy = program()
    shutil.copytree(uninterrupted.study.parent, copy.study.parent)
    return copy


@pytest.fixture(scope="session")
def real_whole(tmp_path_factory: pytest.TempPathFactory) -> harness.Program:
    """The program that ran the small real study without interruption. Read only."""
    program = harness.Program(tmp_path_factory.mktemp("real"), text=harness.REAL, epoch_ms=0)
    program.finish()
    return program


@pytest.fixture
def on_postgres(program: Callable[..., Any], postgres_server: Any) -> Callable[..., Any]:
    """`on_postgres(…)`: the program with its study in a database of its own, named through the environment."""
    return lambda **settings: program(environment={"SEARCHFT_STORAGE": postgres_server.fresh_database()}, **settings)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`small_disk("2m")`: a file system of that size. Needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"NOT RUN: a full disk needs the right to mount a tmpfs ({done.stderr.strip() or os.geteuid()})")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "-l", str(folder)], check=False)
