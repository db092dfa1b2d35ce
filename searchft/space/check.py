"""Puts one value, or one key, to the table of fields: what is wrong with it, and what to do about it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

from searchft.recipe.fields import SECTIONS
from searchft.recipe.kinds import Kind
from searchft.space.yaml_reader import Findings, Node
from searchft.wording import did_you_mean, got, listed, near

Keys = Mapping[str, tuple[str, ...]]  # The keys of a mapping, each with other programs' words for it

_WITHIN = {"": "at the top of the file", "data": "under data", "recipe": "under recipe", "search": "under search"}
KEYS: dict[str, Keys] = {
    section: {key: (*one.aliases.split(), *one.was.split()) for key, one in fields.items() if one.key}
    for section, fields in SECTIONS.items()
}
KEYS[""] = {**KEYS[""], **dict.fromkeys(("data", "recipe", "search"), ())}
"""The keys of each section (`""`: of the file)."""
MAPPINGS = {key for fields in SECTIONS.values() for key, one in fields.items() if one.kind.shape in ("mapping", "groups")}
"""Keys whose value has keys of its own."""


def check(kind: Kind, value: Any) -> tuple[Any, str]:
    """(value in Recipe's form, "") of one value, or (None, the rule it breaks, the value, and what to do)."""
    try:
        return kind.read(value), ""
    except ValueError as error:
        return None, f"{str(error) or kind.rule} but got {got(value)}{_advice(kind, value)}"


def read_value(kind: Kind, node: Node, key: str, findings: Findings, section: str = "") -> Any:
    """One value, or None where it is wrong (and noted)."""
    if node.broken:
        return None
    plain = node.plain()
    value, rule = check(kind, plain)
    if rule:
        only = f": {section} takes one value, choices stand under recipe" if isinstance(plain, list) and section else ""
        findings.add(node.where, key, rule + only)
    return value


def known_keys(node: Node, keys: Keys, prefix: str, called: str, findings: Findings) -> Iterator[tuple[str, Node]]:
    """What a mapping holds under `keys`; its other keys are noted. `called`: the mapping's name in messages."""
    for name, child in node.value.items():
        if name in keys:
            yield name, child
        else:
            findings.add(child.where, f"{prefix}{name[:60]}", unknown_key(name, keys, called))


def _advice(kind: Kind, value: Any) -> str:
    """What to do about a value, where it can be told."""
    none = ": write the word none" if "none" in kind.words else ""
    whole = "whole number" in kind.rule
    if value is None:
        return none or ": write a value, or remove the key"
    if isinstance(value, bool) and kind.words:
        return none if value is False else ""
    if isinstance(value, str):
        if none and value.lower() in ("off", "no", "false", "null", "~", "never", "without"):
            return none
        if kind.words:
            return did_you_mean(value, kind.words)
        if whole or "lie in" in kind.rule:
            with contextlib.suppress(ValueError):
                if math.isfinite(float(value)):
                    return ": write the number without quotes"
    if isinstance(value, float) and value.is_integer() and whole and abs(value) < 1e15:
        return f": write {int(value)}"
    return kind.advise(value)


def unknown_key(name: str, known: Keys, section: str) -> str:
    """The rule for a key that does not exist, with what was probably meant or where it belongs."""
    if name == "<<":
        return "must be written out but got the merge key <<: merges are not read"
    unknown = f"unknown key {name[:60]!r}"
    first, _, rest = name.partition(".")
    if rest and first in known and first in MAPPINGS:
        return f"{unknown}: write {first}: {{{rest[:60]}: …}}"
    if name != "seed" and (place := next((place for place, keys in KEYS.items() if name in keys), None)) is not None:
        return f"{unknown} here: it belongs {_WITHIN[place]}"
    if name == "split_seed":
        return f"{unknown} here: it belongs in data.split as seed"
    if meant := _other_word(name, known) or near(name, known):
        return f"{unknown}, did you mean {meant!r}?"
    for place, keys in KEYS.items():
        if meant := _other_word(name, keys):
            return f"{unknown} here, did you mean {meant!r} {_WITHIN[place]}?"
    belongs = f"{section}'s keys are" if section else "the keys are"
    return f"{unknown}: {belongs} {listed(known)}"


def _other_word(name: str, known: Keys) -> str:
    """The key that another program calls so, or an empty string."""
    word = name.lower().replace("-", "_")
    return next((key for key, aliases in known.items() if word in aliases), "")
