"""Space: a recipe in which some values are sets of choices, with the data it runs on and how it is searched.

Plain and immutable. Everything that needs to know what backbones and data really are takes `SpaceFacts` as an argument;
nothing here touches torch or Optuna.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

from searchft.recipe import DataSettings, Recipe, SearchSettings, SpaceFacts
from searchft.recipe.facts import to_plain, to_tuples
from searchft.recipe.fields import NETWORK, RENAMED, SECTIONS, STRATEGIES, names_that_decide
from searchft.recipe.kinds import Label
from searchft.space.choices import MULTIPLIER, identity, label
from searchft.space.enqueue import EnqueuedRow
from searchft.space.overrides import key_of, place_of

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
        found = self._places.get(identity(choice))
        if found is None:
            raise ValueError(f"{self.name} must be one of {self.choices} but got {choice!r}")
        return found

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

    @cached_property
    def first(self) -> Mapping[str, Any]:
        """The first choice of every dimension."""
        return {dimension.name: dimension.choices[0] for dimension in self.dimensions}

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
        values = {**self.fixed, **self.first}
        for name, choice in chosen.items():
            dimension = self.by_name[name]
            values[name] = dimension.choices[dimension.index(choice)]
        multipliers = tuple(
            sorted((n.partition(".")[2], values.pop(n)) for n in list(values) if n.startswith(MULTIPLIER + "."))
        )
        strategy = values.pop("strategy", None)
        if strategy is not None:
            values |= STRATEGIES[strategy]
        values.setdefault("seed", self.search.seed)
        return Recipe(**values, lr_multipliers=multipliers)

    def architectures(self) -> dict[str, Recipe]:
        """`Recipe.architecture()` of every network in the space to one recipe that has it: what facts must describe."""
        deciding = [d for d in self.dimensions if d.name in ("strategy", *names_that_decide(NETWORK))]
        found: dict[str, Recipe] = {}
        for combination in product(*(dimension.choices for dimension in deciding)):
            recipe = self.resolve({d.name: choice for d, choice in zip(deciding, combination, strict=True)})
            found.setdefault(recipe.architecture(), recipe)
        return found

    # --- what is worth asking --------------------------------------------------------------------------------------

    def is_active(self, name: str, chosen: Mapping[str, Any], facts: SpaceFacts) -> bool:
        """Whether the dimension makes a difference beside what is chosen so far.

        It does if two of its choices give recipes of different keys, the dimensions not yet chosen at their first
        choice, or all but one of them: two values may mask each other's effect (parameters: norm masks unfrozen in a
        network without norms), and a dimension is dropped only if nothing still open can bring its effect back.
        """
        memo = self._memo("active", facts)
        base = {d.name: chosen.get(d.name, d.choices[0]) for d in self.dimensions if d.name != name}
        asked = (name, *(self.by_name[n].index(choice) if n in chosen else -1 for n, choice in base.items()))
        if asked not in memo:
            memo[asked] = self._differs(name, base, facts) or any(
                self._differs(name, {**base, other.name: choice}, facts)
                for other in self.dimensions
                if other.name != name and other.name not in chosen
                for choice in other.choices[1:]
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
                    yield dict(active), self.resolve(chosen)
                return
            dimension = self.dimensions[depth]
            if not self.is_active(dimension.name, chosen, facts):
                yield from descend(depth + 1, {**chosen, dimension.name: dimension.choices[0]}, active)
                return
            for choice in dimension.choices:
                here = {dimension.name: choice}
                yield from descend(depth + 1, {**chosen, **here}, {**active, **here})

        return descend(0, {}, {})

    def _differs(self, name: str, base: Mapping[str, Any], facts: SpaceFacts) -> bool:
        keys = (self._key({**base, name: choice}, facts) for choice in self.by_name[name].choices)
        first = next(keys)
        return any(key != first for key in keys)

    def _key(self, chosen: Mapping[str, Any], facts: SpaceFacts) -> str:
        memo = self._memo("key", facts)
        asked = tuple(d.index(chosen[d.name]) for d in self.dimensions)
        if asked not in memo:
            memo[asked] = self.resolve(chosen).key(facts)
        return str(memo[asked])

    @cached_property
    def _memos(self) -> dict[str, Any]:
        return {}

    def _memo(self, kind: str, facts: SpaceFacts) -> dict[Any, Any]:
        # Facts are not hashable; a study has one of them, so the memo serves the last one seen, by identity.
        if self._memos.get("facts") is not facts:
            self._memos.clear()
            self._memos.update(facts=facts, key={}, active={})
        memo: dict[Any, Any] = self._memos[kind]
        if len(memo) >= MEMO_SIZE:
            memo.clear()
        return memo

    # --- what the study shows and keeps ----------------------------------------------------------------------------

    def labels_of(self, chosen: Mapping[str, Any]) -> dict[str, Label]:
        """The labels of choices. Raises as `resolve`."""
        return {name: self.by_name[name].labels[self.by_name[name].index(choice)] for name, choice in chosen.items()}

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data; `from_json` gives an equal space back."""
        return {
            "name": self.name,
            "data": self.data.to_json(),
            "search": self.search.to_json(),
            "fixed": to_plain(self.fixed),
            "dimensions": [{"name": d.name, "choices": to_plain(d.choices)} for d in self.dimensions],
            "enqueue": [{"name": row.name, "chosen": to_plain(row.chosen)} for row in self.enqueue],
            "source": self.source,
            "text": self.text,
            "lines": dict(self.lines),
            "overrides": list(self.overrides),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Space:
        """The space that `to_json` wrote, here or in a study of an earlier version."""

        def values(raw: Mapping[str, Any]) -> dict[str, Any]:
            return {RENAMED.get(name, name): to_tuples(value) for name, value in raw.items()}

        return cls(
            name=data["name"],
            data=DataSettings.from_json(data["data"]),
            search=SearchSettings.from_json(data["search"]),
            fixed=values(data["fixed"]),
            dimensions=tuple(Dimension(RENAMED.get(d["name"], d["name"]), to_tuples(d["choices"])) for d in data["dimensions"]),
            enqueue=tuple(EnqueuedRow(row["name"], values(row["chosen"])) for row in data["enqueue"]),
            source=data["source"],
            text=data["text"],
            lines=dict(data["lines"]),
            overrides=tuple(data["overrides"]),
        )
