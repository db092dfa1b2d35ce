"""The head takes the old one's place so that plain libraries load our weights; edits keep weights and change maps."""

from __future__ import annotations

import json
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

from searchft.errors import InputError
from searchft.models import architecture_of, build_model, check_image_size, describe_backbone, head_parameters
from searchft.models.heads import HeadSlot, assemble, head_layers
from searchft.recipe import Recipe

FACE_EDITS = (("conv1.stride", 1), ("layer2.0.conv1.stride", 1), ("layer2.0.downsample.0.stride", 1))


def built(recipe: Recipe, classes: int = 5, head_seed: int = 1) -> nn.Module:
    return build_model(recipe, describe_backbone(recipe, seed=0), classes, head_seed)


@pytest.mark.parametrize(
    "backbone",
    [
        "torchvision/resnet18",
        "torchvision/mobilenet_v2",
        "torchvision/squeezenet1_1",
        "torchvision/googlenet",
        pytest.param("torchvision/maxvit_t", marks=pytest.mark.slow),
        pytest.param("torchvision/vgg11", marks=pytest.mark.slow),
        pytest.param("torchvision/inception_v3", marks=pytest.mark.slow),
        pytest.param("torchvision/vit_b_32", marks=pytest.mark.slow),
        pytest.param("torchvision/swin_t", marks=pytest.mark.slow),
        "timm/test_vit",
        "timm/test_convnext",
        "timm/mobilenetv3_small_050",
        "timm/resnet10t",
    ],
)
def test_the_plain_library_loads_our_weights_and_agrees(backbone: str) -> None:
    recipe = Recipe(backbone, weights="none")
    facts = describe_backbone(recipe, seed=0)
    model = build_model(recipe, facts, 5, 1).eval()
    library, name = backbone.split("/")
    kwargs = architecture_of(recipe, facts, 5)["kwargs"]
    if library == "timm":
        plain = timm.create_model(name, num_classes=5, **kwargs)
    else:
        plain = torchvision.models.get_model(name, num_classes=5, **kwargs)
    plain.load_state_dict(model.state_dict(), strict=True)
    images = torch.rand(2, 3, facts.input_size, facts.input_size)
    with torch.no_grad():
        logits = model(images)
        assert logits.shape == (2, 5)
        assert torch.equal(plain.eval()(images), logits)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("torchvision/resnet18", weights="none", edits=FACE_EDITS, head_widths=(32, 16), dropout=0.5, input_dropout=0.1),
        Recipe("torchvision/squeezenet1_1", weights="none", head_widths=(32,), head_activation="gelu"),
        Recipe("torchvision/squeezenet1_1", weights="none", head_replaces="classifier"),
        Recipe("torchvision/mobilenet_v3_small", weights="none", head_replaces="classifier", head_widths=(64,)),
        Recipe("timm/test_vit", weights="none", head_widths=(8,), head_activation="none"),
        pytest.param(
            Recipe("torchvision/vgg11", weights="none", head_replaces="classifier", edits=(("avgpool.output_size", (3, 3)),)),
            marks=pytest.mark.slow,
        ),
        pytest.param(Recipe("torchvision/convnext_tiny", weights="none", head_replaces="classifier"), marks=pytest.mark.slow),
    ],
)
def test_the_recorded_architecture_rebuilds_the_network_without_searchft(recipe: Recipe) -> None:
    facts = describe_backbone(recipe, seed=0)
    model = build_model(recipe, facts, 4, 1).eval()
    a = json.loads(json.dumps(architecture_of(recipe, facts, 4)))
    factory = timm.create_model if a["library"] == "timm" else torchvision.models.get_model
    plain = factory(a["name"], num_classes=4, **a["kwargs"])
    for path, value in a["edits"].items():
        module, _, attribute = path.rpartition(".")
        setattr(plain.get_submodule(module), attribute, tuple(value) if isinstance(value, list) else value)
    layers = [getattr(nn, kind)(**arguments) for kind, arguments in a["head"]["layers"]]
    plain.set_submodule(a["head"]["module"], nn.Sequential(*layers) if len(layers) > 1 else layers[0])
    plain.load_state_dict(model.state_dict(), strict=True)
    images = torch.rand(2, 3, facts.input_size, facts.input_size)
    with torch.no_grad():
        assert torch.equal(plain.eval()(images), model(images))


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ({"dropout": 0.5}, "Linear"),
        (
            {"head_widths": (6, 4), "dropout": 0.5, "input_dropout": 0.2},
            "Dropout Linear ReLU Dropout Linear ReLU Dropout Linear",
        ),
        ({"head_widths": (6,), "head_activation": "none"}, "Linear Linear"),
    ],
)
def test_a_head_is_one_linear_layer_unless_more_is_asked_for(values: dict[str, Any], kinds: str) -> None:
    layers = head_layers(Recipe("torchvision/resnet18", **values), HeadSlot("fc", 8), 8, 3)
    assert [kind for kind, _ in layers] == kinds.split()
    assert (type(assemble(layers)) is nn.Linear) == (len(layers) == 1)


def test_the_face_notebooks_edits_keep_the_last_map_at_8_by_8() -> None:
    model = built(Recipe("torchvision/resnet18", weights="none", edits=FACE_EDITS))
    shapes = []
    model.get_submodule("layer4").register_forward_hook(lambda m, i, output: shapes.append(tuple(output.shape)))
    model.eval()(torch.zeros(1, 3, 64, 64))
    assert shapes == [(1, 512, 8, 8)]


def test_edits_do_not_change_a_single_weight() -> None:
    plain, edited = (built(Recipe("torchvision/resnet18", weights="none", edits=e)) for e in ((), FACE_EDITS))
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), edited.state_dict().values(), strict=True))


def test_the_same_seeds_give_the_same_network_whatever_ran_before_and_leave_the_random_state_alone() -> None:
    from searchft.models import forget_templates

    recipe = Recipe("timm/mobilenetv3_small_050", weights="none", head_widths=(16,))
    facts = describe_backbone(recipe, seed=3)
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    first = build_model(recipe, facts, 5, 1).state_dict()
    assert torch.equal(torch.rand(4), expected)
    forget_templates()
    again = build_model(recipe, facts, 5, 1).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    other_head = build_model(recipe, facts, 5, 2).state_dict()
    differing = {key.split(".")[0] for key in first if not torch.equal(first[key], other_head[key])}
    assert differing == {"classifier"}
    other = build_model(recipe, describe_backbone(recipe, seed=4), 5, 1).state_dict()
    assert not torch.equal(first["conv_stem.weight"], other["conv_stem.weight"])


def test_two_models_share_no_memory() -> None:
    recipe = Recipe("timm/test_convnext", weights="none")
    facts = describe_backbone(recipe, seed=0)
    one, two = (build_model(recipe, facts, 5, 1) for _ in range(2))
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(1)
    assert not any(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.slow
def test_auxiliary_heads_come_only_when_asked_for_and_change_nothing_else() -> None:
    recipe = Recipe("torchvision/googlenet", weights="none")
    facts = describe_backbone(recipe, seed=0)
    assert facts.has_auxiliary_heads
    plain = build_model(recipe, facts, 5, 1)
    with_aux = build_model(Recipe("torchvision/googlenet", weights="none", auxiliary=True), facts, 5, 1)
    assert set(head_parameters(plain, facts)) == {"fc.weight", "fc.bias"}
    assert {key.split(".")[0] for key in head_parameters(with_aux, facts)} == {"fc", "aux1", "aux2"}
    values = with_aux.state_dict()
    assert all(torch.equal(value, values[key]) for key, value in plain.state_dict().items())
    logits = with_aux.train()(torch.rand(2, 3, 96, 96))
    assert [tuple(part.shape) for part in logits] == [(2, 5)] * 3


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ((("conv9.stride", 1),), "recipe.edits.conv9.stride: must be MODULE.ATTRIBUTE .* 'conv9', did you mean 'conv1'"),
        ((("stride", 1),), "must be MODULE.ATTRIBUTE"),
        ((("conv1.strides", 1),), "must name an attribute of Conv2d .* but got 'strides', did you mean 'stride'"),
        ((("conv1.kernel_size", 3),), "must leave the weights' shapes as they are but 'kernel_size' of Conv2d"),
        ((("conv1.training", False),), "must name an attribute of Conv2d"),
        ((("conv1.stride", (1, 1, 1)),), "must be a number or 2 numbers but got 3"),
        ((("conv1.stride", "big"),), "must be a number or 2 numbers but got 'big'"),
        ((("conv1.stride", 1.5),), "must be a whole number but got 1.5"),
        ((("maxpool.ceil_mode", 1),), "must be true or false but got 1"),
        ((("conv1.stride", 0),), "must leave a network that runs but with these edits it fails on 224×224 pixels"),
        ((("conv9.stride", 1), ("bn1.epsi", 1)), "(?s)bn1.epsi.*conv9"),
    ],
)
def test_wrong_edits_are_refused_with_the_rule(edits: tuple[tuple[str, object], ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe_backbone(Recipe("torchvision/resnet18", weights="none", edits=edits), seed=0)


def test_edits_take_numbers_lists_and_words() -> None:
    edits = (("conv1.padding", "same"), ("conv1.stride", (1, 1)), ("maxpool.stride", (1, 2)), ("maxpool.ceil_mode", True))
    model = built(Recipe("torchvision/resnet18", weights="none", edits=edits))
    conv1, pool = model.get_submodule("conv1"), model.get_submodule("maxpool")
    assert (conv1.padding, conv1.stride, pool.stride, pool.ceil_mode) == ("same", (1, 1), (1, 2), True)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe("resnet18"), "recipe.backbone: must be torchvision/NAME or timm/NAME but got 'resnet18'"),
        (Recipe("torchvision/resnet19"), "must name a torchvision classifier but got 'resnet19', did you mean"),
        (Recipe("timm/restnet18"), "must name a timm model but got 'restnet18', did you mean"),
        (Recipe("timm/resnet18.a9_in1k"), "must name weights of timm's resnet18 .* but got 'a9_in1k'"),
        (Recipe("python:mine.py:net"), "must not be code unless you allow it"),
        (
            Recipe("timm/test_vit", weights="none", adapters="lite_residual"),
            "must be 'none' for a network without inverted-residual blocks",
        ),
        (Recipe("timm/test_convnext", weights="none", head_replaces="classifier"), "must be 'last' for timm/test_convnext"),
        (Recipe("timm/deit_tiny_distilled_patch16_224", weights="none"), "has several heads"),
        (Recipe("timm/crossvit_tiny_240", weights="none"), "has several heads"),
        (Recipe("timm/repvit_m0_9", weights="none"), "has several heads"),
    ],
)
def test_what_cannot_be_built_is_refused(recipe: Recipe, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        describe_backbone(recipe, seed=0)
    assert caught.value.exit_code == 2


def test_an_image_size_that_the_network_cannot_take_is_told_before_anything_starts() -> None:
    recipe = Recipe("timm/vit_tiny_patch16_224", weights="none")
    facts = describe_backbone(recipe, seed=0)
    assert check_image_size(recipe, facts, 224) == ""
    rule = check_image_size(recipe, facts, 64)
    assert rule.startswith("must be a size that timm/vit_tiny_patch16_224 runs on (such as 224) but got 64: ")
