"""Facts of small imaginary backbones, built by hand, and spaces from a few lines."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from searchft.recipe import BackboneFacts, DataFacts, ParameterFacts, SpaceFacts, StageFacts
from searchft.space import Space, parse_space


def backbone(name: str = "torchvision/small", norms: str = "batch", **values: object) -> BackboneFacts:
    """Stages stem, layer1 and layer2 with a convolution each and norms of a kind (`batch`, `layer` or none)."""
    stages = (StageFacts("stem", ("conv1", "bn1")), StageFacts("layer1", ("layer1",)), StageFacts("layer2", ("layer2",)))
    parameters: list[ParameterFacts] = []
    for stage, convolution, norm in (
        ("stem", "conv1", "bn1"),
        ("layer1", "layer1.0.conv", "layer1.0.bn"),
        ("layer2", "layer2.0.conv", "layer2.0.bn"),
    ):
        parameters.append(ParameterFacts(convolution + ".weight", 100, stage, "weight"))
        if norms:
            parameters.append(ParameterFacts(norm + ".weight", 4, stage, "norm_weight"))
            parameters.append(ParameterFacts(norm + ".bias", 4, stage, "norm_bias"))
    return BackboneFacts(
        **{  # type: ignore[arg-type]
            "backbone": name,
            "weights": "none",
            "weights_sha256": "random:0",
            "weights_source": "random",
            "fell_back": "",
            "stages": stages,
            "parameters": tuple(parameters),
            "batch_norms": (("bn1", "stem"), ("layer1.0.bn", "layer1"), ("layer2.0.bn", "layer2")) if norms == "batch" else (),
            "head": "fc",
            "num_features": 8,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "input_size": 32,
            **values,
        }
    )


@pytest.fixture
def facts_of() -> Callable[..., SpaceFacts]:
    """Facts for every architecture of a space: 80 training images, a small backbone."""

    def build(space: Space, train: int = 80, **values: object) -> SpaceFacts:
        data = DataFacts("orl_faces", "f" * 64, ("a", "b"), (("train", (train // 2, train - train // 2)), ("val", (5, 5))))
        return SpaceFacts(
            data,
            {name: backbone(recipe.backbone, **values) for name, recipe in space.architectures().items()},  # type: ignore[arg-type]
        )

    return build


@pytest.fixture
def space_of() -> Callable[..., Space]:
    """A space from lines of its recipe section, and other sections as texts."""

    def build(*lines: str, search: str = "{}", data: str = "{source: orl_faces}", overrides: tuple[str, ...] = ()) -> Space:
        text = f"study: s\ndata: {data}\nsearch: {search}\nrecipe:\n  backbone: torchvision/small\n"
        return parse_space(text + "".join(f"  {line}\n" for line in lines), "x.yaml", overrides)

    return build
