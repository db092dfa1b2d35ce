"""Space: a recipe in which some values are sets of choices, with the data it runs on and how it is searched.

Plain and immutable. Everything that needs to know what backbones and data really are takes `SpaceFacts` as an argument;
nothing here touches torch or Optuna.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from searchft.recipe import DataSettings, Recipe, SearchSettings, SpaceFacts
from searchft.recipe.fields import NETWORK, RENAMED, SECTIONS, STRATEGIES, names_that_decide
from searchft.recipe.kinds import Label
from searchft.space.choices import MULTIPLIER, identity, label
from searchft.space.enqueue import EnqueuedRow
from searchft.space.overrides import key_of, place_of
from searchft.wording import to_plain, to_tuples

MEMO_SIZE = 100_000
_ASKING_ORDER = {name: place for place, name in enumerate(SECTIONS["recipe"])}


def asking_place(name: str) -> int:
    """Where a dimension comes in the asking order; multipliers of one space keep their order among themselves."""
    return _ASKING_ORDER[name.partition(".")[0]]


@dataclass(frozen=True)
class Dimension:
    """One value that is to be chosen."""

    name: str
    """A field of Recipe, `lr_multipliers.GROUP`, or `strategy`."""
    choices: tuple[Any, ...]
    """At least two, in Recipe's form, distinct, in the file's order."""

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """What the persistent study shows for each choice: 0.5, "layer4", "256+128", "linear". Distinct too."""
        return tuple(label(self.name, choice) for choice in self.choices)

    def index(self, choice: Any) -> int:
        """Position of a choice. Raises ValueError if it is none."""
        try:
            return self._places[identity(choice)]
        except KeyError:
            raise ValueError(f"{self.name} must be one of {self.choices} but got {choice!r}") from None

    @cached_property
    def _places(self) -> Mapping[Any, int]:
        return {identity(choice): i for i, choice in enumerate(self.choices)}


@dataclass(frozen=True)
class Space:
    """What `load_space` returns: a checked space. Equal spaces compare equal."""

    name: str
    """The study's."""
    data: DataSettings
    search: SearchSettings
    fixed: Mapping[str, Any]
    """Values given once, by the names that dimensions have, in Recipe's form. What is not given has Recipe's default."""
    dimensions: tuple[Dimension, ...]
    """In asking order: what conditions others first."""
    enqueue: tuple[EnqueuedRow, ...] = ()
    source: str = ""
    """The file, as given."""
    text: str = ""
    """The YAML as read, without overrides."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Dotted key to the line in the file it stands on."""
    overrides: tuple[str, ...] = ()
    """The `--set` texts."""

    @cached_property
    def by_name(self) -> Mapping[str, Dimension]:
        """Dimensions by name."""
        return {dimension.name: dimension for dimension in self.dimensions}

    def choices(self, name: str) -> tuple[Any, ...]:
        """The values that the space gives a recipe value, by the names that dimensions have; none where it gives none."""
        if name in self.by_name:
            return self.by_name[name].choices
        return (self.fixed[name],) if name in self.fixed else ()

    def where(self, key: str) -> str:
        """Where a dotted key (or what is around it) was given: the last `--set` of it, a line, or the file."""
        while True:
            for text in reversed(self.overrides):
                if key_of(text) == key:
                    return place_of(text)
            if key in self.lines:
                return f"{self.source}:{self.lines[key]}"
            if "." not in key:
                return self.source
            key = key.rpartition(".")[0]

    def size(self) -> int:
        """Product of the numbers of choices, before anything without effect is dropped."""
        return math.prod(len(dimension.choices) for dimension in self.dimensions)

    def resolve(self, chosen: Mapping[str, Any]) -> Recipe:
        """The recipe of a choice per dimension; missing ones have their first choice.

        Raises KeyError for a name that is no dimension, ValueError for a value that is none of its choices.
        """
        values = {**self.fixed, **{d.name: d.choices[0] for d in self.dimensions}}
        for name, choice in chosen.items():
            dimension = self.by_name[name]
            values[name] = dimension.choices[dimension.index(choice)]
        groups = [name for name in values if name.startswith(MULTIPLIER + ".")]
        multipliers = tuple(sorted((name.partition(".")[2], values.pop(name)) for name in groups))
        values |= STRATEGIES.get(values.pop("strategy", ""), {})
        values.setdefault("seed", self.search.seed)
        return Recipe(**values, lr_multipliers=multipliers)

    def combinations(self, *names: str) -> Iterator[Recipe]:
        """The recipe of every combination of choices of these dimensions, all others at their first choice."""
        deciding = [d for d in self.dimensions if d.name in names]
        for choices in itertools.product(*(d.choices for d in deciding)):
            yield self.resolve({d.name: choice for d, choice in zip(deciding, choices, strict=True)})

    def architectures(self) -> dict[str, Recipe]:
        """`Recipe.architecture()` of every network in the space to one recipe that has it: what facts must describe."""
        found: dict[str, Recipe] = {}
        for recipe in self.combinations("strategy", *names_that_decide(NETWORK)):
            found.setdefault(recipe.architecture(), recipe)
        return found

    # --- what is worth asking --------------------------------------------------------------------------------------

    def is_active(self, name: str, chosen: Mapping[str, Any], facts: SpaceFacts) -> bool:
        """Whether the dimension makes a difference beside what is chosen so far.

        It does if two of its choices give recipes of different keys, the dimensions not yet chosen at their first
        choice, or all but one of them: two values may mask each other's effect (parameters: norm masks unfrozen in a
        network without norms), and a dimension is dropped only if nothing still open can bring its effect back.
        """
        memo = self._found(facts)
        base = {d.name: chosen.get(d.name, d.choices[0]) for d in self.dimensions if d.name != name}
        asked = (name, *(self.by_name[n].index(choice) if n in chosen else -1 for n, choice in base.items()))
        if asked not in memo:
            others = (d for d in self.dimensions if d.name != name and d.name not in chosen)
            bases = itertools.chain([base], ({**base, d.name: choice} for d in others for choice in d.choices[1:]))
            first, *choices = self.by_name[name].choices
            memo[asked] = any(
                self._key({**one, name: first}, facts) != self._key({**one, name: choice}, facts)
                for one in bases
                for choice in choices
            )
        return bool(memo[asked])

    def recipes(self, facts: SpaceFacts) -> Iterator[tuple[dict[str, Any], Recipe]]:
        """Every configuration once, by key: the choices that matter and the recipe. Always in the same order.

        The first dimension varies slowest. Lazy: asking for a few of a huge space is cheap.
        """
        seen: set[str] = set()

        def descend(depth: int, chosen: dict[str, Any], active: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Recipe]]:
            if depth == len(self.dimensions):
                key = self._key(chosen, facts)
                if key not in seen:
                    seen.add(key)
                    yield active, self.resolve(chosen)
                return
            dimension = self.dimensions[depth]
            matters = self.is_active(dimension.name, chosen, facts)
            for choice in dimension.choices if matters else dimension.choices[:1]:
                here = {dimension.name: choice}
                yield from descend(depth + 1, {**chosen, **here}, {**active, **here} if matters else active)

        return descend(0, {}, {})

    def _key(self, chosen: Mapping[str, Any], facts: SpaceFacts) -> str:
        memo = self._found(facts)
        asked = tuple(d.index(chosen[d.name]) for d in self.dimensions)
        if asked not in memo:
            memo[asked] = self.resolve(chosen).key(facts)
        return str(memo[asked])

    @cached_property
    def _memo(self) -> dict[str, Any]:
        return {"facts": None, "found": {}}

    def _found(self, facts: SpaceFacts) -> dict[Any, Any]:
        """What was found with the facts last seen, by identity: facts are not hashable, and a study has one of them."""
        if self._memo["facts"] is not facts or len(self._memo["found"]) >= MEMO_SIZE:
            self._memo.update(facts=facts, found={})
        found: dict[Any, Any] = self._memo["found"]
        return found

    # --- what the study shows and keeps ----------------------------------------------------------------------------

    def labels_of(self, chosen: Mapping[str, Any]) -> dict[str, Label]:
        """The labels of choices. Raises as `resolve`."""
        return {name: self.by_name[name].labels[self.by_name[name].index(choice)] for name, choice in chosen.items()}

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data; `from_json` gives an equal space back."""
        return to_plain(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Space:
        """The space that `to_json` wrote, here or in a study of an earlier version."""

        def values(raw: Mapping[str, Any]) -> dict[str, Any]:
            return {RENAMED.get(name, name): to_tuples(value) for name, value in raw.items()}

        parsed = {
            "data": DataSettings.from_json(data["data"]),
            "search": SearchSettings.from_json(data["search"]),
            "fixed": values(data["fixed"]),
            "dimensions": tuple(
                Dimension(RENAMED.get(d["name"], d["name"]), to_tuples(d["choices"])) for d in data["dimensions"]
            ),
            "enqueue": tuple(EnqueuedRow(row["name"], values(row["chosen"])) for row in data["enqueue"]),
            "overrides": tuple(data["overrides"]),
        }
        return cls(**{**data, **parsed})
