"""What is exported works without searchft, to the last bit, and is refused where it is not whole; it is scored and compared."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from searchft.data import decode_image, open_images
from searchft.data.packaged import read_orl_faces
from searchft.errors import InputError, StorageError
from searchft.export.card import MAX_LINES, snippet_text
from searchft.export.checkpoint import add_metrics, check_target, export_trial
from searchft.export.compare import compare, compare_parameters
from searchft.export.interval import wilson_interval
from searchft.export.load import load_exported, read_config
from searchft.export.score import crop_boxes, evaluate_split, normalize, predict_files, probabilities_of, scores
from searchft.models import build_model, describe_backbone
from searchft.recipe import DataSettings, Recipe, SpaceFacts

PLAIN = "resnet, linear head, squash and margin"
CONVNET = "our own convnet"
CUT = "mobilenet cut short"
BRANCHES = "mobilenet with side branches"
RESNET = Recipe("torchvision/resnet18", weights="none", unfrozen="layer4")
DEEP = replace(RESNET, head_widths=(24, 12), head_activation="gelu", dropout=0.5, input_dropout=0.1)
MOBILENET = Recipe("torchvision/mobilenet_v2", weights="none")
OURS = Recipe("searchft/convnet3", weights="none", unfrozen="all")
CONVOLUTION = ("Conv2d", (("in_channels", 64), ("kernel_size", 3), ("out_channels", 64), ("padding", 1)))
MARGIN = {"store_size": 40}
CASES: dict[str, tuple[Recipe, dict[str, Any]]] = {
    PLAIN: (RESNET, MARGIN),
    "edited resnet, deep head, crop": (
        replace(DEEP, edits=(("conv1.stride", 1), ("maxpool.stride", 1))),
        {"resize": "crop", "interpolation": "bicubic"},
    ),
    "resnet, linear head, pad and margin": (RESNET, {"resize": "pad", "interpolation": "lanczos", **MARGIN}),
    "timm mobilenet": (Recipe("timm/mobilenetv3_small_050", weights="none", unfrozen="head"), {}),
    "squeezenet, a convolution for a head": (Recipe("torchvision/squeezenet1_1", weights="none", unfrozen=1), {}),
    "timm convnext, head below a norm": (
        Recipe("timm/convnext_atto", weights="none", unfrozen=1, head_widths=(16,), head_activation="none"),
        {},
    ),
    "googlenet with auxiliary heads": (Recipe("torchvision/googlenet", weights="none", unfrozen=1, auxiliary=True), {}),
    CONVNET: (OURS, MARGIN),
    "longer convnet": (replace(OURS, edits=(("layer1.append", (CONVOLUTION, ("ReLU", ()))),)), {}),
    CUT: (replace(MOBILENET, edits=(("features.keep", 6),), unfrozen=1), MARGIN),
    BRANCHES: (replace(MOBILENET, unfrozen="all", parameters="bias", adapters="lite_residual"), {}),
}


@dataclass
class Exported:
    """A trial and where it was exported to."""

    recipe: Recipe
    facts: SpaceFacts
    settings: DataSettings
    delta: Path
    out: Path

    def export(self, **more: Any) -> Path:
        return export_trial(self.recipe, self.facts, self.settings, self.delta, self.out, {"search_val_accuracy": 0.5}, **more)


@pytest.fixture(scope="module")
def case(
    tmp_path_factory: pytest.TempPathFactory, shared_cache: Path, write_delta: Callable[..., None]
) -> Callable[[str], Exported]:
    """`case(name)`: one of CASES, trained for two steps on 32-pixel faces and exported, once. Read only."""
    done: dict[str, Exported] = {}

    def make(name: str) -> Exported:
        if name not in done:
            recipe, data = CASES[name]
            folder = tmp_path_factory.mktemp("case")
            split = (("test", 5), ("train", 2), ("val", 3))
            settings = DataSettings(**{"source": "orl_faces", "split": split, "image_size": 32, **data})
            images = open_images(settings, shared_cache)
            facts = SpaceFacts(images.facts, {recipe.architecture(): describe_backbone(recipe, seed=0)})
            one = Exported(recipe, facts, settings, folder / "best.safetensors", folder / "winner")
            write_delta(recipe, facts, images, one.delta, steps=2)
            one.export()
            done[name] = one
        return done[name]

    return make


@pytest.fixture
def exported(case: Callable[[str], Exported], tmp_path: Path) -> Exported:
    """A plain ResNet-18 with a linear head, for a test to change."""
    one = case(PLAIN)
    folder = tmp_path / "export"
    shutil.copytree(one.out.parent, folder)
    return replace(one, delta=folder / "best.safetensors", out=folder / "winner")


def faces(count: int) -> list[Path]:
    records = read_orl_faces(DataSettings("orl_faces"), "").records
    return [record.content for record in records[:: len(records) // count]][:count]  # type: ignore[misc]


def snippet_of(out: Path, **words: str) -> str:
    return snippet_text(read_config(out), str(out), **words)


# The snippet ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("ours", [False, True], ids=["without searchft", "with our adapters"])
def test_the_snippet_alone_gives_the_same_logits_bit_for_bit(ours: bool, case, tmp_path: Path) -> None:
    images, got = faces(3), tmp_path / "logits.json"
    code = ["import sys", "import torch", f"torch.set_num_threads({torch.get_num_threads()})", "found = {}"]
    expected: dict[str, list[list[float]]] = {}
    for name in [name for name in CASES if (name == BRANCHES) == ours]:
        model, config = load_exported(case(name).out)
        p = config["preprocessing"]
        for image in images:
            pixels = torch.from_numpy(decode_image(image, p["stored_size"], p["resize"], p["interpolation"]))
            expected.setdefault(name, []).append(model(normalize(pixels[None], p))[0].tolist())
            code += [snippet_of(case(name).out, image=str(image)), f"found.setdefault({name!r}, []).append(logits[0].tolist())"]
    code += ["" if ours else "assert not [m for m in sys.modules if m.startswith('searchft')]"]
    code += [f"json.dump(found, open({str(got)!r}, 'w'))"]
    # -I: neither the current folder nor the environment can smuggle searchft in
    subprocess.run([sys.executable, *([] if ours else ["-I"]), "-c", "\n".join(code)], check=True, cwd=tmp_path)
    theirs = json.loads(got.read_text())
    assert {name: theirs[name] == logits for name, logits in expected.items()} == dict.fromkeys(expected, True)


@pytest.mark.parametrize("name", CASES)
def test_the_snippet_is_short_and_the_exported_values_are_those_that_were_trained(name: str, case) -> None:
    one = case(name)
    lines = snippet_text(read_config(one.out), "winner").splitlines()
    assert len(lines) <= MAX_LINES == 10
    library = {"searchft": "torch"}.get(one.recipe.backbone.partition("/")[0], one.recipe.backbone.partition("/")[0])
    assert [line for line in lines if "import" in line] == [lines[0]]
    imported = {part.strip().split(".")[0] for part in lines[0].removeprefix("import ").split(",")}
    assert imported == {"json", library, "PIL", "safetensors", "torch"} | ({"searchft"} if name == BRANCHES else set())

    delta, whole = load_file(one.delta), load_file(one.out / "model.safetensors")
    kept = {part: value for part, value in delta.items() if not part.startswith("aux")}  # auxiliary heads stay behind
    assert kept and all(torch.equal(whole[part], value) for part, value in kept.items())
    facts = describe_backbone(one.recipe, 0)
    start = build_model(one.recipe, facts, 40, 0).state_dict()
    assert set(whole) == {part for part in start if not part.startswith("aux")}
    untouched = [part for part in set(whole) - set(delta) if not part.startswith(f"{facts.head}.")]
    assert all(torch.equal(whole[part], start[part]) for part in untouched)


# The folder -----------------------------------------------------------------------------------------------------------


def test_a_linear_head_loads_with_the_librarys_own_class_count(case) -> None:
    import torchvision

    model = torchvision.models.resnet18(num_classes=40)
    model.load_state_dict(load_file(case(PLAIN).out / "model.safetensors"))


def test_the_configuration_and_the_card_hold_what_one_needs(exported: Exported) -> None:
    out = exported.out
    config = read_config(out)
    assert Recipe.from_json(config["recipe"]) == RESNET
    assert (out / "labels.txt").read_text().split() == config["classes"]
    assert "root" not in config["data"]["settings"], "no path of this machine is taken away"
    assert {"torch", "torchvision", "searchft"} <= set(config["versions"])
    assert "Not scored yet" in (out / "README.md").read_text()

    add_metrics(out, {"test": {"accuracy": 0.975, "balanced_accuracy": 0.97, "interval_95": [0.94, 0.99], "n": 200}})
    assert set(read_config(out)["metrics"]) == {"search_val_accuracy", "test"}
    card = (out / "README.md").read_text()
    assert "**0.9750** on 200 images (95 % interval 0.9400 to 0.9900)" in card
    assert snippet_text(read_config(out), "winner") in card
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
            exported.export()


def test_weights_of_another_trial_are_refused_however_well_they_fit(exported: Exported) -> None:
    """Their shapes are right; only key and epoch tell."""
    key, delta = exported.recipe.key(exported.facts), load_file(exported.delta)
    exported.export(epoch=2)
    with pytest.raises(InputError, match=r"trial's own weights \(.*epoch 7\) but holds others \(.*epoch 2\)"):
        exported.export(epoch=7)
    negated = {name: -tensor for name, tensor in delta.items()}
    for metadata in (None, {"key": "ab" * 10, "epoch": "2"}, {"key": key, "epoch": "1"}):
        save_file(negated, exported.delta, metadata=metadata)
        with pytest.raises(InputError, match="own weights"):
            exported.export(epoch=2)


def test_a_damaged_or_missing_file_is_named(exported: Exported) -> None:
    exported.delta.write_bytes(exported.delta.read_bytes()[:1000])
    with pytest.raises(StorageError, match="damaged"):
        exported.export()
    exported.delta.unlink()
    with pytest.raises(InputError, match="keep_checkpoints"):
        exported.export()
    load_exported(exported.out)  # what was there before is intact
    weights = bytearray((exported.out / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (exported.out / "model.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match="export again"):
        load_exported(exported.out)


@pytest.mark.parametrize(
    "change",
    [{"kwargs": {"checkpoint_path": "weights.pth"}}, {"new_layers": [["fc", "modules", {}]]}],
    ids=["an argument", "a layer"],
)
def test_a_configuration_that_no_export_writes_builds_nothing(change: dict[str, Any], exported: Exported) -> None:
    """Before, arguments went to timm's constructor unchecked; older ones unpickle `checkpoint_path`."""
    config = read_config(exported.out)
    config["architecture"] |= change
    (exported.out / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="no export of ours"):
        load_exported(exported.out)


def test_other_folders_are_not_taken_for_exports_nor_written_into(case, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        read_config(tmp_path)
    for text in ("{}", "[1]", "{nonsense", '{"format": "searchft-export", "format_version": 99}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError):
            read_config(tmp_path)

    (tmp_path / "empty").mkdir()
    for allowed in (tmp_path / "new", tmp_path / "empty", case(PLAIN).out):
        check_target(allowed)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(InputError, match="not empty"):
        check_target(tmp_path / "thesis")
    check_target(tmp_path / "thesis", force=True)
    with pytest.raises(InputError, match="is a file"):
        check_target(tmp_path / "thesis" / "chapter1.txt", force=True)


# Scores ---------------------------------------------------------------------------------------------------------------


def test_an_images_probabilities_do_not_depend_on_how_many_are_scored(case, shared_cache: Path) -> None:
    model, config = load_exported(case(PLAIN).out)
    images = open_images(case(PLAIN).settings, shared_cache).split("test").images
    whole, few = (probabilities_of(model, images[:count], config["preprocessing"]) for count in (70, 35))
    assert torch.equal(whole[:35], few)


def test_scores_are_those_of_counting_by_hand(case, shared_cache: Path) -> None:
    out = case(PLAIN).out
    val = open_images(case(PLAIN).settings, shared_cache).split("val")
    score = evaluate_split(out, val.images, val.labels)
    files = {record.name: record.content for record in read_orl_faces(DataSettings("orl_faces"), "").records}
    predictions = predict_files(out, [files[name] for name in val.names], top_k=2)
    classes = read_config(out)["classes"]
    right = [classes[label] == answer["classes"][0]["class"] for label, answer in zip(val.labels, predictions, strict=True)]
    assert score["n"] == 120 and score["accuracy"] == np.mean(right)
    assert np.sum(score["confusion"]) == 120 and np.trace(score["confusion"]) == sum(right)


def test_balanced_accuracy_weighs_classes_alike() -> None:
    score = scores(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]), num_classes=3)
    assert score["accuracy"] == 0.75 and score["balanced_accuracy"] == 0.5
    assert score["confusion"] == [[3, 0, 0], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # Newcombe 1998, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilsons_interval_has_newcombes_values(correct: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_wilsons_interval_stays_within_zero_and_one_and_holds_the_accuracy() -> None:
    for n in (1, 2, 7, 200):
        for correct in range(n + 1):
            low, high = wilson_interval(correct, n)
            assert 0.0 <= low <= correct / n <= high <= 1.0


def test_predictions_are_chances_best_first_and_unreadable_images_are_named(case, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    good, bad = predict_files(case(PLAIN).out, [faces(1)[0], tmp_path / "broken.jpg"], top_k=99)
    chances = [entry["probability"] for entry in good["classes"]]
    assert len(chances) == 40 and sum(chances) == pytest.approx(1, abs=1e-5) and chances == sorted(chances, reverse=True)
    assert "damaged" in bad["error"] or "none of" in bad["error"]


def test_looks_are_the_centre_and_the_corners_mirrored_left_to_right() -> None:
    stored = {"crop": [4, 4, 36, 36], "image_size": 32, "stored_size": 40}
    centre, *corners = [[4, 4, 36, 36], [0, 0, 32, 32], [8, 0, 40, 32], [0, 8, 32, 40], [8, 8, 40, 40]]
    five = [(box, False) for box in (centre, *corners)]
    assert crop_boxes(stored, "five-crop") == five
    assert crop_boxes(stored, "ten-crop") == five + [(box, True) for box, _ in five]
    assert crop_boxes(stored, "flip") == [(centre, False), (centre, True)]
    no_margin = {"crop": [0, 0, 32, 32], "image_size": 32, "stored_size": 32}
    with pytest.raises(InputError, match=r"five-crop needs a margin .* give data.store_size"):
        crop_boxes(no_margin, "five-crop")
    assert len(crop_boxes(no_margin, "flip")) == 2

    small = {"crop": [1, 1, 3, 3], "image_size": 2, "stored_size": 4, "mean": [0.0] * 3, "std": [1.0] * 3}
    image = torch.arange(48, dtype=torch.uint8).view(1, 4, 4, 3)
    seen = normalize(image, small, [2, 0, 4, 2], mirrored=True) * 255
    assert seen[0, 0].round().tolist() == [[9.0, 6.0], [21.0, 18.0]]  # red of columns 3 and 2, rows 0 and 1


@pytest.mark.parametrize("way", ["five-crop", "ten-crop", "flip"])
def test_probabilities_are_the_mean_of_each_looks_softmax(way: str, case) -> None:
    model, config = load_exported(case(CONVNET).out)
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
    assert not torch.allclose(got, probabilities_of(model, images, preprocessing), atol=1e-6)


def test_predict_and_evaluate_take_the_looks(case, shared_cache: Path) -> None:
    from searchft.cli.evaluate import command as evaluate
    from searchft.cli.predict import command as predict

    out, image = case(CONVNET).out, faces(1)[0]
    plain, crops = (predict_files(out, [image], 5, way)[0]["classes"] for way in ("none", "five-crop"))
    assert len(crops) == 5 and [c["probability"] for c in crops] != [c["probability"] for c in plain]
    shown = CliRunner().invoke(predict, [str(out), str(image), "--tta", "five-crop", "--top-k", "5", "--json"])
    assert json.loads(shown.stdout)["predictions"][0]["classes"] == crops
    shown = CliRunner().invoke(evaluate, [str(out), "orl_faces", "--split", "val", "--tta", "ten-crop", "--json"])
    answer = json.loads(shown.stdout)
    assert answer["tta"] == "ten-crop" and answer["n"] == 120
    part = open_images(case(CONVNET).settings, shared_cache).split("val")
    assert answer["accuracy"] == evaluate_split(out, part.images, part.labels, "ten-crop")["accuracy"]


# Comparing ------------------------------------------------------------------------------------------------------------


def test_an_export_differs_from_its_start_where_it_was_trained_and_nowhere_else(case, tmp_path: Path) -> None:
    found = compare("pretrained", str(case(CUT).out))
    moved = {f"{row.layer}.{row.kind}" for row in found.rows if row.relative_change > 0}
    assert moved and all(name.startswith("features.5.") for name in moved)
    assert all(row.cosine == pytest.approx(1.0) for row in found.rows if row.relative_change == 0 and row.cosine == row.cosine)
    assert found.only_in_b == ("classifier.1.weight", "classifier.1.bias") and not found.only_in_a

    copy = shutil.copytree(case(CUT).out, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["weights"]["sha256"] = "f" * 64
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="that are not the ones here"):
        compare(str(copy), "pretrained")


def test_change_and_cosine_are_what_they_are_called() -> None:
    ones = torch.ones(2)
    a = {"x.weight": torch.tensor([3.0, 4.0]), "x.bias": 0 * ones, "y.weight": ones, "z.weight": torch.ones(3)}
    b = {"x.weight": torch.tensor([-4.0, 3.0]), "x.bias": ones, "y.weight": 2 * ones, "z.weight": torch.ones(4)}
    found = compare_parameters(a, b)
    got = {f"{row.layer}.{row.kind}": (row.relative_change, row.cosine) for row in found.rows}
    expected = {"x.weight": (2**0.5, 0.0), "x.bias": (float("inf"), float("nan")), "y.weight": (1.0, 1.0)}
    assert got.keys() == expected.keys() and found.other_shape == ("z.weight",)
    assert all(got[name] == pytest.approx(pair, nan_ok=True) for name, pair in expected.items())


def test_compare_prints_a_table_one_json_object_and_a_figure(case, tmp_path: Path) -> None:
    from searchft.cli.compare import command

    out, figure = str(case(CONVNET).out), tmp_path / "difference.svg"
    shown = CliRunner().invoke(command, [out, "pretrained", "--json", "--figure", str(figure)])
    assert shown.exit_code == 0, shown.output
    answer = json.loads(shown.stdout)
    assert {row["layer"] for row in answer["rows"]} >= {"conv1", "layer1.0"} and answer["summary"]["weight"]["tensors"] == 6
    assert answer["only_in_a"] == ["fc.weight", "fc.bias"]
    assert figure.read_text().lstrip().startswith("<?xml") and "conv1" in figure.read_text()
    shown = CliRunner().invoke(command, [out, out])
    assert "median over 7 weight tensors: relative change 0.0000, cosine 1.0000" in shown.output
    with pytest.raises(InputError, match=r"must end in .png, .svg or .pdf"):
        CliRunner().invoke(command, [out, out, "--figure", "x.bmp"], catch_exceptions=False)
    with pytest.raises(InputError, match="must name at least one exported folder"):
        CliRunner().invoke(command, ["pretrained", "pretrained"], catch_exceptions=False)
