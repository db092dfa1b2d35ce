"""The scripts beside studies/reference: seeds of a row stand together with their range; the layer table is right."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch

from searchft.models import build_model, describe_backbone
from searchft.recipe import DataFacts, Recipe, SpaceFacts
from searchft.search.records import TrialRecord


def script(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "studies" / "reference" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"reference_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


layers, spread = script("layers"), script("spread")


def test_a_rows_seeds_are_one_line_with_their_range() -> None:
    recipe = Recipe("searchft/convnet3", weights="none", epochs=4)
    facts = SpaceFacts(DataFacts("x", "f", ("a",), ()), {recipe.architecture(): describe_backbone(recipe, 0)})

    def trial(number: int, name: str, seed: int, value: float, state: str = "complete") -> TrialRecord:
        extra = {"train_accuracy": 1.0, "trained_parameters": 70}
        seeded = replace(recipe, seed=seed)
        return TrialRecord(number, name, state, {}, seeded, str(number), value, (0.1, value - 0.1), extra=extra)

    records = [
        trial(0, "A, seed 2", 2, 0.9),
        trial(1, "A, seed 0", 0, 0.6),
        trial(2, "B, seed 0", 0, 0.5),
        trial(3, "A, seed 1", 1, 0.1, state="pruned"),
        trial(4, "", 0, 0.99),
    ]
    first, second = spread.markdown(records, facts).splitlines()[2:]
    assert first.startswith("| A | searchft/convnet3, random | 4 | 70 | 2 | 0.750 (0.600–0.900) | 0.650 (0.500–0.800) |")
    assert second.startswith("| B |") and "| 1 | 0.500 | 0.400 | 1.000 |" in second


FACES = (("conv1.stride", 1), ("layer2.0.conv1.stride", 1), ("layer2.0.downsample.0.stride", 1))


def test_the_edited_resnets_receptive_fields_are_the_true_ones() -> None:
    recipe = Recipe("torchvision/resnet18", weights="none", edits=FACES)
    facts = describe_backbone(recipe, 0)
    rows = {row.name: row for row in layers.layer_table(build_model(recipe, facts, 100, 0), facts, 64)}
    ends = ("conv1", "maxpool", "layer1.1.conv2", "layer2.1.conv2", "layer3.1.conv2", "layer4.1.conv2")
    assert [rows[name].receptive_field for name in ends] == [7, 9, 25, 41, 69, 125]
    assert rows["layer4.1.conv2"].output == (512, 8, 8) and rows["layer4.1.conv2"].weights == 2_359_296
    assert (rows["conv1"].kernel, rows["conv1"].stride, rows["conv1"].padding) == ((7, 7), (1, 1), (3, 3))
    assert rows["layer2.0.downsample.0"].receptive_field == 25  # beside the main path, not in line with it
    assert rows["layer2.0.downsample.0"].weights == 8192
    assert (rows["fc"].output, rows["fc"].weights) == ((100,), 51_200)


def test_a_receptive_field_is_as_far_as_a_gradient_reaches() -> None:
    recipe = Recipe("searchft/convnet5", weights="none")
    facts = describe_backbone(recipe, 0)
    model = build_model(recipe, facts, 3, 0).eval()
    told = {row.name: row.receptive_field for row in layers.layer_table(model, facts, 64)}["layer2.3"]
    image = torch.randn(1, 3, 64, 64, requires_grad=True)
    maps = model[:4](image)  # up to layer2
    maps[0, :, 16, 16].sum().backward()
    assert image.grad is not None
    reached = image.grad.abs().sum(dim=(0, 1)).sum(dim=0).nonzero().flatten()
    assert int(reached.max() - reached.min()) + 1 == told


def test_layers_of_a_space_are_printed(capsys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    space = tmp_path / "space.yaml"
    space.write_text(
        "study: x\ndata: {source: orl_faces, image_size: 32}\nrecipe: {backbone: searchft/convnet3, weights: none}\n"
    )
    layers.main(str(space))
    text = capsys.readouterr().out
    assert "searchft/convnet3 at 32 px" in text and "receptive" in text
