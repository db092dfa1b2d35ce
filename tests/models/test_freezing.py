"""Frozen means frozen: after training, what was not opened is bit-equal to before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from searchft.models import build_model, describe_backbone, freeze, head_parameters, set_modes
from searchft.recipe import BackboneFacts, Opening, Recipe, open_parameters


def frozen(recipe: Recipe) -> tuple[nn.Module, BackboneFacts, Opening]:
    """A model as training begins with it."""
    facts = describe_backbone(recipe, seed=0)
    model = build_model(recipe, facts, 4, 1)
    assert all(parameter.requires_grad for parameter in model.parameters())
    opening = open_parameters(recipe, facts)
    freeze(model, facts, opening)
    model.train()
    set_modes(model, facts, opening, training=True)
    return model, facts, opening


def trained(recipe: Recipe, size: int = 64) -> tuple[nn.Module, BackboneFacts, Opening, dict[str, Any]]:
    """A model after three training steps, and its state before."""
    model, facts, opening = frozen(recipe)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        images = torch.rand(8, 3, size, size, generator=generator)
        loss = nn.functional.cross_entropy(model(images), torch.arange(8) % 4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, facts, opening, before


@pytest.mark.parametrize("norm", ["frozen", "affine", "stats"])
@pytest.mark.parametrize("unfrozen", ["head", "layer4", "layer3"])
def test_only_what_is_open_changes(norm: str, unfrozen: str) -> None:
    model, facts, opening, before = trained(Recipe("timm/resnet10t", weights="none", unfrozen=unfrozen, norm=norm))
    after = model.state_dict()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    heads = set(head_parameters(model, facts))
    statistics = {f"{m}.{b}" for m in opening.train_norms for b in ("running_mean", "running_var", "num_batches_tracked")}
    assert changed == set(opening.parameters) | heads | statistics
    if unfrozen == "head":
        assert changed == heads
    else:
        assert bool(statistics) == (norm == "stats")
        assert any("bn" in key for key in opening.parameters) == (norm != "frozen")


def test_gradients_are_asked_for_exactly_where_the_recipe_opens() -> None:
    recipe = Recipe("torchvision/mobilenet_v2", weights="none", unfrozen="features.17", parameters="bias")
    model, _, opening = frozen(recipe)
    with_gradient = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert with_gradient == set(opening.parameters) | {"classifier.1.weight", "classifier.1.bias"}
    assert opening.parameters and all(key.endswith("bias") for key in opening.parameters)


def test_modes_follow_the_open_part_and_batch_norms_their_own_list() -> None:
    recipe = Recipe(
        "torchvision/mobilenet_v2", weights="none", unfrozen="features.18", norm="affine", head_widths=(8,), dropout=0.5
    )
    model, facts, opening = frozen(recipe)
    modes = {key: module.training for key, module in model.named_modules()}
    on = {key for key, mode in modes.items() if mode}
    assert on == {"features.18", "features.18.0", "features.18.2", *(key for key in modes if key.startswith("classifier.1"))}
    set_modes(model, facts, opening, training=False)
    assert not any(module.training for module in model.modules())


def test_a_named_middle_stage_alone_opens_alone() -> None:
    model, _, _, before = trained(Recipe("timm/resnet10t", weights="none", stages=("layer2",)))
    changed = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"layer2", "fc"}


@pytest.mark.slow
def test_the_root_trains_only_to_run_auxiliary_heads() -> None:
    recipe = Recipe("torchvision/googlenet", weights="none", auxiliary=True, unfrozen="inception5b")
    model, facts, opening = frozen(recipe)
    assert len(model(torch.rand(2, 3, 96, 96))) == 3
    assert model.get_parameter("aux1.fc2.weight").requires_grad
    set_modes(model, facts, opening, training=False)
    assert model(torch.rand(2, 3, 96, 96)).shape == (2, 4)
