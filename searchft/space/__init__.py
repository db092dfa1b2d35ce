"""Spaces: YAML in, checked `Space` out. The only room that knows YAML and pydantic.

Read in this order: `yaml_reader` (text to nodes with lines), `schema` (the rule of each key), `choices` (lists are sets of
choices), `sections`, `enqueue`, `overrides`, `loading` (all of them in turn), `space` (what the rest of the program uses).
"""

from __future__ import annotations

from searchft.space.differences import Difference
from searchft.space.enqueue import EnqueuedRow
from searchft.space.loading import load_space, parse_space
from searchft.space.settings import PRUNERS, SAMPLERS, SearchSettings
from searchft.space.space import Dimension, Space
from searchft.space.strategies import STRATEGIES
from searchft.space.validate import list_openings, notes, validate

__all__ = [
    "PRUNERS",
    "SAMPLERS",
    "STRATEGIES",
    "Difference",
    "Dimension",
    "EnqueuedRow",
    "SearchSettings",
    "Space",
    "list_openings",
    "load_space",
    "notes",
    "parse_space",
    "validate",
]
