"""`resolve`: everything that follows from a recipe and the facts, worked out once. Whoever takes a ResolvedTrial derives nothing again."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from searchft.recipe.facts import BackboneFacts, DataFacts, SpaceFacts
from searchft.recipe.fields import HEAD
from searchft.recipe.numerics import Numerics, Rule, rule_for
from searchft.recipe.opening import Opening, open_parameters
from searchft.recipe.recipe import Recipe, trained_parameters


@dataclass(frozen=True)
class ResolvedTrial:
    """One trial, ready to be trained."""

    recipe: Recipe
    """As it was asked for, with a batch of at most the training split."""
    canonical: Recipe
    """The same work in one spelling."""
    key: str
    data: DataFacts
    backbone: BackboneFacts
    opening: Opening
    head_opening: Opening
    """The head alone: what trains in the first `head_first_epochs`."""
    rule: Rule
    """The numerics' row in their table, with the reason."""
    trained_parameters: int
    """How many numbers train: the open backbone parameters, adapters and the whole head."""

    @property
    def numerics(self) -> Numerics:
        return self.rule.numerics

    @property
    def seed(self) -> int:
        """Of all that is random in the trial. It follows from the key, which holds the study's seed."""
        return int(self.key, 16) % 2**62

    @property
    def num_classes(self) -> int:
        return len(self.data.classes)


def resolve(recipe: Recipe, facts: SpaceFacts) -> ResolvedTrial:
    """What `recipe` means on the ground of `facts`.

    Raises KeyError if the facts do not know its architecture, ValueError for an unknown stage name.
    """
    recipe = dataclasses.replace(recipe, batch_size=min(recipe.batch_size, max(1, facts.data.train_size)))
    backbone = facts.backbones[recipe.architecture()]
    head_alone = dataclasses.replace(recipe, unfrozen=HEAD, stages=None, unfrozen_tensors=None)
    return ResolvedTrial(
        recipe=recipe,
        canonical=recipe.canonical(facts),
        key=recipe.key(facts),
        data=facts.data,
        backbone=backbone,
        opening=open_parameters(recipe, backbone),
        head_opening=open_parameters(head_alone, backbone),
        rule=rule_for(recipe, facts),
        trained_parameters=trained_parameters(recipe, facts),
    )
