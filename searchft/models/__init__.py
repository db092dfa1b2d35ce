"""Networks: by name, with their weights, divided into stages, with our head, frozen as far as a recipe says."""

from __future__ import annotations

from searchft.models.adapters import attach_adapters
from searchft.models.backbones import list_backbones
from searchft.models.build import architecture_of, build_model, check_image_size, forget_templates, new_head
from searchft.models.describe import describe_backbone
from searchft.models.freezing import freeze, head_modules, head_parameters, set_modes
from searchft.models.weights import WeightsMissing

__all__ = [
    "WeightsMissing",
    "architecture_of",
    "attach_adapters",
    "build_model",
    "check_image_size",
    "describe_backbone",
    "forget_templates",
    "freeze",
    "head_modules",
    "head_parameters",
    "list_backbones",
    "new_head",
    "set_modes",
]
