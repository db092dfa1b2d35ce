"""Every parameter outside the head lies in exactly one stage, for every family, and the divisions are sensible."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision

from searchft.models import build_model, describe_backbone, list_backbones
from searchft.models.backbones import parse_backbone
from searchft.models.families import FAMILIES, family_of
from searchft.recipe import BackboneFacts, Recipe, open_parameters

QUICK = ["torchvision/resnet18", "torchvision/mobilenet_v2", "torchvision/squeezenet1_1", "torchvision/mnasnet0_5"]
QUICK += ["torchvision/shufflenet_v2_x0_5", "torchvision/mobilenet_v3_small", "torchvision/efficientnet_b0"]
QUICK += ["torchvision/densenet121", "torchvision/regnet_y_400mf", "torchvision/googlenet"]
SMALL = ("test_vit", "test_convnext", "test_byobnet", "test_maxvit", "test_nfnet", "resnet10t")
QUICK += [f"timm/{name}" for name in SMALL if timm.is_model(name)]  # the oldest timm that is allowed lacks test_maxvit
QUICK += ["timm/mobilenetv3_small_050", "timm/tf_efficientnet_lite0", "timm/vit_tiny_patch16_224"]

SLOW = ["torchvision/alexnet", "torchvision/vgg11", "torchvision/vgg11_bn", "torchvision/inception_v3", "torchvision/swin_t"]
SLOW += ["torchvision/swin_v2_t", "torchvision/convnext_tiny", "torchvision/vit_b_32", "torchvision/maxvit_t"]
SLOW += ["torchvision/efficientnet_v2_s", "torchvision/wide_resnet50_2", "torchvision/resnext50_32x4d"]
SLOW += ["timm/densenet121", "timm/swin_tiny_patch4_window7_224", "timm/vgg11_bn", "timm/mixer_s32_224"]
SLOW += ["timm/cait_xxs24_224", "timm/convit_tiny", "timm/dla34"]
SLOW += ["timm/dpn48b", "timm/efficientvit_b0", "timm/fastvit_t8", "timm/ghostnet_050"]
SLOW += ["timm/inception_v3", "timm/mobilevit_xxs", "timm/poolformer_s12", "timm/pvt_v2_b0"]
SLOW += ["timm/regnety_002", "timm/repvgg_a0", "timm/resmlp_12_224", "timm/selecsls42"]
SLOW += ["timm/skresnet18", "timm/tinynet_e", "timm/xcit_nano_12_p16_224", "timm/coat_lite_tiny"]
SLOW += ["timm/edgenext_xx_small", "timm/mobilenetv4_conv_small", "timm/beit_base_patch16_224"]
SLOW += ["timm/hrnet_w18_small", "timm/rdnet_tiny"]


def describe(backbone: str, **values: object) -> BackboneFacts:
    return describe_backbone(Recipe(backbone, weights="none", **values), seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("backbone", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_every_parameter_lies_in_exactly_one_stage(backbone: str) -> None:
    facts = describe(backbone)
    model = build_model(Recipe(backbone, weights="none"), facts, 3, 0)
    inside = [key for key, _ in model.named_parameters() if not key.startswith(facts.head + ".")]
    if facts.has_auxiliary_heads:
        inside = [key for key in inside if not key.startswith(("aux", "AuxLogits"))]
    assert sorted(fact.name for fact in facts.parameters) == sorted(inside)
    for fact in facts.parameters:
        owners = [s.name for s in facts.stages if any(fact.name == m or fact.name.startswith(m + ".") for m in s.modules)]
        assert owners == [fact.stage]
    assert len(facts.stages) >= 3 and facts.stages[0].name == "stem"
    assert len(set(facts.stage_names)) == len(facts.stages)
    order = [facts.stage_names.index(fact.stage) for fact in facts.parameters]
    assert order == sorted(order)
    norms = [key for key, m in model.named_modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert sorted(key for key, _ in facts.batch_norms) == sorted(norms)


def test_every_torchvision_classifier_has_a_family_and_every_family_is_tested() -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    assert [name for name in names if family_of(name) is None] == []
    tested = {parse_backbone(name).family for name in QUICK + SLOW if name.startswith("torchvision/")}
    assert {family.name for family in tested if family} == {family.name for family in FAMILIES} - {"convnet"}  # ours


@pytest.mark.parametrize(
    ("backbone", "stages"),
    [
        ("torchvision/resnet18", ["stem", "layer1", "layer2", "layer3", "layer4"]),
        ("torchvision/mobilenet_v2", ["stem", *(f"features.{i}" for i in range(1, 19))]),
        ("torchvision/densenet121", ["stem", *(f"features.denseblock{i}" for i in range(1, 5))]),
        ("timm/resnet10t", ["stem", "layer1", "layer2", "layer3", "layer4"]),
        ("timm/test_convnext", ["stem", "stages.0", "stages.1", "stages.2", "stages.3"]),
        ("timm/tf_efficientnet_lite0", ["stem", *(f"blocks.{i}" for i in range(7))]),
    ],
)
def test_stages_bear_readable_names(backbone: str, stages: list[str]) -> None:
    assert list(describe(backbone).stage_names) == stages


@pytest.mark.parametrize(
    ("backbone", "norm", "stage"),
    [
        ("torchvision/densenet121", "features.norm5.weight", "features.denseblock4"),
        ("timm/test_convnext", "head.norm.weight", "stages.3"),
        ("timm/test_vit", "norm.weight", "blocks.5"),
        ("torchvision/resnet18", "bn1.weight", "stem"),
    ],
)
def test_norms_go_with_the_layers_before_them(backbone: str, norm: str, stage: str) -> None:
    facts = describe(backbone)
    assert {fact.name: fact.stage for fact in facts.parameters}[norm] == stage
    assert facts.kinds[norm] == "norm_weight"


def test_the_kinds_of_parameters_are_told_apart() -> None:
    kinds = describe("timm/test_vit").kinds
    assert kinds["patch_embed.proj.weight"] == "weight" and kinds["patch_embed.proj.bias"] == "bias"
    assert kinds["cls_token"] == kinds["pos_embed"] == "other"
    assert kinds["blocks.0.norm1.bias"] == "norm_bias"


@pytest.mark.slow
def test_vgg_is_cut_at_its_pools_and_its_hidden_layers_are_a_stage_unless_replaced() -> None:
    facts = describe("torchvision/vgg11")
    assert facts.stage_names == ("stem", "features.3", "features.6", "features.11", "features.16", "classifier")
    assert facts.head == "classifier.6" and facts.num_features == 4096
    opening = open_parameters(Recipe("torchvision/vgg11", unfrozen=1), facts)
    assert opening.parameters == ("classifier.0.weight", "classifier.0.bias", "classifier.3.weight", "classifier.3.bias")
    whole = describe("torchvision/vgg11", head_replaces="classifier")
    assert whole.stage_names == facts.stage_names[:-1]
    assert whole.head == "classifier" and whole.num_features == 25088


def test_backbones_are_listed_by_shell_pattern_or_part_of_a_name() -> None:
    assert list_backbones("torchvision/resnet*") == [f"torchvision/resnet{n}" for n in (101, 152, 18, 34, 50)]
    assert "timm/tf_efficientnet_lite0" in list_backbones("lite0")
    assert list_backbones("resnet18")[0] == "torchvision/resnet18"
    assert len(list_backbones(None)) > 1000


@pytest.mark.slow
def test_nearly_every_small_timm_model_can_be_divided() -> None:
    stages = {name: len(describe(f"timm/{name}").stages) for name in timm.list_models("test_*")}
    assert len(stages) >= 10 and min(stages.values()) >= 3, stages
