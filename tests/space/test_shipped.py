"""The spaces that come with searchft: they load, and they are what their headers say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from searchft.recipe import DataSettings, Recipe
from searchft.space import Space, load_space

SPACES = Path(__file__).parents[2] / "spaces"
HEADER = ("# Intent:", "# Command:", "# Result:", "# Runtime:")


def rows_of(name: str) -> dict[str, Recipe]:
    space = load_space(SPACES / f"{name}.yaml")
    return {row.name: space.resolve(row.chosen) for row in space.enqueue}


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_space_loads_and_says_what_it_is(path: Path) -> None:
    space = load_space(path)
    assert space.name == path.stem
    header = path.read_text().partition("study:")[0]
    assert all(word in header for word in HEADER)
    assert f"# Command: searchft run spaces/{path.name}" in header
    assert (space.search.sampler, space.search.pruner) == ("tpe", "median")


def test_the_face_space_enqueues_the_notebooks_ten_experiments() -> None:
    rows = rows_of("face_resnet18")
    assert {name: (r.unfrozen, r.head_widths, r.head_activation, r.dropout, r.batch_size) for name, r in rows.items()} == {
        "Baseline": ("head", (), "relu", 0.0, 256),
        "ModelA": ("layer4", (), "relu", 0.0, 256),
        "ModelB": ("layer3", (), "relu", 0.0, 256),
        "ModelC": ("all", (), "relu", 0.0, 256),
        "ModelD(fc:256+128)": ("head", (256, 128), "none", 0.0, 256),
        "ModelD(fc:256+128+dropout)": ("head", (256, 128), "relu", 0.5, 256),
        "ModelD(fc:1024+512)": ("head", (1024, 512), "none", 0.0, 256),
        "ModelD(fc:1024+512+dropout)": ("head", (1024, 512), "relu", 0.5, 256),
        "ModelD(fc:2048+1024)": ("head", (2048, 1024), "none", 0.0, 128),
        "ModelD(fc:2048+1024+dropout)": ("head", (2048, 1024), "relu", 0.5, 128),
    }
    for recipe in rows.values():
        assert (recipe.lr, recipe.norm, recipe.epochs, recipe.weights_fallback) == (1e-3, "frozen", 20, "none")
        assert all(rate == 1.0 for _, rate in recipe.lr_multipliers)
        assert dict(recipe.edits) == {"conv1.stride": 1, "layer2.0.conv1.stride": 1, "layer2.0.downsample.0.stride": 1}
    data = load_space(SPACES / "face_resnet18.yaml").data
    assert data == DataSettings("orl_faces", split=(("train", 2), ("val", 3), ("test", 5)), image_size=64)


def test_rows_with_different_names_are_different_work(facts_of: Callable[..., object]) -> None:
    space: Space = load_space(
        SPACES / "face_resnet18.yaml", ["recipe.unfrozen=[head, layer2, layer1, all]", "search.enqueue=[]"]
    )
    facts = facts_of(space, train=80)
    # 80 images: both batch sizes are the whole set; head only: no multiplier; linear head: no activation, no dropout
    heads = 1 + 3 * 2 * 2
    openings = 1 + 1 + 2 + 2  # head; layer2 alone (no deep stage); two with deep ones at two rates
    assert sum(1 for _ in space.recipes(facts)) == heads * openings * 2  # type: ignore[arg-type]


def test_the_strategies_space_enqueues_the_notebooks_ten() -> None:
    rows = rows_of("mobilenetv2_strategies")
    ours = "IMAGENET1K_V1"
    rates = {name: dict(r.lr_multipliers) for name, r in rows.items()}
    assert {name: (r.unfrozen, r.parameters, r.weights, rates[name]["low"], r.epochs) for name, r in rows.items()} == {
        "whole network": ("all", "all", ours, 1.0, 20),
        "separate rates 1.0/0.6/0.4": ("all", "all", ours, 0.6, 20),
        "separate rates as its code ran (1.0/0.4)": ("all", "all", ours, 0.4, 20),
        "last three layers": (3, "all", ours, 1.0, 20),
        "feature extractor": ("head", "all", ours, 1.0, 20),
        "bias only": ("all", "bias", ours, 1.0, 20),
        "TinyTL": ("all", "bias", ours, 1.0, 20),
        "from scratch": ("all", "all", "none", 0.4, 20),
        "from scratch, more epochs": ("all", "all", "none", 0.4, 40),
        "fine-tuned, more epochs": ("all", "all", ours, 0.4, 40),
    }
    assert all(rate["backbone"] == min(rate["low"], 0.4 if rate["low"] < 1 else 1.0) for rate in rates.values())
    assert [name for name, r in rows.items() if r.adapters == "lite_residual"] == ["TinyTL"]
    assert {(r.optimizer, r.schedule, r.backbone) for r in rows.values()} == {
        ("adam", "exponential", "torchvision/mobilenet_v2")
    }


def test_the_flowers_space_enqueues_the_notebooks_tasks() -> None:
    rows = rows_of("flowers_densenet169")
    assert {name: (r.backbone.partition("/")[2], r.unfrozen_tensors, r.weights, r.batch_size) for name, r in rows.items()} == {
        "Task 1: DenseNet-169": ("densenet169", 0, "IMAGENET1K_V1", 64),
        "Task 1: ResNet-18": ("resnet18", 0, "IMAGENET1K_V1", 64),
        "Finetune Top (Task 3: test 0.923)": ("densenet169", 0, "IMAGENET1K_V1", 32),
        "Finetune top 40 tensors": ("densenet169", 40, "IMAGENET1K_V1", 32),
        "Finetune All": ("densenet169", 506, "IMAGENET1K_V1", 32),
        "From Scratch": ("densenet169", 506, "none", 32),
        "ConvNet1 (3 convolutions)": ("convnet3", 506, "none", 32),
        "ConvNet2 (5 convolutions)": ("convnet5", 506, "none", 32),
        "ConvNet3 (7 convolutions)": ("convnet7", 506, "none", 32),
    }
    assert all((r.epochs, r.validate_every, r.optimizer, r.head_widths) == (5, 40, "adam", (512,)) for r in rows.values())
    space = load_space(SPACES / "flowers_densenet169.yaml", ["data.source=orl_faces", "data.labels=none"])
    assert (space.data.labels, space.data.store_size, space.data.image_size) == ("", 256, 224)


def test_the_orchid_space_is_a_ladder_a_zoo_and_four_mistakes() -> None:
    rows = rows_of("orchids_zoo")
    names = list(rows)
    ladder = [rows[name] for name in names[:6]]
    assert [
        sum((r.horizontal_flip > 0, r.rotation > 0, r.hue > 0, r.grayscale > 0, r.normalization == "weights")) for r in ladder
    ] == [*(0, 1, 2, 3, 4, 5)]
    for recipe in rows.values():
        alexnet = recipe.backbone == "torchvision/alexnet"
        assert (recipe.optimizer, recipe.weight_decay) == (("sgd", 0.0) if alexnet else ("adamw", 1e-5))
        assert recipe.unfrozen == "all" and recipe.patience and (alexnet or not recipe.own_edits())
    changed = {name: [path for path, _ in r.own_edits()] for name, r in rows.items() if r.own_edits()}
    assert changed == {
        "AlexNet, first six modules": ["classifier.1.replace", "features.keep"],
        "AlexNet, two more convolutions": ["classifier.1.replace", "features.append"],
        "AlexNet, two more convolutions, classifier kept": ["features.append"],
        "AlexNet, softmax over the batch": ["classifier.append"],
    }
    assert [r.backbone.partition("/")[2] for r in list(rows.values())[11:]] == [
        *("resnet50", "resnet34", "resnet101", "resnext50_32x4d", "vgg11", "googlenet", "googlenet")
    ]
    assert [name for name, r in rows.items() if r.auxiliary] == ["GoogLeNet with auxiliary heads"]
    assert [name for name, r in rows.items() if r.final_softmax] == ["AlexNet, softmax over the classes"]


def test_the_vgg_space_is_the_notebooks_classifier() -> None:
    (recipe,) = rows_of("cifar10_vgg16").values()
    assert dict(recipe.edits) == {"avgpool.output_size": 3} and recipe.head_replaces == "classifier"
    assert (recipe.head_widths, recipe.normalization, recipe.unfrozen) == ((512, 128), "none", "head")
    assert (recipe.lr, recipe.batch_size, recipe.epochs, recipe.dropout) == (1e-3, 1024, 5, 0.0)


@pytest.mark.parametrize("path", sorted((SPACES / "offline").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_offline_space_runs_every_row_with_three_seeds_and_nothing_else(path: Path) -> None:
    space = load_space(path)
    assert space.name == f"offline_{path.stem}" and space.data.source in ("orl_faces", "fashion_mnist")
    assert all(word in path.read_text().partition("study:")[0] for word in HEADER)
    seeds: dict[str, list[int]] = {}
    for row in space.enqueue:
        seeds.setdefault(row.name.rpartition(", seed ")[0], []).append(space.resolve(row.chosen).seed)
    assert all(found == [0, 1, 2] for found in seeds.values()) and "" not in seeds
    assert space.search.trials == len(space.enqueue)  # the sampler adds nothing
    recipe = space.resolve({})
    weights = "none" if path.stem.endswith("_networks") else "package"  # the notebooks' own networks: no weights offline
    assert (space.search.pruner, recipe.precision, recipe.weights) == ("none", "fp32", weights)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("face_resnet18", []),
        ("mobilenetv2_strategies", ["data.source=orl_faces", "data.image_size=64"]),
        ("flowers_densenet169", ["data.source=orl_faces", "data.labels=none", "data.image_size=64", "data.store_size=72"]),
        ("orchids_zoo", ["data.source=orl_faces"]),
        ("cifar10_vgg16", ["data.source=orl_faces"]),
    ],
)
def test_a_notebooks_space_fits_the_packaged_photos(name: str, overrides: list[str], shared_cache: Path) -> None:
    from searchft.facts import describe

    space = load_space(SPACES / f"{name}.yaml", overrides)
    facts, _ = describe(space, shared_cache)
    assert all(backbone.weights == "none" or not backbone.fell_back for backbone in facts.backbones.values())
    keys = [space.resolve(row.chosen).key(facts) for row in space.enqueue]
    # On random weights, fine-tuning everything and training from scratch are the same work; no other two rows are.
    fell_back = any(backbone.fell_back for backbone in facts.backbones.values())
    twins = {"mobilenetv2_strategies": 2, "flowers_densenet169": 1}.get(name, 0) if fell_back else 0
    assert len(keys) - len(set(keys)) == twins
