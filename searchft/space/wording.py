"""How a value, a list of names and a near miss are written in messages: the user's words (YAML), not Python's."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 80
"""Characters of a value that a message shows: enough to recognise it, too few to flood a terminal."""


def shown(value: Any) -> str:
    """A value as a user of YAML knows it: 'text', true, 0.5, [256, 128], {conv1.stride: 1}; cut at LONGEST."""
    text = _written(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _written(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # repr escapes what could steer a terminal; JSON's quotes would make two kinds of quotes in one message.
        return repr(value[: LONGEST * 2])
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_written(item) for item in value[:LONGEST]) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_written(item)}" for key, item in list(value.items())[:LONGEST]) + "}"
    return str(value)


def plain_json(value: Any) -> str:
    """A value as compact JSON on one line: keeps 1 and "1" apart."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def listed(names: Iterable[Any]) -> str:
    """`a, b, c`: bare names, for the lists of what is allowed."""
    return ", ".join(name if isinstance(name, str) else _written(name) for name in names)


def near(name: str, names: Iterable[str]) -> str:
    """The name that was probably meant, or an empty string. Case never counts as a difference."""
    known = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name[:100].lower(), known, n=1, cutoff=0.6)
    return known[close[0]] if close else ""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`, did you mean 'dropout'?` or an empty string."""
    meant = near(name, names)
    return f", did you mean {meant!r}?" if meant else ""
