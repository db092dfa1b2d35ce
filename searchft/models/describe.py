"""What a backbone with given weights and edits really is: `BackboneFacts`, plain data kept with the study.

Built once, looked at, and kept as the template of the models that follow in this process.
"""

from __future__ import annotations

from typing import Any

import timm
import torchvision
from torch import nn

from searchft.errors import InputError
from searchft.models.adapters import BRANCH, check_adapters
from searchft.models.backbones import BackboneName, parse_backbone, timm_tags
from searchft.models.build import keep_template, make_template
from searchft.models.stages import below, divide, is_norm, stage_of
from searchft.models.weights import Source, WeightsMissing, find_weights
from searchft.recipe import BackboneFacts, ParameterFacts, Recipe, StageFacts

Triple = tuple[float, float, float]

IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of the images that most weights saw."""


def describe_backbone(recipe: Recipe, seed: int) -> BackboneFacts:
    """Builds the backbone of a recipe once, with its weights and edits, and writes down what it is.

    `seed` makes random values where `weights` (or the fallback) is `none`. The fallback is taken only where weights cannot
    be had, with the reason in `fell_back`. Raises InputError for everything a user can have wrong: the backbone's name,
    weights that cannot be had or do not fit, edits, `head_replaces`, adapters.
    """
    check_adapters(recipe.adapters)
    name = parse_backbone(recipe.backbone)
    source, fell_back = _find(recipe, name, seed)
    mean, std, size = preprocessing(name, source.weights)
    if recipe.normalization == "none":
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    probe = size if recipe.own_edits() or recipe.head_replaces != "last" else 0
    template = make_template(recipe, name, source, probe)
    model, slot = template.model, template.slot
    auxiliary = name.auxiliary
    stages = divide(model, name, slot.module, auxiliary)
    heads = (slot.module, *auxiliary)
    parameters = describe_parameters(model, stages, heads)
    facts = BackboneFacts(
        backbone=recipe.backbone,
        weights=source.weights,
        weights_sha256=source.sha256,
        weights_source=source.described,
        fell_back=fell_back,
        stages=stages,
        parameters=parameters,
        batch_norms=describe_batch_norms(model, stages, heads),
        head=slot.module,
        num_features=slot.num_features,
        mean=mean,
        std=std,
        input_size=size,
        has_auxiliary_heads=bool(auxiliary),
        notes=source.notes + template.notes,
        depthwise_weights=tuple(fact.name for fact in parameters if is_depthwise(model, fact.name)),
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
        reason = missing.problems[0].rule
        try:
            return find_weights(name, recipe.weights_fallback, seed), reason
        except WeightsMissing as also_missing:
            raise InputError([*missing.problems, *also_missing.problems]) from also_missing


def preprocessing(name: BackboneName, weights: str) -> tuple[Triple, Triple, int]:
    """Mean and standard deviation per channel (of values in [0, 1]) and the side in pixels that the weights were trained at.

    torchvision: what the weights' own transforms say; without such weights ImageNet's. timm: its pretrained_cfg.
    """
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


def describe_parameters(model: nn.Module, stages: tuple[StageFacts, ...], apart: tuple[str, ...]) -> tuple[ParameterFacts, ...]:
    """Every parameter outside the heads, ordered by stage, then as in the model."""
    modules = dict(model.named_modules())
    found = []
    for key, parameter in model.named_parameters():
        if below(key, apart):
            continue
        stage = stage_of(key, stages)
        assert stage is not None
        owner, _, own = key.rpartition(".")
        kind = "adapter" if BRANCH in owner.split(".") else kind_of(modules[owner], own)
        found.append(ParameterFacts(key, parameter.numel(), stage, kind))
    order = {stage.name: number for number, stage in enumerate(stages)}
    return tuple(sorted(found, key=lambda fact: order[fact.stage]))


def is_depthwise(model: nn.Module, parameter: str) -> bool:
    """Whether a parameter is the weight of a depthwise convolution: one with as many groups as input channels."""
    module, _, own = parameter.rpartition(".")
    owner = model.get_submodule(module)
    return own == "weight" and isinstance(owner, nn.Conv2d) and owner.groups == owner.in_channels > 1


def kind_of(owner: nn.Module, own: str) -> str:
    """`weight`, `bias`, `norm_weight`, `norm_bias` or `other`, from the module that owns a parameter and its name there."""
    kind = next((kind for kind in ("weight", "bias") if own == kind or own.endswith(f"_{kind}")), "")
    return f"norm_{kind}" if kind and is_norm(owner) else kind or "other"


def describe_batch_norms(
    model: nn.Module, stages: tuple[StageFacts, ...], apart: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """(module, stage) of every BatchNorm with running statistics, ordered by stage, then as in the model.

    One without parameters of its own, outside every stage, goes with the module before it.
    """
    found: list[tuple[str, str]] = []
    here = stages[0].name
    for key, module in model.named_modules():
        if not key or below(key, apart):
            continue
        here = stage_of(key, stages) or here
        running: Any = getattr(module, "running_mean", None)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and running is not None:
            found.append((key, here))
    order = {stage.name: number for number, stage in enumerate(stages)}
    return tuple(sorted(found, key=lambda pair: order[pair[1]]))
