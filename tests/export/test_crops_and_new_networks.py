"""Networks that the grammar makes (cut, longer, ours, with side branches) are taken away whole; several looks at one picture."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from searchft.data import open_images
from searchft.data.orl_faces import read_orl_faces
from searchft.errors import InputError
from searchft.export.checkpoint import export_trial
from searchft.export.load import load_exported
from searchft.export.score import crop_boxes, evaluate_split, logits_of, look, predict_files, probabilities_of
from searchft.export.snippet import snippet_for
from searchft.models import build_model, describe_backbone
from searchft.recipe import DataSettings, Recipe, SpaceFacts

CONVOLUTION = ("Conv2d", (("in_channels", 64), ("kernel_size", 3), ("out_channels", 64), ("padding", 1)))
CASES = {
    "convnet": Recipe("searchft/convnet3", weights="none", unfrozen="all"),
    "longer convnet": Recipe(
        "searchft/convnet3", weights="none", unfrozen="all", edits=(("layer1.append", (CONVOLUTION, ("ReLU", ()))),)
    ),
    "mobilenet cut short": Recipe("torchvision/mobilenet_v2", weights="none", edits=(("features.keep", 6),), unfrozen=1),
    "mobilenet with side branches": Recipe(
        "torchvision/mobilenet_v2", weights="none", unfrozen="all", parameters="bias", adapters="lite_residual"
    ),
}


@pytest.fixture(scope="module")
def export(
    tmp_path_factory: pytest.TempPathFactory, shared_cache: Path, write_delta: Callable[..., None]
) -> Callable[[Recipe], Path]:
    """Trains a recipe for three steps on 32-pixel faces (stored at 40) and exports it; the same recipe once only."""
    done: dict[Recipe, Path] = {}

    def run(recipe: Recipe) -> Path:
        if recipe not in done:
            folder = tmp_path_factory.mktemp("export")
            split = (("train", 2), ("val", 3), ("test", 5))
            settings = DataSettings("orl_faces", split=split, image_size=32, store_size=40)
            images = open_images(settings, shared_cache)
            facts = SpaceFacts(images.facts, {recipe.architecture(): describe_backbone(recipe, seed=0)})
            write_delta(recipe, facts, images, folder / "best.safetensors", steps=3)
            done[recipe] = export_trial(recipe, facts, settings, folder / "best.safetensors", folder / "winner", {})
        return done[recipe]

    return run


def photos(count: int) -> list[Path]:
    records = read_orl_faces(DataSettings("orl_faces"), "").records
    return [record.content for record in records[:: len(records) // count]][:count]  # type: ignore[misc]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_what_the_grammar_makes_is_rebuilt_by_the_snippet(case: str, export: Callable[[Recipe], Path], tmp_path: Path) -> None:
    out = export(CASES[case])
    model, config = load_exported(out)
    photo = photos(1)[0]
    code = snippet_for(out, photo=str(photo))
    assert len(code.splitlines()) <= 10
    assert ("searchft" in code.replace(str(out), "").replace(str(photo), "")) == ("side branches" in case)
    code += f"\njson.dump(logits[0].tolist(), open({str(tmp_path / 'logits.json')!r}, 'w'))"
    threads = f"import torch; torch.set_num_threads({torch.get_num_threads()})\n"
    subprocess.run([sys.executable, "-c", threads + code], check=True, cwd=tmp_path)
    from searchft.data import decode_image

    pixels = decode_image(photo, 40, "squash", "bilinear")
    assert (
        json.loads((tmp_path / "logits.json").read_text())
        == logits_of(model, pixels[None], config["preprocessing"], batch=1)[0].tolist()
    )


def test_five_crops_are_the_centre_and_the_corners() -> None:
    preprocessing = {"crop": [4, 4, 36, 36], "image_size": 32, "stored_size": 40}
    boxes = [box for box, mirrored in crop_boxes(preprocessing, "five-crop") if not mirrored]
    assert boxes == [[4, 4, 36, 36], [0, 0, 32, 32], [8, 0, 40, 32], [0, 8, 32, 40], [8, 8, 40, 40]]
    ten = crop_boxes(preprocessing, "ten-crop")
    assert [box for box, _ in ten] == boxes * 2 and [mirrored for _, mirrored in ten] == [False] * 5 + [True] * 5
    assert crop_boxes(preprocessing, "flip") == [([4, 4, 36, 36], False), ([4, 4, 36, 36], True)]


def test_a_look_is_the_crop_itself_mirrored_left_to_right() -> None:
    preprocessing = {"crop": [1, 1, 3, 3], "image_size": 2, "stored_size": 4, "mean": [0.0] * 3, "std": [1.0] * 3}
    picture = torch.arange(48, dtype=torch.uint8).view(1, 4, 4, 3)
    seen = look(picture, preprocessing, [2, 0, 4, 2], mirrored=True) * 255
    assert seen[0, 0].round().tolist() == [[9.0, 6.0], [21.0, 18.0]]  # red of columns 3 and 2, rows 0 and 1


def test_crops_without_a_margin_are_refused_and_mirroring_is_not() -> None:
    preprocessing = {"crop": [0, 0, 32, 32], "image_size": 32, "stored_size": 32}
    with pytest.raises(InputError, match=r"five-crop needs a margin .* give data.store_size"):
        crop_boxes(preprocessing, "five-crop")
    assert len(crop_boxes(preprocessing, "flip")) == 2


@pytest.mark.parametrize("way", ["five-crop", "ten-crop", "flip"])
def test_probabilities_are_the_mean_of_each_looks_softmax(way: str, export: Callable[[Recipe], Path]) -> None:
    model, config = load_exported(export(CASES["convnet"]))
    preprocessing: dict[str, Any] = config["preprocessing"]
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    expected = torch.zeros(3, 40)
    boxes = crop_boxes(preprocessing, way)
    with torch.no_grad():
        for (left, top, right, bottom), mirrored in boxes:
            crop = images[:, top:bottom, left:right]
            crop = crop[:, :, ::-1] if mirrored else crop
            pixels = torch.from_numpy(crop.copy()).permute(0, 3, 1, 2) / 255
            mean, std = (torch.tensor(preprocessing[name]).view(3, 1, 1) for name in ("mean", "std"))
            expected += model((pixels - mean) / std).softmax(1) / len(boxes)
    got = probabilities_of(model, images, preprocessing, way, batch=2)
    assert torch.allclose(got, expected, atol=1e-6) and torch.allclose(got.sum(1), torch.ones(3), atol=1e-5)
    assert not torch.allclose(got, logits_of(model, images, preprocessing).softmax(1), atol=1e-6)


def test_predict_and_evaluate_take_the_looks(export: Callable[[Recipe], Path], shared_cache: Path) -> None:
    from searchft.cli.evaluate import command as evaluate
    from searchft.cli.predict import command as predict

    out = export(CASES["convnet"])
    plain, crops = (predict_files(out, photos(1), 5, way)[0]["classes"] for way in ("none", "five-crop"))
    assert len(crops) == 5 and [c["probability"] for c in crops] != [c["probability"] for c in plain]
    said = CliRunner().invoke(predict, [str(out), str(photos(1)[0]), "--tta", "five-crop", "--top-k", "5", "--json"])
    assert json.loads(said.stdout)["predictions"][0]["classes"] == crops
    said = CliRunner().invoke(evaluate, [str(out), "orl_faces", "--split", "val", "--tta", "ten-crop", "--json"])
    answer = json.loads(said.stdout)
    assert answer["tta"] == "ten-crop" and answer["n"] == 120
    images = open_images(DataSettings.from_json({**load_exported(out)[1]["data"]["settings"], "root": ""}), shared_cache)
    part = images.split("val")
    assert answer["accuracy"] == evaluate_split(out, part.images, part.labels, "ten-crop")["accuracy"]


# --- compare -----------------------------------------------------------------------------------------------------------


def test_an_export_differs_from_its_start_where_it_was_trained_and_nowhere_else(export: Callable[[Recipe], Path]) -> None:
    from searchft.export.compare import compare

    recipe = CASES["mobilenet cut short"]
    found = compare("pretrained", str(export(recipe)))
    moved = {f"{row.layer}.{row.kind}" for row in found.rows if row.relative_change > 0}
    assert moved and all(name.startswith("features.5.") for name in moved)
    assert all(row.cosine == pytest.approx(1.0) for row in found.rows if row.relative_change == 0 and row.cosine == row.cosine)
    assert found.only_in_b == ("classifier.1.weight", "classifier.1.bias") and not found.only_in_a


def test_change_and_cosine_are_what_they_are_called() -> None:
    from searchft.export.compare import compare_parameters

    a = {"x.weight": torch.tensor([3.0, 4.0]), "x.bias": torch.zeros(2), "y.weight": torch.ones(2), "z.weight": torch.ones(3)}
    b = {
        "x.weight": torch.tensor([-4.0, 3.0]),
        "x.bias": torch.ones(2),
        "y.weight": 2 * torch.ones(2),
        "z.weight": torch.ones(4),
    }
    found = {f"{row.layer}.{row.kind}": row for row in compare_parameters(a, b).rows}
    assert found["x.weight"].relative_change == pytest.approx(2**0.5) and found["x.weight"].cosine == pytest.approx(0.0)
    assert found["y.weight"].relative_change == pytest.approx(1.0) and found["y.weight"].cosine == pytest.approx(1.0)
    assert found["x.bias"].relative_change == float("inf") and found["x.bias"].cosine != found["x.bias"].cosine
    assert compare_parameters(a, b).other_shape == ("z.weight",)
    assert found.keys() == {"x.weight", "x.bias", "y.weight"}


def test_compare_prints_a_table_one_json_object_and_a_figure(export: Callable[[Recipe], Path], tmp_path: Path) -> None:
    from searchft.cli.compare import command

    out = str(export(CASES["convnet"]))
    figure = tmp_path / "difference.svg"
    said = CliRunner().invoke(command, [out, "pretrained", "--json", "--figure", str(figure)])
    assert said.exit_code == 0, said.output
    answer = json.loads(said.stdout)
    assert {row["layer"] for row in answer["rows"]} >= {"conv1", "layer1.0"} and answer["summary"]["weight"]["tensors"] == 6
    assert answer["only_in_a"] == ["fc.weight", "fc.bias"]
    assert figure.read_text().lstrip().startswith("<?xml") and "conv1" in figure.read_text()
    said = CliRunner().invoke(command, [out, out])
    assert "median over 7 weight tensors: relative change 0.0000, cosine 1.0000" in said.output
    with pytest.raises(InputError, match=r"must end in .png, .svg or .pdf"):
        CliRunner().invoke(command, [out, out, "--figure", "x.bmp"], catch_exceptions=False)
    with pytest.raises(InputError, match="must name at least one exported folder"):
        CliRunner().invoke(command, ["pretrained", "pretrained"], catch_exceptions=False)


def test_an_export_of_other_starting_weights_is_not_compared_with_these(
    export: Callable[[Recipe], Path], tmp_path: Path
) -> None:
    import shutil

    from searchft.export.compare import compare

    copy = tmp_path / "copy"
    shutil.copytree(export(CASES["convnet"]), copy)
    config = json.loads((copy / "config.json").read_text())
    config["weights"]["sha256"] = "f" * 64
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="that are not the ones here"):
        compare(str(copy), "pretrained")


def test_the_exported_values_are_those_that_were_trained(export: Callable[[Recipe], Path]) -> None:
    from safetensors.torch import load_file

    for recipe in CASES.values():
        out = export(recipe)
        delta, whole = load_file(out.parent / "best.safetensors"), load_file(out / "model.safetensors")
        assert all(torch.equal(whole[name], value) for name, value in delta.items())
        facts = describe_backbone(recipe, 0)
        start = build_model(recipe, facts, 40, 0).state_dict()
        assert set(start) == set(whole)
        untouched = set(whole) - set(delta) - {f"{facts.head}.weight", f"{facts.head}.bias"}
        assert all(torch.equal(whole[name], start[name]) for name in untouched)
