"""Networks cut short and made longer, side branches, small networks of ours, and the user's own code."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from searchft.errors import InputError
from searchft.models import architecture_of, build_model, describe_backbone, freeze, set_modes
from searchft.models.adapters import BRANCH
from searchft.models.backbones import PERMISSION
from searchft.recipe import BackboneFacts, Recipe, open_parameters

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def layer(kind: str, **arguments: Any) -> tuple[str, tuple[tuple[str, Any], ...]]:
    return kind, tuple(sorted(arguments.items()))


def built(recipe: Recipe, classes: int = 5) -> tuple[BackboneFacts, torch.nn.Module]:
    facts = describe_backbone(recipe, 0)
    return facts, build_model(recipe, facts, classes, 0)


SHORT = (("classifier.1.replace", layer("Linear", in_features=6912, out_features=4096)), ("features.keep", 6))
LONG = (
    (
        "features.append",
        (layer("Conv2d", in_channels=256, out_channels=256, kernel_size=3, padding=1), layer("ReLU")),
    ),
)


def test_a_network_cut_short_keeps_the_values_of_what_stays() -> None:
    whole_facts, whole = built(Recipe("torchvision/alexnet", weights="none"))
    facts, short = built(Recipe("torchvision/alexnet", weights="none", edits=SHORT))
    assert facts.stage_names == ("stem", "features.3", "classifier")
    assert facts.weights_sha256 == whole_facts.weights_sha256
    assert torch.equal(short.get_submodule("features.3").weight, whole.get_submodule("features.3").weight)
    assert torch.equal(short.get_submodule("classifier.4").weight, whole.get_submodule("classifier.4").weight)
    assert short.get_submodule("classifier.1").in_features == 6912
    assert short.eval()(IMAGES).shape == (2, 5)


def test_appended_layers_are_a_stage_that_opens_with_all_behind_it() -> None:
    recipe = Recipe("torchvision/alexnet", weights="none", edits=LONG, unfrozen="features.13")
    facts, model = built(recipe)
    assert facts.stage_names[-2:] == ("features.13", "classifier")
    opening = open_parameters(recipe, facts)
    assert opening.parameters[:2] == ("features.13.weight", "features.13.bias")
    again = build_model(recipe, facts, 5, 0)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_edits_written_for_another_backbone_have_no_effect() -> None:
    plain = Recipe("torchvision/resnet18", weights="none")
    with_edits = dataclasses.replace(plain, edits=(("torchvision/alexnet", SHORT),))
    assert with_edits.architecture() == plain.architecture()
    for_both = Recipe("torchvision/alexnet", weights="none", edits=(("torchvision/alexnet", SHORT),))
    assert for_both.architecture() == dataclasses.replace(for_both, edits=SHORT).architecture()


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ((("feature.keep", 6),), "must name a module of the backbone but got 'feature', did you mean 'features'"),
        ((("features.0.keep", 6),), "must name an nn.Sequential for keep but features.0 is a Conv2d"),
        ((("features.keep", 13),), "must be less than 13, the modules of features, but got 13"),
        ((("classifier.keep", 3),), "must keep the head"),
        ((("classifier.6.replace", layer("Linear", in_features=4096, out_features=3)),), "must leave the head"),
        ((("features.append", (layer("Conv2d", in_channels=3),)),), "must have arguments that torch.nn takes but:"),
        (
            (("features.append", (layer("Conv2d", in_channels=3, out_channels=4, kernel_size=1),)),),
            "must leave a network that runs",
        ),
    ],
)
def test_edits_that_make_no_network_are_refused_with_the_rule(edits: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe_backbone(Recipe("torchvision/alexnet", weights="none", edits=edits), 0)


@pytest.mark.parametrize(("name", "convolutions"), [("convnet3", 3), ("convnet5", 5), ("convnet7", 7)])
def test_the_small_networks_have_as_many_convolutions_as_their_names_say(name: str, convolutions: int) -> None:
    recipe = Recipe(f"searchft/{name}", weights="none", unfrozen=1)
    facts, model = built(recipe)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in model.modules()) == convolutions
    assert facts.num_features == 64 and facts.head == "fc"
    assert facts.stage_names == ("stem", *(f"layer{i}" for i in range(1, convolutions // 2 + 1)))
    assert architecture_of(recipe, facts, 5)["library"] == "torch.nn"


def test_pretrained_weights_of_a_small_network_are_missing_and_the_fallback_says_so() -> None:
    recipe = Recipe("searchft/convnet3", weights="IMAGENET1K_V1", weights_fallback="none")
    facts = describe_backbone(recipe, 3)
    assert facts.weights == "none" and "it has no pretrained weights" in facts.fell_back
    with pytest.raises(InputError, match="it has no pretrained weights"):
        describe_backbone(dataclasses.replace(recipe, weights_fallback=""), 3)


TINYTL = Recipe("torchvision/mobilenet_v2", weights="none", unfrozen="all", parameters="bias", adapters="lite_residual")


def test_lite_residuals_change_nothing_until_they_are_trained() -> None:
    _, plain = built(Recipe("torchvision/mobilenet_v2", weights="none"))
    _, model = built(TINYTL)
    assert torch.equal(plain.eval()(IMAGES), model.eval()(IMAGES))
    assert set(plain.state_dict()) < set(model.state_dict())
    branches = [name for name, _ in model.named_modules() if name.endswith(BRANCH)]
    assert len(branches) == 17 and all(model.get_submodule(f"{b}.conv").groups == 2 for b in branches)


def test_tinytl_trains_biases_and_branches_and_nothing_else() -> None:
    facts, model = built(TINYTL)
    opening = open_parameters(TINYTL, facts)
    assert all(name.endswith("bias") or f".{BRANCH}." in name for name in opening.parameters)
    assert not opening.train_norms
    freeze(model, facts, opening)
    set_modes(model, facts, opening, training=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # the first step wakes the branches, the second reaches their convolutions
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(IMAGES), torch.tensor([0, 1])).backward()
        optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= {*opening.parameters, "classifier.1.weight", "classifier.1.bias"}
    assert any(name.endswith(f"{BRANCH}.conv.weight") for name in changed)


def test_adapters_train_even_where_only_the_head_is_open() -> None:
    recipe = Recipe("torchvision/mobilenet_v2", weights="none", unfrozen="head", adapters="lite_residual")
    facts = describe_backbone(recipe, 0)
    opening = open_parameters(recipe, facts)
    assert opening.parameters and all(f".{BRANCH}." in name for name in opening.parameters)
    assert open_parameters(dataclasses.replace(recipe, unfrozen_tensors=2), facts).parameters[:2] == (
        "features.18.1.weight",
        "features.18.1.bias",
    )


OWN = """
from torch import nn

def Net(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, num_classes))

def broken(num_classes):
    raise KeyError("lost")

def wrong(num_classes):
    return 3
"""


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(OWN)
    monkeypatch.setenv(PERMISSION, str(tmp_path))
    return tmp_path / "net.py"


def test_code_is_never_run_without_permission(own_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PERMISSION)
    own_file.write_text("raise SystemExit('this ran')")
    with pytest.raises(InputError, match=r"must not be code unless you allow it.*--allow-code"):
        describe_backbone(Recipe("python:net.py:Net", weights="none"), 0)


def test_a_network_of_the_users_own_is_divided_and_trained_like_any_and_other_code_is_other_ground(own_file: Path) -> None:
    recipe = Recipe("python:net.py:Net", weights="none", unfrozen=1)
    facts, model = built(recipe)
    assert facts.stage_names == ("stem", "1") and facts.head == "5" and facts.num_features == 4
    assert open_parameters(recipe, facts).parameters == ("1.weight", "1.bias")
    assert model.eval()(IMAGES).shape == (2, 5)
    assert facts.weights_sha256.startswith("random:0@")
    own_file.write_text(OWN.replace("nn.ReLU()", "nn.GELU()"))
    assert describe_backbone(recipe, 0).weights_sha256 != facts.weights_sha256


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net.py:broken", r"must build a network but .*net.py, line 9: KeyError: 'lost'"),
        ("net.py:wrong", "must give an nn.Module but wrong of .* gives int"),
        ("net.py:Nett", "must name a class or function of .* but it has no 'Nett'"),
        ("nett.py:Net", "must name a Python file that exists"),
    ],
)
def test_what_is_wrong_in_the_users_code_is_said_with_its_place(own_file: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        describe_backbone(Recipe(f"python:{name}", weights="none"), 0)


def test_pixels_may_go_in_as_they_are() -> None:
    recipe = Recipe("torchvision/resnet18", weights="none", normalization="none")
    facts = describe_backbone(recipe, 0)
    assert (facts.mean, facts.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert recipe.architecture() != Recipe("torchvision/resnet18", weights="none").architecture()


def test_running_statistics_alone_follow_the_batches_and_nothing_of_the_norms_trains() -> None:
    recipe = Recipe("torchvision/resnet18", weights="none", unfrozen="layer4", norm="running")
    facts = describe_backbone(recipe, 0)
    opening = open_parameters(recipe, facts)
    assert "layer4.1.bn2" in opening.train_norms and "layer3.1.bn2" not in opening.train_norms
    assert opening.parameters and all(facts.kinds[name] == "weight" for name in opening.parameters)
