"""A recipe, the work it stands for in one spelling (`canonical`), and the digest of that work (`key`)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from searchft.recipe.facts import SpaceFacts
from searchft.recipe.fields import HEAD, OPENING, RATES, RECIPE, RecipeFields, names_that_decide
from searchft.recipe.numerics import rule_for
from searchft.recipe.opening import open_parameters
from searchft.wording import digest

KEY_VERSION = 2
"""Raised whenever a change of ours makes the same recipe compute something else, or a default becomes another: old answers stop
being answers, and a study of an older version is read only."""


def is_read_only(environment: Mapping[str, Any]) -> bool:
    """Whether a study with that pinned environment was made by a searchft whose keys mean something else."""
    return bool(environment.get("key_version", 1) != KEY_VERSION)


_IN_OPENING = frozenset(names_that_decide(OPENING, RATES))


@dataclass(frozen=True)
class Recipe(RecipeFields):
    """What will run; a sampler's `params` are only what was chosen."""

    def canonical(self, facts: SpaceFacts) -> Recipe:
        """The same work in one spelling: what has no effect is back at its default, what cannot be is clipped.

        `weights` becomes what was really loaded, `unfrozen` the name of the first open stage where one exists.
        Raises KeyError if the facts do not know this recipe's architecture, ValueError for an unknown stage name.
        """
        backbone = facts.backbones[self.architecture()]
        opening = open_parameters(self, backbone)
        changes: dict[str, Any] = {
            "weights": backbone.weights,
            "weights_fallback": "",
            "edits": self.own_edits(),
            "batch_size": min(self.batch_size, max(1, facts.data.train_size)),
            "head_first_epochs": min(self.head_first_epochs, self.epochs),
            "lr_multipliers": tuple(sorted((g, f) for g, f in self.lr_multipliers if g in opening.groups and f != 1.0)),
        }
        spelling = opening.spelling if opening.parameters else HEAD
        if spelling is not None:
            changes.update(unfrozen=spelling, stages=None, unfrozen_tensors=None)
        elif self.stages is not None or self.unfrozen_tensors is not None:
            changes["unfrozen"] = HEAD
        norm = RECIPE["norm"].default
        if open_parameters(dataclasses.replace(self, norm=norm), backbone).digest == opening.digest:
            changes["norm"] = norm
        for name, field in RECIPE.items():
            if field.row.when is not None and not field.row.when.holds(self, opening, backbone):
                changes[name] = field.default
        return dataclasses.replace(self, **changes)

    def key(self, facts: SpaceFacts) -> str:
        """20 hex digits: equal for equal work. Hashes the canonical recipe, the opening, weights, data and numerics.

        Fields at their default are left out, so that a field that comes to the table changes no key.
        """
        canonical = self.canonical(facts)
        backbone = facts.backbones[self.architecture()]
        # As written, not as canonical: an opening says by itself what has no effect on it.
        opening = open_parameters(self, backbone)
        payload = {
            name: getattr(canonical, name)
            for name, field in RECIPE.items()
            if name not in _IN_OPENING and getattr(canonical, name) != field.default
        }
        payload |= {
            "version": KEY_VERSION,
            "opening": opening.digest,
            "rates": opening.rates(self),
            "weights_sha256": backbone.weights_sha256,
            "data": facts.data.fingerprint,
            "numerics": dataclasses.asdict(rule_for(self, facts).numerics),
        }
        return digest(payload)[:20]


def trained_parameters(recipe: Recipe, facts: SpaceFacts) -> int:
    """How many numbers the recipe trains: the open backbone parameters, adapters and the whole head."""
    backbone = facts.backbones[recipe.architecture()]
    opened = set(open_parameters(recipe, backbone).parameters)
    widths = [backbone.num_features, *recipe.head_widths, len(facts.data.classes)]
    head = sum(inputs * outputs + outputs for inputs, outputs in itertools.pairwise(widths))
    return head + sum(p.size for p in backbone.parameters if p.name in opened)
