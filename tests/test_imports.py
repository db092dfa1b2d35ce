"""Imports point one way and in no circle, and files stay short: the design's house, read from the code itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import searchft

PACKAGE = Path(searchft.__file__).parent
LEVELS = (
    {"_version", "errors", "wording"},
    {"faults", "machine"},
    {"files"},
    {"cache", "recipe"},
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


CIRCLES = (
    # through `__version__` and the lazy names of searchft/__init__.py
    {
        *("searchft", "searchft.api", "searchft.search.session", "searchft.export.checkpoint"),
        *("searchft.execution.ray_executor", "searchft.execution.ray_worker"),
    },
)
"""Modules that import each other. May only shrink."""

LONGEST = 400
LONG = {"recipe/fields.py": 600}
"""Files that may have more lines than LONGEST: the table of fields alone."""

FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """`searchft.space.space`; a folder's `__init__.py` has the folder's name."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path) for path in FILES}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it: in functions and for types too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path}:{node.lineno}: imports are absolute here"
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES
            found |= inner or {node.module}
    return found


IMPORTS = {name_of(path): imports_of(path) for path in FILES}


def room_of(module: str) -> str:
    return module.split(".")[1]


def test_a_room_imports_only_rooms_below_it() -> None:
    """searchft/__init__.py apart: it offers what is above."""
    upward = [
        f"{module} imports {other}"
        for module in MODULES - {"searchft"}
        for other in IMPORTS[module] & MODULES - {"searchft"}
        if room_of(other) != room_of(module) and LEVEL[room_of(other)] >= LEVEL[room_of(module)]
    ]
    assert upward == []


def test_optuna_is_known_only_above_training() -> None:
    below = [module for module in MODULES - {"searchft"} if LEVEL[room_of(module)] < LEVEL["search"]]
    assert [module for module in below if "optuna" in {name.split(".")[0] for name in IMPORTS[module]}] == []


def test_modules_import_one_another_in_no_circle() -> None:
    def reached_from(module: str) -> set[str]:
        seen: set[str] = set()
        ahead = [module]
        while ahead:
            ahead += IMPORTS[ahead.pop()] & MODULES - seen - set(ahead)
            seen.update(ahead)
        return seen

    reached = {module: reached_from(module) for module in MODULES}
    circles = {frozenset(o for o in reached[module] if module in reached[o]) for module in MODULES if module in reached[module]}
    assert [sorted(circle) for circle in circles if not any(circle <= known for known in CIRCLES)] == []


def test_no_file_is_long() -> None:
    lines = {str(path.relative_to(PACKAGE)): path.read_text().count("\n") for path in FILES}
    assert {path: n for path, n in lines.items() if n > LONG.get(path, LONGEST)} == {}
    assert [path for path in LONG if lines.get(path, 0) <= LONGEST] == [], "strike it from the list"


def test_the_cheap_rooms_load_neither_torch_nor_optuna() -> None:
    code = (
        "import sys, searchft.cli, searchft.api, searchft.recipe, searchft.search.prune, searchft.search.records;"
        "print(sorted({'torch', 'torchvision', 'timm', 'optuna'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
