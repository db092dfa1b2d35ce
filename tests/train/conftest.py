"""Real faces, small, and a small real network, for tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from searchft.data.images import Images, open_images
from searchft.features import FeatureStore
from searchft.models import describe_backbone
from searchft.recipe import DataSettings, Recipe, SpaceFacts

RECIPE = Recipe("torchvision/resnet18", weights="none", precision="fp32", batch_size=16, epochs=3, lr=1e-2, optimizer="sgd")


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Forty people, two images each to train and one to validate, at 32 pixels."""
    settings = DataSettings("orl_faces", split=(("train", 2), ("val", 1), ("test", 1)), image_size=32)
    return open_images(settings, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """A linear probe of a ResNet-18 with random weights: quick, and exact."""
    return RECIPE


@pytest.fixture(scope="session")
def facts(faces: Images) -> SpaceFacts:
    return SpaceFacts(faces.facts, {RECIPE.architecture(): describe_backbone(RECIPE, 0)})


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features", 1 << 30)
