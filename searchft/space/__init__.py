"""Spaces: YAML in, checked `Space` out. The only package that knows YAML.

Read in this order: `yaml_reader` (text to nodes with lines), `choices` (lists are sets of choices), `check` (what is wrong
with a value or a key), `sections`, `enqueue`, `overrides`, `loading` (all of them in turn), `space` (what the rest of the
program uses). Everything about single fields comes from `recipe/fields.py`; `schema` writes it out for editors.
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
