"""YAML file and `--set` overrides -> Space, or every problem at once. Top to bottom: read, override, check, build."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from searchft.errors import InputError
from searchft.recipe import DataSettings, SearchSettings
from searchft.space.choices import read_recipe
from searchft.space.enqueue import EnqueuedRow, read_enqueue
from searchft.space.findings import Findings
from searchft.space.overrides import apply, read_overrides
from searchft.space.sections import read_data, read_search, read_study, top_level
from searchft.space.space import Dimension, Space, asking_place
from searchft.space.yaml_reader import MAX_BYTES, Node, read_yaml
from searchft.wording import near

RELATIVE_SOURCES = ("folder:", "csv:")
"""Data sources that hold a path."""


def load_space(path: Path | str, overrides: Sequence[str] = ()) -> Space:
    """The space in a YAML file, with `KEY=VALUE` overrides put over it.

    Relative paths under `data` are meant from the file's folder. Raises InputError with all problems, each with its
    line; nothing has been created then.
    """
    # A file name that is no UTF-8 is shown with escapes: messages must be printable.
    source, path = str(path).encode("utf-8", "backslashreplace").decode(), Path(path)
    try:
        if path.exists() and not path.is_file():
            raise InputError("must be a file with a space in it but is a folder or a device", source)
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"must be a file with a space in it but there is none{_neighbour(path)}", source) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"must be a file that can be read but cannot ({reason})", source) from error
    return _build(content, source, overrides, str(path.parent.absolute()))


def parse_space(text: str, source: str = "space.yaml", overrides: Sequence[str] = (), folder: str = "") -> Space:
    """The space in a YAML text; `source` names it in messages, `folder` is where relative data paths stand.

    Raises InputError with all problems.
    """
    return _build(text, source, overrides, folder)


def _neighbour(path: Path) -> str:
    try:
        names = sorted(p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml"))[:1000]
    except OSError:
        return f": there is no folder {str(path.parent)!r} either"
    meant = near(path.name, names)
    if meant:
        return f", did you mean {str(path.parent / meant)!r}?"
    return f": that folder has {', '.join(names[:8])}" if names else ""


def _build(content: bytes | str, source: str, texts: Sequence[str], folder: str) -> Space:
    findings = Findings(source)

    # Read everything, and put the overrides where they belong.
    overrides = read_overrides(texts, findings)
    in_file = read_yaml(content, source, lambda line: f"{source}:{line}", findings)
    root = apply(in_file, overrides, findings)

    # Check each section; `given` holds the sound recipe values only.
    found = top_level(root, findings)
    name = read_study(found["study"], findings) if "study" in found else ""
    data = read_data(found["data"], findings) if "data" in found else {}
    given = read_recipe(found["recipe"], findings) if "recipe" in found else {}
    search = read_search(found["search"], findings) if "search" in found else SearchSettings()

    # Choices become dimensions, and the named rows are held against them.
    dimensions = tuple(Dimension(name, given[name]) for name in sorted(given, key=asking_place) if len(given[name]) > 1)
    rows: tuple[EnqueuedRow, ...] = ()
    if "recipe" in found and "search" in found and "enqueue" in found["search"].value:
        unsure = _unsure(found["recipe"], given)
        enqueue = found["search"].value["enqueue"]
        rows = read_enqueue(enqueue, found["recipe"], given, unsure, [d.name for d in dimensions], findings)
    findings.raise_if_any()

    return Space(
        name=name,
        data=_data_settings(data, folder),
        search=search,
        fixed={name: choices[0] for name, choices in given.items() if len(choices) == 1},
        dimensions=dimensions,
        enqueue=rows,
        source=source,
        text=content.decode("utf-8") if isinstance(content, bytes) else content,
        lines=_lines(in_file, source),
        overrides=tuple(texts),
    )


def _unsure(section: Node, given: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """Recipe keys that stand in the file and are wrong: rows are not held against them."""
    unsure: list[str] = []
    for name, node in section.value.items():
        if name == "lr_multipliers" and isinstance(node.value, dict) and not node.broken:
            unsure += [f"{name}.{group}" for group in node.value if f"{name}.{group}" not in given]
        elif name not in given:
            unsure.append(name)
    return unsure


def _data_settings(values: Mapping[str, Any], folder: str) -> DataSettings:
    """`root` only where a path needs one: torchvision's sets keep torchvision's own folder unless the user names another."""
    root = values.get("root", "")
    if root:
        root = str(Path(folder) / Path(root).expanduser()) if folder else root
    elif values["source"].startswith(RELATIVE_SOURCES) or values.get("labels"):
        root = folder
    return DataSettings(**{**values, "root": root})


def _lines(root: Node, source: str) -> dict[str, int]:
    """Dotted key to line, for whatever stands in the file."""
    lines: dict[str, int] = {}
    for key, node in root.walk(""):
        match = re.fullmatch(re.escape(source) + r":([0-9]+)", node.where)
        if key and match:
            lines.setdefault(key, int(match[1]))
    return lines
