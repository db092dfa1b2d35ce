"""The head: where the old one sits, and ours in its place.

With no hidden layer ours is one plain layer under the old one's name, so that timm and torchvision load our weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from searchft.models.backbones import PLACEHOLDER_CLASSES, BackboneName, refusal
from searchft.recipe import Recipe

Layers = list[tuple[str, dict[str, Any]]]  # classes of `torch.nn` with their arguments, input side first


@dataclass(frozen=True)
class HeadSlot:
    """The place of the classifier in a backbone."""

    module: str  # dotted name of what our head replaces
    num_features: int  # inputs of the head
    convolution: bool = False  # the old layer is a 1×1 convolution in front of the pooling (SqueezeNet): ours are too
    bias: bool = True  # whether the old final layer has a bias (MaxViT's has none)
    before: tuple[str, ...] = ()
    """Parameterless layers to put before ours: `pool` and `flatten` where the replaced block did that itself."""


def find_head(model: nn.Module, name: BackboneName, replaces: str) -> HeadSlot:
    """Where the head of a backbone sits, before or after edits, without running it.

    `last`: the final nn.Linear (or 1×1 convolution). `classifier`: the whole top-level block around it, which may pool;
    its inputs are found by `probe_head`. Raises InputError where there is no single such layer.
    """
    last = name.family.head if name.family else _final_layer(model, name)
    layer = model.get_submodule(last)
    if isinstance(layer, nn.Linear):
        slot = HeadSlot(last, layer.in_features, bias=layer.bias is not None)
    elif isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
        slot = HeadSlot(last, layer.in_channels, convolution=True, bias=layer.bias is not None)
    else:
        ends = f"{name} ends in {type(layer).__name__}"
        raise refusal(f"must end in a linear layer but {ends}: searchft cannot replace its head")
    if name.library == "timm":
        # Distilled and multi-scale networks have another layer with as many outputs as the placeholder head has classes.
        linear = ((key, part) for key, part in model.named_modules() if isinstance(part, nn.Linear) and key != last)
        if second := next((key for key, part in linear if part.out_features == PLACEHOLDER_CLASSES), ""):
            raise refusal(f"must have one classifier but {name} has several heads ({last}, {second}): take another backbone")
    block = last.partition(".")[0]
    if replaces == "last" or block == last:
        return slot
    if name.library == "timm":
        rule = f"must be 'last' for {name}: timm calls its {block!r} block in a way of its own, only {last!r} can be replaced"
        raise refusal(rule, "recipe.head_replaces")
    parts = list(model.get_submodule(block).modules())
    pools = any(isinstance(part, nn.AdaptiveAvgPool2d) for part in parts)
    flattens = pools or any(isinstance(part, nn.Flatten) for part in parts)
    first = next(part for part in parts if isinstance(part, nn.Linear | nn.Conv2d))
    features = first.in_features if isinstance(first, nn.Linear) else first.in_channels
    return HeadSlot(block, features, before=("pool",) * pools + ("flatten",) * flattens)


def _final_layer(model: nn.Module, name: BackboneName) -> str:
    """The last layer of what timm calls the classifier, or of a user's whole network."""
    root, classifier = "", model
    if name.library == "timm":
        classifier = model.get_classifier()  # type: ignore[operator]
        if not isinstance(classifier, nn.Module) or isinstance(classifier, nn.Identity):
            what = "several heads" if isinstance(classifier, tuple | list | dict) else "no classifier"
            raise refusal(f"must have one classifier but {name} has {what}: take another backbone")
        root = next((key for key, part in model.named_modules() if part is classifier), "")
    kinds = nn.Linear | nn.Conv2d if name.library == "timm" else nn.Linear
    inner = [key for key, part in classifier.named_modules() if isinstance(part, kinds)]
    if not inner or (name.library == "timm" and not root):
        ends = f"ends in {type(classifier).__name__}: searchft cannot replace its head" if root else "has none"
        raise refusal(f"must end in a linear layer but {name} {ends}")
    return ".".join(filter(None, (root, inner[-1])))


def probe_head(model: nn.Module, module: str, images: Tensor) -> tuple[int, ...]:
    """Shape of the module's input when the network sees `images` [N, 3, H, W] in eval mode. Raises whatever the network raises."""
    seen: list[tuple[int, ...]] = []
    part = model.get_submodule(module)
    handle = part.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(images)
    except Exception:
        # The old head itself may not fit any more (VGG with other pool sizes): then what reached it is the answer.
        if not seen:
            raise
    finally:
        model.train(was_training)
        handle.remove()
    return seen[-1]


def head_layers(recipe: Recipe, slot: HeadSlot, num_features: int, num_classes: int) -> Layers:
    """The recipe's head as data: `[("Linear", {"in_features": 512, "out_features": 40, "bias": True})]` in the plainest case."""
    layers: Layers = []
    if "pool" in slot.before:
        layers.append(("AdaptiveAvgPool2d", {"output_size": 1}))
    if "flatten" in slot.before:
        layers.append(("Flatten", {"start_dim": 1}))
    if recipe.input_dropout > 0:
        layers.append(("Dropout", {"p": recipe.input_dropout}))
    widths = (*recipe.head_widths, num_classes)
    for place, (inputs, outputs) in enumerate(zip((num_features, *widths), widths, strict=False)):
        if place and recipe.head_activation != "none":
            layers.append(({"relu": "ReLU", "gelu": "GELU"}[recipe.head_activation], {}))
        if place and recipe.dropout > 0:
            layers.append(("Dropout", {"p": recipe.dropout}))
        bias = slot.bias or place < len(recipe.head_widths)
        if slot.convolution:
            layers.append(("Conv2d", {"in_channels": inputs, "out_channels": outputs, "kernel_size": 1, "bias": bias}))
        else:
            layers.append(("Linear", {"in_features": inputs, "out_features": outputs, "bias": bias}))
    return layers


def assemble(layers: Layers) -> nn.Module:
    """Builds what `head_layers` describes, initialised by torch's default rule: the layer itself if it is only one."""
    modules = [getattr(nn, kind)(**arguments) for kind, arguments in layers]
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)
