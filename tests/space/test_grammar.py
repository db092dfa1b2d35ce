"""What a list means, what a scalar is, what an override does: truth tables."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from searchft.errors import InputError
from searchft.recipe import DataSettings, Recipe
from searchft.recipe.fields import STRATEGIES
from searchft.space import SearchSettings, Space, load_space, parse_space

Build = Callable[..., Space]


# fmt: off
LINES: list[tuple[str, str, tuple[Any, ...]]] = [
    ("dropout: 0.5", "dropout", (0.5,)),
    ("dropout: [0.5]", "dropout", (0.5,)),
    ("dropout: [0, 0.5]", "dropout", (0.0, 0.5)),
    ("dropout: {choices: [0, 0.5]}", "dropout", (0.0, 0.5)),
    ("lr: 1e-3", "lr", (1e-3,)),
    ("lr: [1E-3, +.5e-2, 3.e-4, 1_0]", "lr", (1e-3, 5e-3, 3e-4, 10.0)),
    ("batch_size: [128, 1_024]", "batch_size", (128, 1024)),
    ("head_widths: []", "head_widths", ((),)),
    ("head_widths: [[]]", "head_widths", ((),)),
    ("head_widths: [256, 128]", "head_widths", ((256, 128),)),
    ("head_widths: [[], [256, 128]]", "head_widths", ((), (256, 128))),
    ("head_widths: {choices: [[], [256]]}", "head_widths", ((), (256,))),
    ("head_widths: [[8, 8], [8]]", "head_widths", ((8, 8), (8,))),
    ("stages: [layer3, layer4]", "stages", (("layer3", "layer4"),)),
    ("stages: [[layer2], [layer4, layer3]]", "stages", (("layer2",), ("layer3", "layer4"))),
    ("stages: [[], [layer2]]", "stages", ((), ("layer2",))),
    ("edits: {conv1.stride: 1}", "edits", ((("conv1.stride", 1),),)),
    ("edits: {b.stride: [1, 2], a.b.p: 0.5}", "edits", ((("a.b.p", 0.5), ("b.stride", (1, 2))),)),
    ("edits: {f.append: [{Conv2d: {out_channels: 8, kernel_size: [3, 3]}}, ReLU]}", "edits",
     ((("f.append", (("Conv2d", (("kernel_size", (3, 3)), ("out_channels", 8))), ("ReLU", ()))),),)),
    ("edits: [{}, {conv1.stride: 1}]", "edits", ((), (("conv1.stride", 1),))),
    ("edits: {choices: [{}, {conv1.stride: 1}]}", "edits", ((), (("conv1.stride", 1),))),
    ("lr_groups: {late: [layer4], early: [layer2, layer1]}", "lr_groups", ((("early", ("layer1", "layer2")), ("late", ("layer4",))),)),
    ("lr_multipliers: {top: [1, 0.6], deep: 0.1}", "lr_multipliers.top", (1.0, 0.6)),
    ("lr_multipliers: {top: [1, 0.6], deep: 0.1}", "lr_multipliers.deep", (0.1,)),
    ("unfrozen: [head, 1, layer3.0.conv1, all]", "unfrozen", ("head", 1, "layer3.0.conv1", "all")),
    ("unfrozen: 0", "unfrozen", ("head",)),
    ('unfrozen: "3"', "unfrozen", ("3",)),
    ("weights: none", "weights", ("none",)),
    ("weights: [IMAGENET1K_V1, package, 'file:a b.pth']", "weights", ("IMAGENET1K_V1", "package", "file:a b.pth")),
    ("weights_fallback: ''", "weights_fallback", ("",)),
    ("auxiliary: [true, False]", "auxiliary", (True, False)),
    ("seed: [0, 1, 2]", "seed", (0, 1, 2)),
    ("strategy: [head, tinytl]", "strategy", ("head", "tinytl")),
]
# fmt: on


@pytest.mark.parametrize(("line", "name", "expected"), LINES)
def test_a_scalar_is_fixed_and_a_list_is_a_set_of_choices(
    space_of: Build, line: str, name: str, expected: tuple[Any, ...]
) -> None:
    found = space_of(line).choices(name)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


def test_what_is_not_given_has_the_defaults_of_recipe_data_and_search() -> None:
    space = parse_space("study: s\ndata: {source: orl_faces}\nrecipe: {backbone: torchvision/resnet18}\n")
    assert space.resolve({}) == Recipe(backbone="torchvision/resnet18")
    assert space.data == DataSettings(source="orl_faces")
    assert space.search == SearchSettings()
    assert (space.dimensions, space.enqueue, space.size()) == ((), (), 1)


@pytest.mark.parametrize(
    ("split", "expected", "seed"),
    [
        ("{train: 2, val: 3, test: 5, seed: 7}", (("train", 2), ("val", 3), ("test", 5)), 7),
        ("{val: 0.2, train: 0.8}", (("train", 0.8), ("val", 0.2)), 0),
    ],
)
def test_a_split_holds_counts_or_fractions(space_of: Build, split: str, expected: tuple[Any, ...], seed: int) -> None:
    data = space_of(data=f"{{source: orl_faces, split: {split}}}").data
    assert data.split == expected and data.split_seed == seed


@pytest.mark.parametrize(
    ("data", "root"),
    [
        ("{source: 'torchvision:CIFAR10'}", ""),
        ("{source: 'torchvision:CIFAR10', root: /data}", "/data"),
        ("{source: 'folder:photos'}", "HERE"),
        ("{source: 'csv:a.csv'}", "HERE"),
        ("{source: 'folder:photos', root: deeper}", "HERE/deeper"),
        ("{source: 'folder:photos', root: /elsewhere}", "/elsewhere"),
    ],
)
def test_relative_paths_stand_in_the_folder_of_the_file(tmp_path: Path, data: str, root: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"study: s\ndata: {data}\nrecipe: {{backbone: timm/resnet18.a1_in1k}}\n")
    assert load_space(path).data.root == root.replace("HERE", str(tmp_path))


def test_search_settings_are_read_and_recipes_take_the_seed_of_the_study_unless_they_have_one(space_of: Build) -> None:
    space = space_of(search="{sampler: grid, pruner: none, trials: 3, timeout: 90, seed: 4}")
    assert space.search == SearchSettings(sampler="grid", pruner="none", trials=3, timeout_s=90.0, seed=4)
    assert space.resolve({}).seed == 4
    assert space_of("seed: 2", search="{seed: 4}").resolve({}).seed == 2


def test_rows_take_the_first_choice_of_what_they_do_not_say(space_of: Build) -> None:
    rows = space_of(
        "dropout: [0.5, 0.0]",
        "head_widths: [[], [8]]",
        "unfrozen: [head, 1]",
        "lr_multipliers: {top: [1, 0.5], deep: 0.1}",
        search="{enqueue: [{name: a}, {name: b, dropout: 0, head_widths: [8], unfrozen: 0, lr_multipliers: {top: 0.5, deep: 0.1}},"
        " {name: c, lr_multipliers.top: 0.5, backbone: torchvision/small, epochs: 10}]}",
    ).enqueue
    assert [row.name for row in rows] == ["a", "b", "c"]
    assert rows[0].chosen == {"dropout": 0.5, "head_widths": (), "unfrozen": "head", "lr_multipliers.top": 1.0}
    assert rows[1].chosen == {"dropout": 0.0, "head_widths": (8,), "unfrozen": "head", "lr_multipliers.top": 0.5}
    assert rows[2].chosen == {"dropout": 0.5, "head_widths": (), "unfrozen": "head", "lr_multipliers.top": 0.5}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_is_a_macro_over_recipe_values(space_of: Build, strategy: str) -> None:
    recipe = space_of(f"strategy: {strategy}").resolve({})
    assert recipe == Recipe("torchvision/small", **STRATEGIES[strategy])


def test_scratch_among_others_leaves_the_weights_to_the_others(space_of: Build) -> None:
    space = space_of("strategy: [full, scratch]", "weights: IMAGENET1K_V1", "weights_fallback: none")
    assert space.resolve({"strategy": "full"}).weights == "IMAGENET1K_V1"
    assert space.resolve({"strategy": "scratch"}).weights == "none"
    assert space.resolve({"strategy": "scratch"}).weights_fallback == ""


def test_partial_leaves_the_depth_to_the_space(space_of: Build) -> None:
    space = space_of("strategy: [full, partial, head]", "unfrozen: 1")
    assert [space.resolve({"strategy": s}).unfrozen for s in ("full", "partial", "head")] == ["all", 1, "head"]
    with pytest.raises(InputError, match="must not stand beside strategy full"):
        space_of("strategy: [full, head]", "unfrozen: 1")


def test_a_row_with_a_list_of_seeds_is_a_row_for_each(space_of: Build) -> None:
    lines = ("seed: [0, 1, 2]", "lr: [1e-3, 1e-2]")
    rows = space_of(*lines, search="{enqueue: [{name: A, lr: 1e-2, seed: [0, 2]}]}").enqueue
    assert [(row.name, dict(row.chosen)) for row in rows] == [
        ("A, seed 0", {"lr": 1e-2, "seed": 0}),
        ("A, seed 2", {"lr": 1e-2, "seed": 2}),
    ]
    with pytest.raises(InputError, match="must be one of the choices 0, 1, 2 but got 7"):
        space_of(*lines, search="{enqueue: [{name: A, seed: [0, 7]}]}")


# --- overrides -----------------------------------------------------------------------------------------------------

FILE = """\
study: s
data: {source: orl_faces, split: {train: 2, val: 3}}
recipe:
  backbone: torchvision/small
  epochs: 10
  dropout: [0.0, 0.5]
  edits: {conv1.stride: 1}
search:
  enqueue:
    - {name: a, dropout: 0.5}
"""


@pytest.mark.parametrize(
    ("overrides", "read", "expected"),
    [
        (["recipe.epochs=5"], lambda s: s.fixed["epochs"], 5),
        ([" recipe.epochs = 5"], lambda s: s.fixed["epochs"], 5),
        (["recipe.epochs=5", "recipe.epochs=6"], lambda s: s.fixed["epochs"], 6),
        (["recipe.lr=[1e-3,1e-4]"], lambda s: s.by_name["lr"].choices, (1e-3, 1e-4)),
        (["recipe.head_widths=[[], [8]]"], lambda s: s.by_name["head_widths"].choices, ((), (8,))),
        (["recipe.weights=none"], lambda s: s.fixed["weights"], "none"),
        (["recipe.edits.conv1.stride=2"], lambda s: s.fixed["edits"], (("conv1.stride", 2),)),
        (["recipe.edits.conv1.padding=2"], lambda s: s.fixed["edits"], (("conv1.padding", 2), ("conv1.stride", 1))),
        (["recipe.edits={}"], lambda s: s.fixed["edits"], ()),
        (["recipe.lr_multipliers.top=[1, 0.5]"], lambda s: s.by_name["lr_multipliers.top"].choices, (1.0, 0.5)),
        (["data.split.val=4"], lambda s: s.data.split, (("train", 2), ("val", 4))),
        (["data.source=folder:a=b"], lambda s: s.data.source, "folder:a=b"),
        (["search.trials=3"], lambda s: s.search.trials, 3),
        (["search.enqueue=[]"], lambda s: s.enqueue, ()),
        (["study=t"], lambda s: s.name, "t"),
    ],
)
def test_set_replaces_a_value(overrides: list[str], read: Callable[[Space], Any], expected: Any) -> None:
    assert read(parse_space(FILE, "x.yaml", overrides)) == expected


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("recipe.epochs=x", "--set recipe.epochs=x: recipe.epochs: must be a whole number from 1 to 10000 but got 'x'"),
        ("recipe.epochs=", "--set recipe.epochs=: recipe.epochs: must be a whole number from 1 to 10000 but got no value: "
                           "write a value, or remove the key"),
        ("recipe.epochs", "--set recipe.epochs: must be KEY=VALUE, e.g. recipe.epochs=5"),
        ("recipe.lr=\ud800", r"--set 'recipe.lr=\ud800': must be printable text, without control characters"),
        ("=5", "--set =5: must be KEY=VALUE, e.g. recipe.epochs=5"),
        ("epochs=5", "--set epochs=5: epochs: must name a key: study, data.KEY, recipe.KEY or search.KEY"),
        ("recipes.epochs=5", "--set recipes.epochs=5: recipes.epochs: must name a key: study, data.KEY, recipe.KEY or search.KEY, "
                             "did you mean 'recipe'?"),
        ("recipe.epoch=5", "--set recipe.epoch=5: recipe.epoch: unknown key 'epoch', did you mean 'epochs'?"),
        ("recipe.lr=.nan", "--set recipe.lr=.nan: recipe.lr: must be a finite number but got .nan"),
        ("recipe.lr=*a", "--set recipe.lr=*a: recipe.lr: must be written out but got the alias *a: aliases are not read"),
        ("recipe.lr=[1", "--set recipe.lr=[1: recipe.lr: must be readable YAML but expected ',' or ']', but got '<stream end>' "
                         "(column 3): a bracket is not closed, or a comma is missing"),
        ("recipe.dropout=[0.0, 0.1]", "x.yaml:10: search.enqueue[a].dropout: must be one of the choices 0.0, 0.1 but got 0.5 "
                                      "(--set recipe.dropout=[0.0, 0.1] says so: change the row, or drop all with "
                                      "--set search.enqueue=[])"),
        ("recipe.dropout=0.1", "x.yaml:10: search.enqueue[a].dropout: must be 0.1, the value under recipe.dropout, but got 0.5 "
                               "(--set recipe.dropout=0.1 says so: change the row, or drop all with --set search.enqueue=[])"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_placed_at_itself(override: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_space(FILE, "x.yaml", [override])
    assert str(caught.value) == expected


def test_problems_of_the_file_come_before_those_of_overrides_and_in_line_order() -> None:
    text = FILE.replace("epochs: 10", "epochs: 0").replace("stride: 1", "stride: null")
    text += "".join(f"  key{i}: 1\n" for i in range(3))
    with pytest.raises(InputError) as caught:
        parse_space(text, "x.yaml", ["recipe.norm=x", "recipe.lr=0"])
    assert [problem.where for problem in caught.value.problems] == [
        *("x.yaml:5", "x.yaml:7", "x.yaml:11", "x.yaml:12", "x.yaml:13"),
        *("--set recipe.norm=x", "--set recipe.lr=0"),
    ]


def test_an_override_mends_a_fault_of_the_file() -> None:
    assert parse_space(FILE.replace("epochs: 10", "epochs: ten"), "x.yaml", ["recipe.epochs=3"]).fixed["epochs"] == 3
    assert parse_space("study: s\ndata:\n", "x.yaml", ["data.source=orl_faces", "recipe.backbone=timm/vit_tiny"]).name == "s"


def test_a_place_is_the_override_the_line_or_what_is_around_it() -> None:
    space = parse_space(FILE, "x.yaml", ["recipe.epochs=5", "recipe.edits.conv1.stride=2"])
    assert space.where("recipe.epochs") == "--set recipe.epochs=5"
    assert space.where("recipe.edits.conv1.stride") == "--set recipe.edits.conv1.stride=2"
    assert space.where("recipe.dropout") == "x.yaml:6"
    assert space.where("recipe.lr") == "x.yaml:3"
    assert space.where("search.enqueue[0].dropout") == "x.yaml:10"
    assert space.where("nowhere") == "x.yaml"


# --- the edge ------------------------------------------------------------------------------------------------------


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + FILE.replace("\n", "\r\n").encode())
    space = load_space(path)
    assert space.fixed["epochs"] == 10 and space.lines["recipe.epochs"] == 5


def test_importing_the_room_loads_neither_torch_nor_optuna() -> None:
    code = "import sys, searchft.space; sys.exit(bool({'torch', 'optuna', 'timm'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


@pytest.mark.parametrize("size", ["[" * 400_000, "? " * 200_000, "a: &x [*x]\n" * 20_000, "k: {" * 100_000, "&a " * 200_000])
def test_hostile_files_are_refused_at_once(size: str) -> None:
    with pytest.raises(InputError):
        parse_space(size, "x.yaml")
