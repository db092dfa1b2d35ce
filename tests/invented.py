"""Facts of small imaginary backbones, built by hand: what recipes and spaces are tested on without torch."""

from __future__ import annotations

from typing import Any

from searchft.recipe import BackboneFacts, DataFacts, ParameterFacts, SpaceFacts, StageFacts
from searchft.space import Space

STAGES = (StageFacts("stem", ("conv1", "bn1")), StageFacts("layer1", ("layer1",)), StageFacts("layer2", ("layer2",)))
LAYERS = (
    ("stem", "conv1", "bn1"),
    ("layer1", "layer1.0.conv", "layer1.0.bn"),
    ("layer2", "layer2.0.conv", "layer2.0.bn"),
)


def backbone(name: str = "torchvision/small", norms: str = "batch", bias: bool = False, **values: Any) -> BackboneFacts:
    """Stages stem, layer1 and layer2 with a convolution each and norms of a kind (`batch`, `layer` or none)."""
    parameters: list[ParameterFacts] = []
    for stage, convolution, norm in LAYERS:
        parameters.append(ParameterFacts(convolution + ".weight", 100, stage, "weight"))
        if bias:
            parameters.append(ParameterFacts(convolution + ".bias", 4, stage, "bias"))
        if norms:
            parameters += [ParameterFacts(f"{norm}.{part}", 4, stage, f"norm_{part}") for part in ("weight", "bias")]
    fields: dict[str, Any] = {
        "backbone": name,
        "weights": "none",
        "weights_sha256": "random:0",
        "weights_source": "random",
        "fell_back": "",
        "stages": STAGES,
        "parameters": tuple(parameters),
        "batch_norms": tuple((norm, stage) for stage, _, norm in LAYERS) if norms == "batch" else (),
        "head": "fc",
        "num_features": 8,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "input_size": 32,
    }
    return BackboneFacts(**{**fields, **values})


def data(train: int = 80) -> DataFacts:
    """Two classes, `train` training images."""
    return DataFacts("orl_faces", "f" * 64, ("a", "b"), (("train", (train // 2, train - train // 2)), ("val", (5, 5))))


def facts_of(space: Space, train: int = 80, **values: Any) -> SpaceFacts:
    """Facts for every architecture of a space."""
    networks = {name: backbone(recipe.backbone, **values) for name, recipe in space.architectures().items()}
    return SpaceFacts(data(train), networks)
