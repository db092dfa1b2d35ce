"""The memory is what autograd really keeps, and groups are counted by what trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from searchft.models import describe_backbone
from searchft.recipe import Recipe, open_parameters
from searchft.train.memory import saved_bytes, training_model


def kept_bytes(recipe: Recipe, side: int, batch: int, device: str = "meta") -> int:
    facts = describe_backbone(recipe, 0)
    return saved_bytes(training_model(recipe, facts, open_parameters(recipe, facts), 5), side, batch, 5, device)


@pytest.mark.parametrize(
    ("backbone", "batch", "values"),
    [
        ("torchvision/resnet18", 1, {"unfrozen": "head"}),
        ("torchvision/resnet18", 64, {"unfrozen": "layer4"}),
        ("torchvision/resnet18", 64, {"unfrozen": "all"}),
        ("torchvision/resnet18", 64, {"unfrozen": "all", "norm": "frozen"}),
        ("torchvision/resnet18", 1, {"unfrozen": "all", "parameters": "bias"}),
        ("torchvision/mobilenet_v2", 1, {"unfrozen": "all", "parameters": "bias", "adapters": "lite_residual"}),
        ("torchvision/googlenet", 2, {"unfrozen": "all", "auxiliary": True}),
    ],
    ids=str,
)
def test_memory_is_within_a_fifth_of_what_autograd_keeps(backbone: str, batch: int, values: dict[str, Any]) -> None:
    recipe = Recipe(backbone, weights="none", **values)
    planned, real = kept_bytes(recipe, 64, batch), kept_bytes(recipe, 64, batch, "cpu")
    assert real > 0 and abs(planned - real) <= 0.2 * real


def test_memory_of_one_image_is_known_where_it_could_not_train_alone() -> None:
    one, two = (kept_bytes(Recipe("torchvision/resnet18", weights="none", unfrozen="all"), 32, batch) for batch in (1, 2))
    assert abs(2 * one - two) <= 0.2 * two  # layer4's maps are 1x1 here


SPACE = """
study: planned
data: {source: orl_faces, split: {train: 2, val: 1, test: 1}, image_size: 32}
recipe:
  backbone: torchvision/resnet18
  weights: none
  unfrozen: [head, layer4]
  head_widths: [[], [16]]
  batch_size: 512
  epochs: 3
  precision: fp32
search: {trials: 6}
"""


def plan(folder: Path, *options: str) -> str:
    """What the command prints for SPACE on a terminal of eighty columns."""
    from searchft.cli.plan import command

    (folder / "space.yaml").write_text(SPACE)
    result = CliRunner(env={"COLUMNS": "80"}).invoke(command, [str(folder / "space.yaml"), *options])
    assert result.exit_code == 0, result.output
    assert [path.name for path in folder.iterdir()] == ["space.yaml"], "no study is made"
    return result.stdout


def test_plan_counts_groups_memory_and_store(tmp_path: Path, shared_cache: Path) -> None:
    answer = json.loads(plan(tmp_path, "--json"))
    head, layer4 = answer["openings"]
    assert answer["configurations"] == 4 and head["configurations"] == layer4["configurations"] == 2
    assert (head["fewest"], head["most"]) == (512 * 16 + 16 + 16 * 40 + 40, 512 * 40 + 40)
    assert head["activation_bytes"]["64"] > head["activation_bytes"]["1"]
    assert layer4["activation_bytes"]["1"] > head["activation_bytes"]["1"]
    # 512 pooled values, and the 256 channels of a 2x2 map, of 120 images
    assert head["stored_bytes"] == 120 * 512 * 4 and layer4["stored_bytes"] == 120 * 256 * 4 * 4
    assert answer["stored_bytes"] == head["stored_bytes"] + layer4["stored_bytes"]
    assert head["kept"] == {"keep": "memory", "reason": "2.05 kB an image, 246 kB in all"}
    assert head["numerics"]["frozen_dtype"] == "float32" and not head["numerics"]["fold"]
    assert answer["seconds"] > 0 and head["epoch_seconds"] < layer4["epoch_seconds"]
    assert any("exceed the 80 training images" in note for note in answer["notes"])
    assert any("stay frozen at random values" in note for note in answer["notes"])


def test_plan_prints_a_table_that_fits_eighty_columns(tmp_path: Path, shared_cache: Path) -> None:
    out = plan(tmp_path, "--no-timing")
    for text in ("mem@64", "last stage open", "length    not known", "store     ", "trainable layers in float32 (exact"):
        assert text in out
    lines = out.splitlines()
    head = next(i for i, line in enumerate(lines) if "mem@64" in line)
    assert max(map(len, lines[head : head + 4])) <= 80
    assert "…" not in "".join(lines[head : head + 4]), "nothing is cut off"
