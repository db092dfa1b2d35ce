"""Frozen means frozen: which parameters have gradients, and which modules are in train mode.

Never `model.train()`: frozen BatchNorms would drift, and dropout of frozen layers would be on. A module is in train mode if training
is on and it lies in the head or the trainable part, and a BatchNorm only if its statistics are to be updated.
"""

from __future__ import annotations

from torch import nn

from searchft.models.backbones import auxiliary_heads, parse_backbone
from searchft.models.stages import below
from searchft.recipe import BackboneFacts, Opening


def head_modules(model: nn.Module, backbone: BackboneFacts) -> tuple[str, ...]:
    """Dotted names of the head and of the auxiliary heads, where the model has them."""
    return (backbone.head, *(module for module, _ in auxiliary_heads(model, parse_backbone(backbone.backbone))))


def head_parameters(model: nn.Module, backbone: BackboneFacts) -> dict[str, nn.Parameter]:
    """The parameters of `head_modules`, by their name in the model."""
    heads = head_modules(model, backbone)
    return {key: value for key, value in model.named_parameters() if below(key, heads)}


def freeze(model: nn.Module, backbone: BackboneFacts, opening: Opening) -> None:
    """Sets `requires_grad` on exactly the opening's parameters and the head's; gradients of the others are dropped."""
    trainable = set(opening.parameters) | set(head_parameters(model, backbone))
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(key in trainable)
        if key not in trainable:
            parameter.grad = None


def set_modes(model: nn.Module, backbone: BackboneFacts, opening: Opening, training: bool) -> None:
    """Sets train or eval mode of every module by the rule above.

    A model with auxiliary heads is itself in train mode while training: its output then is torchvision's named tuple.
    """
    heads = head_modules(model, backbone)
    trainable = (*heads, *opening.modules)
    for key, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.training = training and key in opening.train_norms
        elif key == "":
            module.training = training and (len(heads) > 1 or "" in opening.modules)
        else:
            module.training = training and below(key, trainable)
