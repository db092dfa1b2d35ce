"""Recipes: what a fine-tuning is, and the facts that give it its meaning. Nothing here imports torch or Optuna.

Read in this order: `fields` (THE table of fields), `facts` (what backbones and data really are), `opening` (which parameters
train), `numerics` (how numbers are computed), `recipe` (a recipe's one spelling and its key).
"""

from __future__ import annotations

from searchft.recipe.facts import BackboneFacts, DataFacts, ParameterFacts, StageFacts, digest
from searchft.recipe.fields import AUGMENTATIONS, HEAD, OPTIMIZERS, DataSettings, SearchSettings
from searchft.recipe.numerics import Keeping, Numerics, SpaceFacts, keeping_name, numerics_name
from searchft.recipe.opening import Opening, norm_matters, open_parameters
from searchft.recipe.recipe import KEY_VERSION, Recipe, is_read_only, trained_parameters

__all__ = [
    "AUGMENTATIONS",
    "HEAD",
    "KEY_VERSION",
    "OPTIMIZERS",
    "BackboneFacts",
    "DataFacts",
    "DataSettings",
    "Keeping",
    "Numerics",
    "Opening",
    "ParameterFacts",
    "Recipe",
    "SearchSettings",
    "SpaceFacts",
    "StageFacts",
    "digest",
    "is_read_only",
    "keeping_name",
    "norm_matters",
    "numerics_name",
    "open_parameters",
    "trained_parameters",
]
