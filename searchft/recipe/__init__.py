"""Recipes: what a fine-tuning is, and the facts that give it its meaning. Nothing here imports torch or Optuna.

Read `fields` (THE table), `facts` (what backbones and data really are), `opening`, `numerics`, `recipe` (its key) and `resolve`.
"""

from __future__ import annotations

from searchft.recipe.facts import BackboneFacts, DataFacts, ParameterFacts, SpaceFacts, StageFacts
from searchft.recipe.fields import AUGMENTATIONS, HEAD, OPTIMIZERS, DataSettings, SearchSettings
from searchft.recipe.numerics import Numerics, Rule, rule_for
from searchft.recipe.opening import Opening, norm_matters, open_parameters
from searchft.recipe.recipe import KEY_VERSION, Recipe, is_read_only, trained_parameters
from searchft.recipe.resolve import ResolvedTrial, resolve
from searchft.wording import digest

__all__ = [
    "AUGMENTATIONS",
    "HEAD",
    "KEY_VERSION",
    "OPTIMIZERS",
    "BackboneFacts",
    "DataFacts",
    "DataSettings",
    "Numerics",
    "Opening",
    "ParameterFacts",
    "Recipe",
    "ResolvedTrial",
    "Rule",
    "SearchSettings",
    "SpaceFacts",
    "StageFacts",
    "digest",
    "is_read_only",
    "norm_matters",
    "open_parameters",
    "resolve",
    "rule_for",
    "trained_parameters",
]
