"""Plain JSON data, and digests of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest(value: Any) -> str:
    """SHA-256 in hex of a JSON-able value; keys sorted, so equal values have equal digests."""
    text = json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def to_plain(value: Any) -> Any:
    """As plain JSON data: tuples as lists."""
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return value


def to_tuples(value: Any) -> Any:
    """Back: lists as tuples."""
    return tuple(to_tuples(item) for item in value) if isinstance(value, list | tuple) else value
