"""Imports point one way: the design's order of rooms, read from the code itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import searchft

PACKAGE = Path(searchft.__file__).parent
LEVELS = (
    {"_version", "errors"},
    {"faults", "garbage", "machine", "uncompiled"},
    {"files"},
    {"recipe"},
    {"space", "models", "data"},
    {"facts", "features"},
    {"train"},
    {"execution"},
    {"search"},
    {"report", "export"},
    {"api"},
    {"cli"},
    {"__main__"},
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "searchft"}
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_below_it(path: Path) -> None:
    room = room_of(path)
    for module in imports_of(path):
        parts = module.split(".")
        if parts[0] != "searchft" or len(parts) < 2:
            continue
        other = parts[1]
        assert other == room or LEVEL[other] < LEVEL[room], f"{path} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_optuna_is_known_only_above_training(path: Path) -> None:
    if LEVEL[room_of(path)] < LEVEL["search"]:
        assert not any(module.split(".")[0] == "optuna" for module in imports_of(path))


def test_the_cheap_rooms_load_neither_torch_nor_optuna() -> None:
    code = (
        "import sys, searchft.cli, searchft.space, searchft.recipe, searchft.search.prune, searchft.search.records;"
        "print(sorted({'torch', 'torchvision', 'timm', 'optuna'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
