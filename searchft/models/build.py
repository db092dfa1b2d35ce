"""From a recipe and recorded facts to a network: the same one in every process, whatever ran before."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from searchft.errors import ChangedGroundError, Problem, SearchftError, first_line
from searchft.models.adapters import attach_adapters
from searchft.models.backbones import (
    BackboneName,
    auxiliary_heads,
    build_backbone,
    constructor_arguments,
    parse_backbone,
    refusal,
    seeded,
)
from searchft.models.edits import apply_edits, change_modules, is_structural
from searchft.models.families import Rows, convnet_rows
from searchft.models.heads import HeadSlot, assemble, find_head, head_layers, probe_head
from searchft.models.weights import Source, find_weights, load_into, random_seed
from searchft.recipe import BackboneFacts, Recipe

KEPT_TEMPLATES = 3  # backbones kept in memory per process
SEED_UNDER_WEIGHTS = 0  # seed of the values that a weights file then replaces; only auxiliary heads that it lacks keep them


@dataclass(frozen=True)
class Template:
    """A finished backbone; never trained, only copied: a worker builds many models of few architectures."""

    model: nn.Module  # an empty nn.Identity stands where the head goes
    slot: HeadSlot
    edits: dict[str, Any]  # what the edits set, in the modules' own form
    notes: tuple[str, ...]
    kept: dict[str, int]  # how many modules of which nn.Sequential were kept
    new_layers: Rows  # layers that edits appended or put in another's place


_templates: OrderedDict[tuple[Any, ...], Template] = OrderedDict()


def make_template(recipe: Recipe, name: BackboneName, source: Source, probe_size: int = 0) -> Template:
    """Builds, edits and loads a backbone; finds where the head goes. `probe_size` > 0: also runs it on so large an image.

    Raises InputError where edits, weights or `head_replaces` do not fit the network.
    """
    random = random_seed(source.sha256)
    seed = SEED_UNDER_WEIGHTS if random is None else random
    model = build_backbone(name, source.weights, seed, recipe.auxiliary)
    slot = find_head(model, name, recipe.head_replaces)
    own = recipe.own_edits()
    edits = apply_edits(model, [edit for edit in own if not is_structural(edit[0])])
    # Whether or not the model has auxiliary heads, a file may hold their values.
    notes = load_into(model, name, source, slot.module, name.auxiliary)
    kept, new_layers = change_modules(model, [edit for edit in own if is_structural(edit[0])], slot.module, seed)
    fresh = [path for path, kind, _ in new_layers if next(model.get_submodule(path).parameters(), None) is not None]
    if fresh and source.path is not None:
        notes += (f"{', '.join(fresh)} of {name} are new: they begin at random values",)
    if probe_size:
        slot = _probed(model, slot, probe_size, bool(own))
    with seeded(SEED_UNDER_WEIGHTS):
        attach_adapters(model, recipe.adapters)
    model.requires_grad_(True)
    model.set_submodule(slot.module, nn.Identity())
    return Template(model, slot, edits, notes, kept, new_layers)


def _probed(model: nn.Module, slot: HeadSlot, size: int, edited: bool) -> HeadSlot:
    """The slot with `num_features` as two grey images of `size` pixels really bring them. Raises InputError if they cannot."""
    try:
        shape = probe_head(model, slot.module, torch.zeros(2, 3, size, size))
    except Exception as error:  # whatever a network says of sizes that do not fit
        key, what = ("recipe.edits", "with these edits") if edited else ("recipe.backbone", "as it is")
        rule = f"must leave a network that runs but {what} it fails on {size}×{size} pixels: {first_line(error)}"
        raise refusal(rule, key) from error
    if len(shape) == 4 and not slot.convolution and not slot.before:
        raise SearchftError(f"the head {slot.module} would get maps of shape {shape}: please report this")
    flat = len(shape) > 2 and not slot.convolution and "pool" not in slot.before
    return replace(slot, num_features=torch.Size(shape[1:]).numel() if flat else shape[1])


def _find_again(backbone: BackboneFacts, name: BackboneName) -> Source:
    """The recorded weights. Raises ChangedGroundError if they are not the recorded ones any more."""
    source = find_weights(name, backbone.weights, random_seed(backbone.weights_sha256) or 0)
    if source.sha256 != backbone.weights_sha256:
        rule = f"must be the weights that this study was created with (SHA-256 {backbone.weights_sha256[:12]}) but the file is "
        rule += f"another one now ({source.sha256[:12]}): put the old one back, or start over with --fresh"
        raise ChangedGroundError(Problem(source.described, "recipe.weights", rule))
    return source


def _template_of(recipe: Recipe, backbone: BackboneFacts) -> Template:
    """The kept template of a recipe's architecture, made at first use."""
    key = _template_key(recipe, backbone)
    if key not in _templates:
        name = parse_backbone(recipe.backbone)
        keep_template(recipe, backbone, make_template(recipe, name, _find_again(backbone, name)))
    _templates.move_to_end(key)
    return _templates[key]


def keep_template(recipe: Recipe, backbone: BackboneFacts, template: Template) -> None:
    """Keeps a template for the models of its architecture that follow."""
    _templates[_template_key(recipe, backbone)] = template
    while len(_templates) > KEPT_TEMPLATES:
        _templates.popitem(last=False)


def _template_key(recipe: Recipe, backbone: BackboneFacts) -> tuple[Any, ...]:
    return (recipe.architecture(), recipe.auxiliary, backbone.backbone, backbone.weights, backbone.weights_sha256)


def forget_templates() -> None:
    """Frees the backbones that this process keeps."""
    _templates.clear()


def build_model(recipe: Recipe, backbone: BackboneFacts, num_classes: int, head_seed: int) -> nn.Module:
    """The network of a recipe: float32, on the CPU, every parameter with requires_grad, images [N, 3, H, W] -> logits [N, C].

    Pretrained values come from the recorded source, random ones from the recorded seed, our head's from `head_seed` by torch's
    default rule: the same arguments give bit-equal values, and nobody's random state is touched. Call `freeze` and `set_modes` next.

    Raises ChangedGroundError if the weights file is not the recorded one any more, InputError if it is gone.
    """
    model = copy.deepcopy(_template_of(recipe, backbone).model)
    model.set_submodule(backbone.head, new_head(recipe, backbone, num_classes, head_seed))
    with seeded(head_seed):
        for module, last in auxiliary_heads(model, parse_backbone(recipe.backbone)):
            old = model.get_submodule(f"{module}.{last}")
            assert isinstance(old, nn.Linear)
            model.set_submodule(f"{module}.{last}", nn.Linear(old.in_features, num_classes))
    return model


def new_head(recipe: Recipe, backbone: BackboneFacts, num_classes: int, head_seed: int) -> nn.Module:
    """The head of a recipe alone, float32, on the CPU: bit-equal to the one that `build_model` puts into the network."""
    slot = _template_of(recipe, backbone).slot
    with seeded(head_seed):
        return assemble(head_layers(recipe, slot, backbone.num_features, num_classes))


def architecture_of(recipe: Recipe, backbone: BackboneFacts, num_classes: int) -> dict[str, Any]:
    """Plain JSON from which torchvision or timm alone rebuild the network that `build_model` gives:

        {"library": "torchvision", "name": "resnet18", "kwargs": {}, "edits": {"conv1.stride": [1, 1]},
         "head": {"module": "fc", "layers": [["Linear", {"in_features": 512, "out_features": 40, "bias": true}]]}}

    Build NAME with `num_classes` and `kwargs` (an empty nn.Sequential for library `torch.nn`); set each edit (lists as tuples);
    then, where there is such an entry, cut each nn.Sequential of `kept` down to so many modules, put each of `new_layers` (path,
    class of torch.nn, arguments) at its path, and call `searchft.models.adapters.attach_adapters`; put `layers` (in an
    nn.Sequential if there are several) at `head.module`. Auxiliary heads are not part of it: leave their values out.
    """
    name = parse_backbone(recipe.backbone)
    template = _template_of(recipe, backbone)
    rows = (convnet_rows(name.name, num_classes) if name.library == "searchft" else []) + template.new_layers
    layers = head_layers(recipe, template.slot, backbone.num_features, num_classes)
    changed = {
        "kept": template.kept,
        "new_layers": [list(row) for row in rows],
        "adapters": "" if recipe.adapters == "none" else recipe.adapters,
    }
    return {
        "library": "torch.nn" if name.library == "searchft" else name.library,
        "name": name.full_name,
        "kwargs": constructor_arguments(name, backbone.weights),
        **{key: value for key, value in changed.items() if value},
        "edits": {path: list(v) if isinstance(v, tuple) else v for path, v in template.edits.items()},
        "head": {"module": backbone.head, "layers": [list(layer) for layer in layers]},
        "num_classes": num_classes,
    }


def check_image_size(recipe: Recipe, backbone: BackboneFacts, image_size: int) -> str:
    """Empty if the network runs on images of so many pixels, else the rule it breaks (for `data.image_size`)."""
    model = build_model(recipe, backbone, 2, 0).eval()
    try:
        with torch.no_grad():
            model(torch.zeros(2, 3, image_size, image_size))
    except Exception as error:  # whatever a network says of sizes that do not fit
        sizes = f"{backbone.backbone} runs on (such as {backbone.input_size})"
        return f"must be a size that {sizes} but got {image_size}: {first_line(error)}"
    return ""
