"""The head: where the old one sits, and ours in its place.

Our head is written down as a list of (torch.nn class, arguments) before it is built: the same list goes into an exported
`config.json`. With no hidden layer it is one plain layer under the old one's name, so that timm and torchvision load our weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from searchft.errors import InputError, Problem
from searchft.models.backbones import PLACEHOLDER_CLASSES, BackboneName

Layers = list[tuple[str, dict[str, Any]]]
"""Classes of `torch.nn` with their arguments, input side first."""

ACTIVATIONS = {"relu": "ReLU", "gelu": "GELU"}


@dataclass(frozen=True)
class HeadSlot:
    """The place of the classifier in a backbone."""

    module: str
    """Dotted name of what our head replaces."""
    num_features: int
    """Inputs of the head."""
    convolution: bool = False
    """The old layer is a 1×1 convolution in front of the pooling (SqueezeNet): ours are too."""
    bias: bool = True
    """Whether the old final layer has a bias (MaxViT's has none)."""
    before: tuple[str, ...] = ()
    """Parameterless layers to put before ours: `pool` and `flatten` where the replaced block did that itself."""


def find_head(model: nn.Module, name: BackboneName, replaces: str) -> HeadSlot:
    """Where the head of a backbone sits, before or after edits, without running it.

    `last`: the final nn.Linear (or 1×1 convolution). `classifier`: the whole top-level block around it, which may pool;
    its inputs are found by `probe_head`. Raises InputError where there is no single such layer.
    """
    if replaces not in ("last", "classifier"):
        raise _refusal(f"must be 'last' or 'classifier' but got {replaces!r}", "recipe.head_replaces")
    last = name.family.head if name.family else _final_layer(model, name)
    layer = model.get_submodule(last)
    if isinstance(layer, nn.Linear):
        slot = HeadSlot(last, layer.in_features, bias=layer.bias is not None)
    elif isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
        slot = HeadSlot(last, layer.in_channels, convolution=True, bias=layer.bias is not None)
    else:
        raise _refusal(
            f"must end in a linear layer but {name} ends in {type(layer).__name__}: searchft cannot replace its head"
        )
    if name.library == "timm":
        # Distilled and multi-scale networks have another layer with as many outputs as the placeholder head has classes.
        linear = ((key, part) for key, part in model.named_modules() if isinstance(part, nn.Linear) and key != last)
        second = next((key for key, part in linear if part.out_features == PLACEHOLDER_CLASSES), "")
        if second:
            raise _refusal(f"must have one classifier but {name} has several heads ({last}, {second}): take another backbone")
    block = last.partition(".")[0]
    if replaces == "last" or block == last:
        return slot
    if name.library == "timm":
        rule = f"must be 'last' for {name}: timm calls its {block!r} block in a way of its own, only {last!r} can be replaced"
        raise _refusal(rule, "recipe.head_replaces")
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
            raise _refusal(f"must have one classifier but {name} has {what}: take another backbone")
        root = next((key for key, part in model.named_modules() if part is classifier), "")
    kinds = nn.Linear | nn.Conv2d if name.library == "timm" else nn.Linear
    inner = [key for key, part in classifier.named_modules() if isinstance(part, kinds)]
    if not inner or (name.library == "timm" and not root):
        ends = f"ends in {type(classifier).__name__}: searchft cannot replace its head" if root else "has none"
        raise _refusal(f"must end in a linear layer but {name} {ends}")
    return ".".join(filter(None, (root, inner[-1])))


def _refusal(rule: str, key: str = "recipe.backbone") -> InputError:
    return InputError(Problem("", key, rule))


def probe_head(model: nn.Module, module: str, images: Tensor) -> tuple[int, ...]:
    """Shape of what the module gets as input when the network sees `images` [N, 3, H, W] in eval mode.

    Raises whatever the network raises if it cannot run.
    """
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


def head_layers(
    num_features: int,
    widths: Sequence[int],
    activation: str,
    dropout: float,
    input_dropout: float,
    num_classes: int,
    *,
    convolution: bool = False,
    bias: bool = True,
    before: Sequence[str] = (),
) -> Layers:
    """The head as data: `[["Linear", {"in_features": 512, "out_features": 40, "bias": True}]]` in the plainest case.

    `convolution` makes 1×1 convolutions of the linear layers. Raises InputError for an unknown activation.
    """
    if activation != "none" and activation not in ACTIVATIONS:
        raise _refusal(f"must be relu, gelu or none but got {activation!r}", "recipe.head_activation")
    layers: Layers = []
    if "pool" in before:
        layers.append(("AdaptiveAvgPool2d", {"output_size": 1}))
    if "flatten" in before:
        layers.append(("Flatten", {"start_dim": 1}))
    if input_dropout > 0:
        layers.append(("Dropout", {"p": input_dropout}))

    def connect(inputs: int, outputs: int, with_bias: bool) -> None:
        if convolution:
            layers.append(("Conv2d", {"in_channels": inputs, "out_channels": outputs, "kernel_size": 1, "bias": with_bias}))
        else:
            layers.append(("Linear", {"in_features": inputs, "out_features": outputs, "bias": with_bias}))

    for width in widths:
        connect(num_features, width, True)
        if activation != "none":
            layers.append((ACTIVATIONS[activation], {}))
        if dropout > 0:
            layers.append(("Dropout", {"p": dropout}))
        num_features = width
    connect(num_features, num_classes, bias)
    return layers


def assemble(layers: Layers) -> nn.Module:
    """Builds what `head_layers` describes, initialised by torch's default rule: the layer itself if it is only one."""
    modules = [getattr(nn, kind)(**arguments) for kind, arguments in layers]
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)
