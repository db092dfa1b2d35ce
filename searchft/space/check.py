"""Puts one value, or one key, to the table of fields: what is wrong with it, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from searchft.recipe.fields import SECTIONS
from searchft.recipe.kinds import Kind
from searchft.wording import did_you_mean, got, listed, near

Keys = Mapping[str, tuple[str, ...]]
"""The keys of a mapping, each with other programs' words for it."""

_WITHIN = {"": "at the top of the file", "data": "under data", "recipe": "under recipe", "search": "under search"}


def keys_of(section: str) -> Keys:
    """The keys of a section (`""`: of the file)."""
    sections: Keys = {} if section else dict.fromkeys(("data", "recipe", "search"), ())
    own = {key: (*field.row.aliases.split(), *field.row.was.split()) for key, field in SECTIONS[section].items() if field.key}
    return {**own, **sections}


KEYS: Mapping[str, Keys] = {section: keys_of(section) for section in SECTIONS}
ROW_KEYS: Keys = {"name": (), **KEYS["recipe"]}
"""The keys of an enqueued row."""


def check(kind: Kind, value: Any) -> tuple[Any, str]:
    """(value in Recipe's form, "") of one value, or (None, the rule it breaks, the value, and what to do)."""
    try:
        return kind.read(value), ""
    except ValueError as error:
        rule = str(error) or kind.rule
    return None, f"{rule} but got {got(value)}{_advice(kind, value)}"


def _advice(kind: Kind, value: Any) -> str:
    """What to do about a value, where it can be told."""
    none = ": write the word none" if "none" in kind.words else ""
    if value is None:
        return none or ": write a value, or remove the key"
    if isinstance(value, bool) and kind.words:
        return none if value is False else ""
    numeric = "lie in" in kind.rule or "whole number" in kind.rule
    if isinstance(value, str):
        if none and value.lower() in ("off", "no", "false", "null", "~", "never", "without"):
            return none
        if kind.words:
            return did_you_mean(value, kind.words)
        if numeric:
            return ": write the number without quotes" if _is_number(value) else ""
    if isinstance(value, float) and value.is_integer() and "whole number" in kind.rule and abs(value) < 1e15:
        return f": write {int(value)}"
    return kind.advise(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def unknown_key(name: str, known: Keys, section: str) -> str:
    """The rule for a key that does not exist, with what was probably meant or where it belongs."""
    if name == "<<":
        return "must be written out but got the merge key <<: merges are not read"
    unknown = f"unknown key {name[:60]!r}"
    first, _, rest = name.partition(".")
    if (
        rest
        and first in known
        and any(first in fields and fields[first].kind.shape in ("mapping", "groups") for fields in SECTIONS.values())
    ):
        return f"{unknown}: write {first}: {{{rest[:60]}: …}}"
    places = [place for place, keys in KEYS.items() if name in keys]
    if places and name != "seed":
        return f"{unknown} here: it belongs {_WITHIN[places[0]]}"
    if name == "split_seed":
        return f"{unknown} here: it belongs in data.split as seed"
    meant = _other_word(name, known) or near(name, known)
    if meant:
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
