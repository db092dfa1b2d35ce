"""What a backbone with given weights and edits really is: `BackboneFacts`, plain data kept with the study."""

from __future__ import annotations

from typing import Any

import timm
import torchvision
from torch import nn

from searchft.errors import InputError
from searchft.models.adapters import BRANCH
from searchft.models.backbones import BackboneName, parse_backbone, timm_tags
from searchft.models.build import keep_template, make_template
from searchft.models.stages import below, divide, is_norm, stage_of
from searchft.models.weights import Source, WeightsMissing, find_weights
from searchft.recipe import BackboneFacts, ParameterFacts, Recipe, StageFacts

Triple = tuple[float, float, float]
IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of the images that most weights saw."""


def describe_backbone(recipe: Recipe, seed: int) -> BackboneFacts:
    """Builds the backbone of a recipe once, with its weights and edits, writes down what it is, and keeps it for `build_model`.

    `seed` makes random values where `weights` (or the fallback, taken only where weights cannot be had) is `none`. Raises InputError
    for the backbone's name, weights that cannot be had or do not fit, edits, `head_replaces`, adapters.
    """
    name = parse_backbone(recipe.backbone)
    source, fell_back = _find(recipe, name, seed)
    mean, std, size = _preprocessing(name, source.weights)
    if recipe.normalization == "none":
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    template = make_template(recipe, name, source, size if recipe.own_edits() or recipe.head_replaces != "last" else 0)
    model, slot = template.model, template.slot
    stages = divide(model, name, slot.module, name.auxiliary)
    heads = (slot.module, *name.auxiliary)
    parameters = _describe_parameters(model, stages, heads)
    facts = BackboneFacts(
        backbone=recipe.backbone,
        weights=source.weights,
        weights_sha256=source.sha256,
        weights_source=source.described,
        fell_back=fell_back,
        stages=stages,
        parameters=parameters,
        batch_norms=_describe_batch_norms(model, stages, heads),
        head=slot.module,
        num_features=slot.num_features,
        mean=mean,
        std=std,
        input_size=size,
        has_auxiliary_heads=bool(name.auxiliary),
        notes=source.notes + template.notes,
        depthwise_weights=tuple(fact.name for fact in parameters if _is_depthwise(model, fact.name)),
    )
    keep_template(recipe, facts, template)
    return facts


def _find(recipe: Recipe, name: BackboneName, seed: int) -> tuple[Source, str]:
    """The weights, or the fallback's with the reason why it was taken."""
    try:
        return find_weights(name, recipe.weights, seed), ""
    except WeightsMissing as missing:
        if not recipe.weights_fallback:
            raise
        try:
            return find_weights(name, recipe.weights_fallback, seed), missing.problems[0].rule
        except WeightsMissing as also_missing:
            raise InputError([*missing.problems, *also_missing.problems]) from also_missing


def _preprocessing(name: BackboneName, weights: str) -> tuple[Triple, Triple, int]:
    """Mean and standard deviation per channel (of values in [0, 1]) and the side in pixels that the weights were trained at."""
    if name.library == "timm":
        named = f"{name.name}.{weights}" if weights in timm_tags(name.name) else name.full_name
        config = timm.models.get_pretrained_cfg(named)
        return (*_triples(config), int(config.input_size[-1])) if config else (*IMAGENET, 224)
    if name.library != "torchvision":
        return *IMAGENET, 224
    enum = torchvision.models.get_model_weights(name.name)
    known = weights in enum.__members__
    if not known and name.family and name.family.name == "vision_transformer":
        return *IMAGENET, 224  # the size it is built for, whatever the first weights' was
    transforms = (enum[weights] if known else next(iter(enum))).transforms()
    return *(_triples(transforms) if known else IMAGENET), int(transforms.crop_size[0])


def _triples(source: Any) -> tuple[Triple, Triple]:
    """`mean` and `std` of three channels as plain tuples."""
    (r, g, b), (red, green, blue) = source.mean, source.std
    return (float(r), float(g), float(b)), (float(red), float(green), float(blue))


def _describe_parameters(
    model: nn.Module, stages: tuple[StageFacts, ...], apart: tuple[str, ...]
) -> tuple[ParameterFacts, ...]:
    """Every parameter outside the heads, ordered by stage, then as in the model."""
    found = []
    for key, parameter in model.named_parameters():
        if below(key, apart):
            continue
        stage = stage_of(key, stages)
        assert stage is not None
        owner, _, own = key.rpartition(".")
        kind = next((kind for kind in ("weight", "bias") if own == kind or own.endswith(f"_{kind}")), "other")
        if BRANCH in owner.split("."):
            kind = "adapter"
        elif kind != "other" and is_norm(model.get_submodule(owner)):
            kind = f"norm_{kind}"
        found.append(ParameterFacts(key, parameter.numel(), stage, kind))
    names = [stage.name for stage in stages]
    return tuple(sorted(found, key=lambda fact: names.index(fact.stage)))


def _is_depthwise(model: nn.Module, parameter: str) -> bool:
    """Whether a parameter is the weight of a depthwise convolution: one with as many groups as input channels."""
    module, _, own = parameter.rpartition(".")
    owner = model.get_submodule(module)
    return own == "weight" and isinstance(owner, nn.Conv2d) and owner.groups == owner.in_channels > 1


def _describe_batch_norms(
    model: nn.Module, stages: tuple[StageFacts, ...], apart: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """(module, stage) of every BatchNorm with running statistics, in the same order; one outside every stage goes with the one before."""
    found: list[tuple[str, str]] = []
    names = [stage.name for stage in stages]
    here = names[0]
    for key, module in model.named_modules():
        if key and not below(key, apart):
            here = stage_of(key, stages) or here
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                found.append((key, here))
    return tuple(sorted(found, key=lambda pair: names.index(pair[1])))
