"""`--set recipe.epochs=5`: puts a value into the tree as if the file had said so, before anything is checked.

So every rule holds for an overridden value too, and its faults are placed at the override itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from searchft.errors import InputError
from searchft.recipe.fields import SECTIONS
from searchft.space.check import KEYS, MAPPINGS
from searchft.space.yaml_reader import Findings, Node, read_yaml, unprintable
from searchft.wording import did_you_mean

FLAG = "--set"


def place_of(text: str) -> str:
    """The `where` of an override's faults."""
    text = text if text.isprintable() else repr(text)
    return f"{FLAG} {text}" if len(text) <= 80 else f"{FLAG} {text[:79]}…"


def key_of(text: str) -> str:
    """The dotted key that an override sets."""
    return text.partition("=")[0].strip()


def apply_overrides(root: Node, texts: Sequence[str], findings: Findings) -> Node:
    """The tree with every override in its place, the later of one key; what cannot be read goes to `findings`."""
    for text in texts:
        where, key = place_of(text), key_of(text)
        path = _path(key)
        if unprintable(text):
            findings.add(where, "", "must be printable text, without control characters")
        elif "=" not in text or not key:
            findings.add(where, "", "must be KEY=VALUE, e.g. recipe.epochs=5")
        elif not path:
            section = key.partition(".")[0]
            hint = "" if section in KEYS[""] else did_you_mean(section, KEYS[""])
            findings.add(where, key[:60], f"must name a key: study, data.KEY, recipe.KEY or search.KEY{hint}")
        else:
            inner = Findings(where)
            try:
                node = read_yaml(text.partition("=")[2], where, lambda _line, where=where: where, inner)  # type: ignore[misc]
                root = _with(root, path, node, "", findings)
            except InputError:
                pass  # its problems are among those of `inner`
            for problem in inner.problems:
                findings.add(where, key, problem.rule)
    return root


def _path(key: str) -> tuple[str, ...]:
    """The keys on the way to a value; empty where there is no such place."""
    section, _, rest = key.partition(".")
    if not section or section not in SECTIONS:
        return ("study",) if key == "study" else ()
    name, _, inner = rest.partition(".")
    if inner and name in MAPPINGS:
        return (section, name, inner)  # what follows the name, dots included, is one key of the mapping
    return (section, rest) if rest else ()


def _with(node: Node, path: tuple[str, ...], new: Node, key: str, findings: Findings) -> Node:
    if not path:
        # A replaced value is the override's; a section around it stays where the file has it.
        return new
    if node.value is None and key in ("", *KEYS[""]):
        node = Node({}, node.where)  # an empty file or section is filled
    if not isinstance(node.value, dict):
        if not node.broken:
            findings.add(new.where, key, "must be a mapping in the file for a key of it to be set: set the whole value instead")
        return node
    name = path[0]
    child = node.value.get(name, Node({}, new.where))
    return Node({**node.value, name: _with(child, path[1:], new, f"{key}.{name}" if key else name, findings)}, node.where)
