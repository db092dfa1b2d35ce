"""How a recipe's numbers are computed and where the frozen part's values are kept: plain data, kept with the facts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from searchft.recipe.facts import BackboneFacts, DataFacts, ParameterFacts, StageFacts, digest, to_plain, to_tuples
from searchft.recipe.fields import RecipeFields, architecture_now
from searchft.recipe.opening import Opening, open_parameters


@dataclass(frozen=True)
class Numerics:
    """How numbers are computed: each choice made once, recorded in the study and part of every key."""

    prefix_dtype: str = "float32"
    suffix_dtype: str = "float32"
    channels_last: bool = False
    fold: bool = False
    """Whether BatchNorms of the frozen part are folded into its convolutions."""
    pad_first: bool = False
    """Whether training puts the zeros around small maps before their depthwise convolutions (see `features.padding`)."""


@dataclass(frozen=True)
class Keeping:
    """What happens to the frozen part's values of one opening, and why. Changes no number, so it is in no key."""

    keep: str
    """`memory`, `disk` or `recompute`."""
    reason: str
    size_bytes: int
    """Of the train and val images together, fixed views included."""
    seconds_per_image: float
    """Measured: one image through the frozen part."""
    at: str = ""
    """Which values are kept: those after this operation inside the frozen part; empty: those that the trained part reads."""
    rest_seconds_per_image: float = 0.0
    """Measured: one image from there to the trained part."""


@dataclass(frozen=True)
class SpaceFacts:
    """What a space's backbones, weights and data really are. Made once by `searchft.facts.describe`."""

    data: DataFacts
    backbones: Mapping[str, BackboneFacts]
    """By `Recipe.architecture()`."""
    numerics: Mapping[str, Numerics] = field(default_factory=dict)
    """By `numerics_name(recipe, opening)`: what `precision: auto` chose here."""
    keeping: Mapping[str, Keeping] = field(default_factory=dict)
    """By `keeping_name(recipe, opening)`: whether the frozen part's values are stored, and which."""

    def numerics_for(self, recipe: RecipeFields) -> Numerics:
        """The numerics that a recipe runs with."""
        if recipe.precision == "fp32":
            return Numerics()
        if recipe.precision == "bf16":
            return Numerics("bfloat16", "bfloat16", channels_last=True, fold=False)
        opening = open_parameters(recipe, self.backbones[recipe.architecture()])
        return self.numerics.get(numerics_name(recipe, opening), Numerics())

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data; `from_json` gives equal facts back."""
        plain = to_plain(dataclasses.asdict(self))
        assert isinstance(plain, dict)
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SpaceFacts:
        """The facts that `to_json` wrote, here or in a study of an earlier version."""

        def backbone(raw: Mapping[str, Any]) -> BackboneFacts:
            values = {name: to_tuples(value) for name, value in raw.items()}
            values["stages"] = tuple(StageFacts(s["name"], tuple(s["modules"])) for s in raw["stages"])
            values["parameters"] = tuple(ParameterFacts(**p) for p in raw["parameters"])
            return BackboneFacts(**values)

        return cls(
            data=DataFacts(**{name: to_tuples(value) for name, value in data["data"].items()}),
            backbones={architecture_now(name): backbone(raw) for name, raw in data["backbones"].items()},
            numerics={name: Numerics(**raw) for name, raw in data["numerics"].items()},
            keeping={name: Keeping(**raw) for name, raw in data.get("keeping", {}).items()},
        )


def numerics_name(recipe: RecipeFields, opening: Opening) -> str:
    """Under which name `SpaceFacts.numerics` keeps what `auto` chose for this network and opening."""
    return digest([recipe.architecture(), opening.digest])[:16]


def keeping_name(recipe: RecipeFields, opening: Opening) -> str:
    """Under which name `SpaceFacts.keeping` says what is stored: values of another precision are others."""
    name = numerics_name(recipe, opening)
    return name if recipe.precision == "auto" else f"{name}, {recipe.precision}"
