"""Spaces: YAML in, checked `Space` out. The only package that knows YAML.

Read `yaml_reader` (text to nodes with lines), `check` (one value, one key), `choices`, `loading` (all in turn) and `space` (the result).
"""

from __future__ import annotations

from searchft.recipe import SearchSettings
from searchft.space.differences import Difference, differences
from searchft.space.enqueue import EnqueuedRow
from searchft.space.loading import load_space, parse_space
from searchft.space.space import Dimension, Space
from searchft.space.validate import list_openings, notes, validate

__all__ = [
    "Difference",
    "Dimension",
    "EnqueuedRow",
    "SearchSettings",
    "Space",
    "differences",
    "list_openings",
    "load_space",
    "notes",
    "parse_space",
    "validate",
]
