"""How a value is written: in messages (the user's words, YAML's, not Python's), as plain JSON data, as a digest."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 80
"""Characters of a value that a message shows: enough to recognise it, too few to flood a terminal."""
SHORT_WORD = 5
"""Up to this length one slip of the pen is a near miss, and two are another word (`lora` is not `lr`)."""


def digest(value: Any) -> str:
    """SHA-256 in hex of a JSON-able value; keys sorted, so equal values have equal digests."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def to_plain(value: Any) -> Any:
    """As plain JSON data: tuples as lists."""
    return json.loads(json.dumps(value))


def to_tuples(value: Any) -> Any:
    """Back: lists as tuples."""
    return tuple(to_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def shown(value: Any) -> str:
    """A value as a user of YAML knows it: 'text', true, 0.5, [256, 128], {conv1.stride: 1}; cut at LONGEST."""
    text = _written(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _written(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # repr escapes what could steer a terminal; JSON's quotes would make two kinds of quotes in one message.
        return repr(value[: LONGEST * 2])
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_written(item) for item in value[:LONGEST]) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_written(item)}" for key, item in list(value.items())[:LONGEST]) + "}"
    return str(value)


def got(value: Any) -> str:
    """A given value, after `but got`."""
    return "no value" if value is None else shown(value)


def listed(names: Iterable[Any]) -> str:
    """`a, b, c`: bare names, for the lists of what is allowed."""
    return ", ".join(name if isinstance(name, str) else _written(name) for name in names)


def near(name: str, names: Iterable[str]) -> str:
    """The name that was probably meant, or an empty string. Case never counts as a difference."""
    return next(iter(near_names(name, names, 1)), "")


def near_names(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names that may have been meant, likeliest first."""
    known = {one.lower(): one for one in names}
    name = name[:100].lower()
    close = difflib.get_close_matches(name, known, n=count, cutoff=0.7)
    return [known[one] for one in close if len(name) > SHORT_WORD or _one_slip(name, one)]


def _one_slip(a: str, b: str) -> bool:
    """Whether one letter was changed, added, left out, or swapped with its neighbour."""
    for _ in "ab":  # what they share at the beginning, then at the end
        same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        a, b = a[same:][::-1], b[same:][::-1]
    return max(len(a), len(b)) <= 1 or (len(a) == 2 and a == b[::-1])


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`, did you mean 'dropout'?` or an empty string."""
    meant = near(name, names)
    return f", did you mean {meant!r}?" if meant else ""
