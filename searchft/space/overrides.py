"""`--set recipe.epochs=5`: puts a value into the tree as if the file had said so, before anything is checked.

So every rule holds for an overridden value too, and its faults are placed at the override itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from searchft.errors import InputError
from searchft.recipe.fields import SECTIONS
from searchft.space.findings import Findings
from searchft.space.yaml_reader import Node, read_yaml, unprintable
from searchft.wording import did_you_mean

FLAG = "--set"
EXAMPLE = "recipe.epochs=5"
TOP_KEYS = ("study", "data", "recipe", "search")


@dataclass(frozen=True)
class Override:
    """One `--set`: the dotted key's parts and the value's node."""

    path: tuple[str, ...]
    node: Node


def place_of(text: str) -> str:
    """The `where` of an override's faults."""
    text = text if text.isprintable() else repr(text)
    return f"{FLAG} {text}" if len(text) <= 80 else f"{FLAG} {text[:79]}…"


def key_of(text: str) -> str:
    """The dotted key that an override sets."""
    return text.partition("=")[0].strip()


def read_overrides(texts: Sequence[str], findings: Findings) -> list[Override]:
    """The overrides that can be read, in order; faults go to `findings`."""
    found: list[Override] = []
    for text in texts:
        where = place_of(text)
        key, equals, value = text.partition("=")
        key = key.strip()
        if unprintable(text):
            findings.add(where, "", "must be printable text, without control characters")
            continue
        if not equals or not key:
            findings.add(where, "", f"must be KEY=VALUE, e.g. {EXAMPLE}")
            continue
        path = _path(key)
        if path is None:
            section = key.partition(".")[0]
            hint = did_you_mean(section, TOP_KEYS)
            rule = "must name a key: study, data.KEY, recipe.KEY or search.KEY"
            findings.add(where, key[:60], rule + (hint if section not in TOP_KEYS else ""))
            continue
        inner = Findings(where)
        try:
            node = read_yaml(value, where, lambda _line, where=where: where, inner)  # type: ignore[misc]
        except InputError:
            node = None
        for problem in inner.problems:
            findings.add(where, key, problem.rule)
        if node is not None:
            found.append(Override(path, _placed(node, where)))
    return found


def _path(key: str) -> tuple[str, ...] | None:
    section, _, rest = key.partition(".")
    if section == "study":
        return None if rest else ("study",)
    if section not in TOP_KEYS or not rest:
        return None
    name, _, inner = rest.partition(".")
    field = SECTIONS[section].get(name)
    if inner and field is not None and field.kind.shape in ("mapping", "groups"):
        return (section, name, inner)  # what follows the name, dots included, is one key of the mapping
    return (section, rest)


def _placed(node: Node, where: str) -> Node:
    value = node.value
    if isinstance(value, list):
        value = [_placed(item, where) for item in value]
    elif isinstance(value, dict):
        value = {key: _placed(item, where) for key, item in value.items()}
    return Node(value, where)


def apply(root: Node, overrides: Sequence[Override], findings: Findings) -> Node:
    """The tree with every override in its place; a later one of the same key wins, as on any command line."""
    for override in overrides:
        root = _with(root, override.path, override.node, "", findings)
    return root


def _with(node: Node, path: tuple[str, ...], new: Node, key: str, findings: Findings) -> Node:
    if not path:
        # A replaced value is the override's; a section around it stays where the file has it.
        return new
    if node.value is None and key in ("", *TOP_KEYS):
        node = Node({}, node.where)  # an empty file or section is filled
    if not isinstance(node.value, dict):
        if not node.broken:
            findings.add(new.where, key, "must be a mapping in the file for a key of it to be set: set the whole value instead")
        return node
    name, rest = path[0], path[1:]
    dotted = f"{key}.{name}" if key else name
    child = node.value.get(name)
    if child is None:
        child = Node({}, new.where)
    return Node({**node.value, name: _with(child, rest, new, dotted, findings)}, node.where)
