"""What is taken away works without searchft, to the last bit, and is refused where it is not whole."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from searchft.data import decode_image, open_images
from searchft.data.orl_faces import read_orl_faces
from searchft.errors import InputError, StorageError
from searchft.export.checkpoint import add_metrics, check_target, export_trial
from searchft.export.load import load_exported, read_config
from searchft.export.score import evaluate_split, logits_of, predict_files, scores
from searchft.export.snippet import MAX_LINES, snippet_for
from searchft.models import describe_backbone
from searchft.recipe import DataSettings, Recipe, SpaceFacts


@dataclass
class Exported:
    """A trial and where it was exported to."""

    recipe: Recipe
    facts: SpaceFacts
    settings: DataSettings
    delta: Path
    out: Path


def some_photos(count: int = 3) -> list[Path]:
    records = read_orl_faces(DataSettings("orl_faces"), "").records
    return [record.content for record in records[:: len(records) // count]][:count]  # type: ignore[misc]


PLAIN = "resnet, linear head, squash and margin"
RESNET = Recipe(backbone="torchvision/resnet18", weights="none", unfrozen="layer4")
CASES: dict[str, tuple[Recipe, dict[str, Any]]] = {
    "edited resnet, deep head, crop": (
        Recipe(
            backbone="torchvision/resnet18",
            weights="none",
            edits=(("conv1.stride", 1), ("maxpool.stride", 1)),
            unfrozen="layer4",
            head_widths=(24, 12),
            head_activation="gelu",
            dropout=0.5,
            input_dropout=0.1,
        ),
        {"resize": "crop", "interpolation": "bicubic"},
    ),
    PLAIN: (RESNET, {"store_size": 37}),
    "resnet, linear head, pad and margin": (RESNET, {"resize": "pad", "store_size": 40, "interpolation": "lanczos"}),
    "timm mobilenet": (Recipe(backbone="timm/mobilenetv3_small_050", weights="none", unfrozen="head"), {}),
    "squeezenet, a convolution for a head": (Recipe(backbone="torchvision/squeezenet1_1", weights="none", unfrozen=1), {}),
    "timm convnext, head below a norm": (
        Recipe(backbone="timm/convnext_atto", weights="none", unfrozen=1, head_widths=(16,), head_activation="none"),
        {},
    ),
    "googlenet with auxiliary heads": (
        Recipe(backbone="torchvision/googlenet", weights="none", unfrozen=1, auxiliary=True),
        {},
    ),
}


@pytest.fixture(scope="module")
def cases(
    tmp_path_factory: pytest.TempPathFactory, shared_cache: Path, write_delta: Callable[..., None]
) -> dict[str, Exported]:
    """Every case, trained for two steps and exported. Read only."""
    done = {}
    for i, (case, (recipe, data)) in enumerate(CASES.items()):
        folder = tmp_path_factory.mktemp(f"case{i}")
        split = (("test", 5), ("train", 2), ("val", 3))
        settings = DataSettings(**{"source": "orl_faces", "split": split, "image_size": 32, **data})
        images = open_images(settings, shared_cache)
        facts = SpaceFacts(images.facts, {recipe.architecture(): describe_backbone(recipe, seed=0)})
        write_delta(recipe, facts, images, folder / "best.safetensors", steps=2)
        metrics = {"search_val_accuracy": 0.5}
        out = export_trial(recipe, facts, settings, folder / "best.safetensors", folder / "winner", metrics)
        done[case] = Exported(recipe, facts, settings, folder / "best.safetensors", out)
    return done


@pytest.fixture
def exported(cases: dict[str, Exported], tmp_path: Path) -> Exported:
    """A plain ResNet-18 with a linear head, for a test to change."""
    case = cases[PLAIN]
    shutil.copytree(case.out.parent, tmp_path / "export")
    return dataclasses.replace(case, delta=tmp_path / "export" / "best.safetensors", out=tmp_path / "export" / "winner")


@pytest.mark.slow
def test_the_snippet_alone_gives_the_same_logits_bit_for_bit(cases: dict[str, Exported], tmp_path: Path) -> None:
    photos = some_photos()
    code = ["import sys", "import torch", f"torch.set_num_threads({torch.get_num_threads()})", "found = {}"]
    ours = {}
    for case, exported in cases.items():
        model, config = load_exported(exported.out)
        p = config["preprocessing"]
        pixels = [decode_image(photo, p["stored_size"], p["resize"], p["interpolation"]) for photo in photos]
        ours[case] = [logits_of(model, image[None], p, batch=1)[0].tolist() for image in pixels]
        for photo in photos:
            code += [snippet_for(exported.out, photo=str(photo)), f"found.setdefault({case!r}, []).append(logits[0].tolist())"]
    got = tmp_path / "logits.json"
    code += ["assert not [m for m in sys.modules if m.startswith('searchft')]", f"json.dump(found, open({str(got)!r}, 'w'))"]
    # -I: neither the current folder nor the environment can smuggle searchft in
    subprocess.run([sys.executable, "-I", "-c", "\n".join(code)], check=True, cwd=tmp_path)
    theirs = json.loads(got.read_text())
    assert {case: theirs[case] == ours[case] for case in CASES} == dict.fromkeys(CASES, True)


@pytest.mark.parametrize("case", CASES)
def test_the_snippet_is_short_and_imports_only_what_the_readme_says(case: str, cases: dict[str, Exported]) -> None:
    lines = snippet_for(cases[case].out, shown_as="winner").splitlines()
    assert len(lines) <= MAX_LINES == 10
    library = cases[case].recipe.backbone.partition("/")[0]
    assert [line for line in lines if "import" in line] == [lines[0]]
    imported = {name.strip().split(".")[0] for name in lines[0].removeprefix("import ").split(",")}
    assert imported == {"json", library, "PIL", "safetensors", "torch"}


def test_auxiliary_heads_that_trained_stay_behind(cases: dict[str, Exported]) -> None:
    state = load_file(cases["googlenet with auxiliary heads"].out / "model.safetensors")
    assert state and not [name for name in state if name.startswith("aux")]


def test_a_linear_head_loads_with_the_librarys_own_class_count(exported: Exported) -> None:
    import torchvision

    model = torchvision.models.resnet18(num_classes=40)
    model.load_state_dict(load_file(exported.out / "model.safetensors"))


def test_the_exported_weights_are_the_trained_ones(exported: Exported) -> None:
    delta, state = load_file(exported.delta), load_file(exported.out / "model.safetensors")
    assert delta and all(torch.equal(state[name], tensor) for name, tensor in delta.items())


def test_the_configuration_holds_what_one_needs(exported: Exported) -> None:
    config = read_config(exported.out)
    assert Recipe.from_json(config["recipe"]) == RESNET
    assert (exported.out / "labels.txt").read_text().split() == config["classes"]
    assert config["metrics"] == {"search_val_accuracy": 0.5}
    assert "root" not in config["data"]["settings"], "no path of this machine is taken away"
    assert {"torch", "torchvision", "searchft"} <= set(config["versions"])


def test_metrics_can_be_added_and_show_on_the_card(exported: Exported) -> None:
    out = exported.out
    add_metrics(out, {"test": {"accuracy": 0.975, "balanced_accuracy": 0.97, "interval_95": [0.94, 0.99], "n": 200}})
    assert set(read_config(out)["metrics"]) == {"search_val_accuracy", "test"}
    card = (out / "README.md").read_text()
    assert "**0.9750** on 200 images (95 % interval 0.9400 to 0.9900)" in card
    assert snippet_for(out, shown_as="winner") in card
    add_metrics(out, {"test": None})
    assert "There is no test split" in (out / "README.md").read_text()


def test_a_delta_that_lacks_something_is_refused_by_name(exported: Exported) -> None:
    delta = {n: t.clone() for n, t in load_file(exported.delta).items()}  # its file, which is mapped, is written anew
    for change, message in (
        ({"fc.bias": None}, "lacks what the recipe trains: fc.bias"),
        ({"fc.weight": torch.zeros(3, 3)}, "does not fit the recipe's network: fc.weight"),
        ({"nowhere": torch.zeros(1)}, "does not fit the recipe's network: nowhere"),
    ):
        save_file({n: t for n, t in {**delta, **change}.items() if t is not None}, exported.delta)
        with pytest.raises(InputError, match=message):
            export_trial(exported.recipe, exported.facts, exported.settings, exported.delta, exported.out, {})


def test_weights_of_another_trial_are_refused_however_well_they_fit(exported: Exported) -> None:
    """Their shapes are right; only key and epoch tell. Before, negated weights were exported and scored."""
    given = exported.recipe, exported.facts, exported.settings, exported.delta, exported.out, {}
    key, delta = exported.recipe.key(exported.facts), load_file(exported.delta)
    export_trial(*given, epoch=2)
    with pytest.raises(InputError, match=r"trial's own weights \(.*epoch 7\) but holds others \(.*epoch 2\)"):
        export_trial(*given, epoch=7)
    negated = {name: -tensor for name, tensor in delta.items()}
    for metadata in (None, {"key": "ab" * 10, "epoch": "2"}, {"key": key, "epoch": "1"}):
        save_file(negated, exported.delta, metadata=metadata)
        with pytest.raises(InputError, match="own weights"):
            export_trial(*given, epoch=2)


def test_a_damaged_or_missing_delta_is_said_to_be_so(exported: Exported) -> None:
    exported.delta.write_bytes(exported.delta.read_bytes()[:1000])
    with pytest.raises(StorageError, match="damaged"):
        export_trial(exported.recipe, exported.facts, exported.settings, exported.delta, exported.out, {})
    exported.delta.unlink()
    with pytest.raises(InputError, match="keep_checkpoints"):
        export_trial(exported.recipe, exported.facts, exported.settings, exported.delta, exported.out, {})
    load_exported(exported.out)  # what was there before is intact


def test_a_mixed_up_folder_is_refused(exported: Exported) -> None:
    out = exported.out
    weights = bytearray((out / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (out / "model.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match="export again"):
        load_exported(out)


def test_other_folders_are_not_taken_for_exports(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        read_config(tmp_path)
    for text in ("{}", "[1]", "{nonsense", '{"format": "searchft-export", "format_version": 99}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError):
            read_config(tmp_path)


def test_only_empty_folders_and_earlier_exports_are_written_into(exported: Exported, tmp_path: Path) -> None:
    check_target(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty")
    check_target(exported.out)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(InputError, match="not empty"):
        check_target(tmp_path / "thesis")
    check_target(tmp_path / "thesis", force=True)
    with pytest.raises(InputError, match="is a file"):
        check_target(tmp_path / "thesis" / "chapter1.txt", force=True)


def test_a_pictures_logits_do_not_depend_on_how_many_are_scored(exported: Exported, shared_cache: Path) -> None:
    model, config = load_exported(exported.out)
    test = open_images(exported.settings, shared_cache).split("test")
    p = config["preprocessing"]
    whole, few = logits_of(model, test.images[:70], p), logits_of(model, test.images[:35], p)
    assert torch.equal(whole[:35], few)


def test_scores_are_those_of_counting_by_hand(exported: Exported, shared_cache: Path) -> None:
    val = open_images(exported.settings, shared_cache).split("val")
    score = evaluate_split(exported.out, val.images, val.labels)
    predictions = predict_files(exported.out, [_photo(name) for name in val.names], top_k=2)
    classes = read_config(exported.out)["classes"]
    right = [classes[label] == answer["classes"][0]["class"] for label, answer in zip(val.labels, predictions, strict=True)]
    assert score["n"] == 120 and score["accuracy"] == np.mean(right)
    assert np.sum(score["confusion"]) == 120 and np.trace(score["confusion"]) == sum(right)


def test_balanced_accuracy_weighs_classes_alike() -> None:
    score = scores(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]), num_classes=3)
    assert score["accuracy"] == 0.75 and score["balanced_accuracy"] == 0.5
    assert score["confusion"] == [[3, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_predictions_are_chances_best_first_and_unreadable_pictures_are_named(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    good, bad = predict_files(exported.out, [some_photos(1)[0], tmp_path / "broken.jpg"], top_k=99)
    chances = [entry["probability"] for entry in good["classes"]]
    assert len(chances) == 40 and sum(chances) == pytest.approx(1, abs=1e-5) and chances == sorted(chances, reverse=True)
    assert "damaged" in bad["error"] or "none of" in bad["error"]


def _photo(name: str) -> Path:
    return next(r.content for r in read_orl_faces(DataSettings("orl_faces"), "").records if r.name == name)  # type: ignore[return-value]
