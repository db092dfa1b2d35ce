"""Spaces from a few lines, and facts that fit them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from searchft.recipe import SpaceFacts
from searchft.space import Space, parse_space
from tests import invented


@pytest.fixture
def facts_of() -> Callable[..., SpaceFacts]:
    """As `invented.facts_of`."""
    return invented.facts_of


@pytest.fixture
def space_of() -> Callable[..., Space]:
    """A space from lines of its recipe section, and other sections as texts."""

    def build(*lines: str, search: str = "{}", data: str = "{source: orl_faces}", overrides: tuple[str, ...] = ()) -> Space:
        text = f"study: s\ndata: {data}\nsearch: {search}\nrecipe:\n  backbone: torchvision/small\n"
        return parse_space(text + "".join(f"  {line}\n" for line in lines), "x.yaml", overrides)

    return build
