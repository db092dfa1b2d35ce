"""Recipe: what trains, what has no effect, and when two recipes are the same work. Facts are built by hand."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest

from searchft.machine import Processor
from searchft.recipe import DataSettings, Opening, Recipe, SpaceFacts, open_parameters
from tests import invented

BASE = Recipe("torchvision/small", unfrozen="all")
PRETRAINED = {"weights": "IMAGENET1K_V1", "weights_sha256": "0" * 64, "weights_source": "a file"}


def facts(norms: str = "batch", bias: bool = False, train: int = 80, **values: object) -> SpaceFacts:
    """Three stages with a convolution each and BatchNorms, LayerNorms (`layer`) or no norms."""
    backbone = invented.backbone("torchvision/small", norms, bias, **{**PRETRAINED, **values})
    return SpaceFacts(invented.data(train), {BASE.architecture(): backbone})


def opening_of(known: SpaceFacts, **values: object) -> Opening:
    recipe = dataclasses.replace(BASE, **values)  # type: ignore[arg-type]
    return open_parameters(recipe, known.backbones[BASE.architecture()])


def key(known: SpaceFacts, **values: object) -> str:
    return dataclasses.replace(BASE, **values).key(known)  # type: ignore[arg-type]


# --- what opens ----------------------------------------------------------------------------------------------------

L1 = ("layer1.0.conv.weight", "layer1.0.bn.weight", "layer1.0.bn.bias")
L2 = ("layer2.0.conv.weight", "layer2.0.bn.weight", "layer2.0.bn.bias")
STEM = ("conv1.weight", "bn1.weight", "bn1.bias")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"unfrozen": "head"}, ()),
        ({"unfrozen": 0}, ()),
        ({"unfrozen": 1}, L2),
        ({"unfrozen": "layer2"}, L2),
        ({"unfrozen": 2}, L1 + L2),
        ({"unfrozen": "all"}, STEM + L1 + L2),
        ({"unfrozen": 3}, STEM + L1 + L2),
        ({"unfrozen": "bn1"}, STEM[1:] + L1 + L2),
        ({"unfrozen": "layer1.0.bn"}, L1[1:] + L2),
        ({"stages": ("layer1",)}, L1),
        ({"stages": ("layer2", "stem")}, STEM + L2),
        ({"stages": ()}, ()),
        ({"unfrozen_tensors": 0}, ()),
        ({"unfrozen_tensors": 2}, L2[1:]),
        ({"unfrozen_tensors": 99}, STEM + L1 + L2),
        ({"norm": "frozen"}, (STEM[0], L1[0], L2[0])),
        ({"norm": "affine", "unfrozen": 1}, L2),
        ({"parameters": "norm", "unfrozen": 1}, L2[1:]),
        ({"parameters": "bias", "unfrozen": 1}, L2[2:]),
        ({"parameters": "bias", "norm": "frozen"}, ()),
    ],
)
def test_which_parameters_open(values: dict[str, object], expected: tuple[str, ...]) -> None:
    assert opening_of(facts(), **values).parameters == expected


@pytest.mark.parametrize(
    "values", [{"unfrozen": "layer9"}, {"unfrozen": 4}, {"unfrozen": "layer"}, {"stages": ("layer1", "head")}]
)
def test_what_does_not_exist_cannot_open(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must .* but got"):
        opening_of(facts(), **values)


@pytest.mark.parametrize(
    ("values", "norms"),
    [
        ({"unfrozen": 1}, ("layer2.0.bn",)),
        ({"unfrozen": 1, "norm": "affine"}, ()),
        ({"unfrozen": 1, "norm": "frozen"}, ()),
        ({"unfrozen": "all", "parameters": "norm"}, ("bn1", "layer1.0.bn", "layer2.0.bn")),
        ({"unfrozen": "all", "parameters": "bias"}, ()),
        ({"unfrozen": "head"}, ()),
    ],
)
def test_which_batch_norms_update_their_statistics(values: dict[str, object], norms: tuple[str, ...]) -> None:
    assert opening_of(facts(), **values).train_norms == norms


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"unfrozen": 1, "lr_multipliers": (("backbone", 0.1),)}, {"head": 1.0, "layer2": 0.1}),
        ({"unfrozen": 2, "lr_multipliers": (("deep", 0.1), ("top", 0.5))}, {"head": 1.0, "layer1": 0.1, "layer2": 0.5}),
        ({"unfrozen": 2, "lr_multipliers": (("deep", 0.1),)}, {"head": 1.0, "layer1": 0.1, "layer2": 1.0}),
        ({"unfrozen": 2, "layer_decay": 0.5}, {"head": 1.0, "layer1": 0.25, "layer2": 0.5}),
        ({"unfrozen": 2, "layer_decay": 0.5, "lr_multipliers": (("head", 2.0),)}, {"head": 2.0, "layer1": 0.25, "layer2": 0.5}),
        (
            {"lr_groups": (("early", ("stem", "layer1")),), "lr_multipliers": (("backbone", 0.5), ("early", 0.1))},
            {"head": 1.0, "conv1": 0.1, "layer1": 0.1, "layer2": 0.5},
        ),
    ],
)
def test_effective_rates(values: dict[str, object], expected: dict[str, float]) -> None:
    rates = opening_of(facts(), **values).rates(dataclasses.replace(BASE, **values))  # type: ignore[arg-type]
    by_stage = {name.split(".")[0]: rate for name, rate in rates.items() if not name.startswith("bn1")}
    assert by_stage == pytest.approx(expected)


# --- the same work has the same key --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spellings",
    [
        [{"unfrozen": "head"}, {"unfrozen": 0}, {"stages": ()}, {"unfrozen_tensors": 0}],
        [{"unfrozen": 1}, {"unfrozen": "layer2"}, {"stages": ("layer2",)}],
        [{"unfrozen": 2}, {"unfrozen": "layer1"}, {"stages": ("layer1", "layer2")}, {"stages": ("layer2", "layer1")}],
        [{"unfrozen": "all"}, {"unfrozen": 3}, {"unfrozen": "stem"}, {"unfrozen": "conv1"}],
        # what has no effect
        [{"unfrozen": "head"}, {"unfrozen": "head", "norm": "frozen"}, {"unfrozen": "head", "layer_decay": 0.5}],
        [{"unfrozen": "head", "lr_multipliers": (("top", 0.5),)}, {"unfrozen": "head", "head_first_epochs": 2}],
        [{}, {"dropout": 0.5}, {"head_activation": "gelu"}],
        [{}, {"momentum": 0.5}, {"lr_gamma": 0.5}, {"lr_step_epochs": 2}, {"augment_views": 3}, {"auxiliary": True}],
        [{"batch_size": 80}, {"batch_size": 81}, {"batch_size": 256}],
        [{"patience": 0}, {"patience": 10}, {"patience": 99}],
        [{"lr_multipliers": ()}, {"lr_multipliers": (("backbone", 1.0),)}, {"lr_multipliers": (("deep", 1.0), ("top", 1.0))}],
        [{"unfrozen": 1, "lr_multipliers": (("backbone", 0.5),)}, {"unfrozen": 1, "lr_multipliers": (("top", 0.5),)}],
        [{"unfrozen": 1, "lr_multipliers": (("deep", factor), ("top", 0.5))} for factor in (0.1, 0.9)],
        [{"unfrozen": 1, "layer_decay": 0.5}, {"unfrozen": 1, "lr_multipliers": (("top", 0.5),)}],
    ],
)
def test_equal_work_has_an_equal_key_however_it_is_written(spellings: list[dict[str, object]]) -> None:
    assert len({key(facts(), **values) for values in spellings}) == 1


def test_different_work_has_different_keys() -> None:
    different: list[dict[str, object]] = [
        *({"unfrozen": value} for value in ("head", 1, 2, "all", "layer1.0.bn")),
        *({"norm": value, "unfrozen": 2} for value in ("frozen", "affine")),
        *({"parameters": value, "unfrozen": 2} for value in ("bias", "norm")),
        *({"stages": value} for value in (("layer1",), ("stem", "layer2"))),
        *({"head_widths": (8,), "dropout": value} for value in (0.0, 0.5)),
        *({"head_widths": (8,), "head_activation": value} for value in ("gelu", "none")),
        *({"optimizer": "sgd", "momentum": value} for value in (0.9, 0.5)),
        *({"unfrozen": 2, "lr_multipliers": (("deep", value),)} for value in (0.1, 0.5)),
        *(
            {name: 0.25}
            for name in ("input_dropout", "lr", "weight_decay", "label_smoothing", "hue", "grayscale", "crop_scale")
        ),
        *({"seed": 1}, {"seed": 2}, {"batch_size": 8}, {"batch_size": 79}, {"epochs": 11}, {"precision": "bf16"}),
        {"head_first_epochs": 2},
    ]
    assert len({key(facts(), **values) for values in different}) == len(different)


def test_the_key_knows_weights_data_and_numerics() -> None:
    known = facts()
    others = dataclasses.replace(known, data=dataclasses.replace(known.data, fingerprint="e" * 64))
    processor = dataclasses.replace(known, processor=Processor(native_bf16=True))
    assert len({BASE.key(one) for one in (known, facts(weights_sha256="1" * 64), others, processor)}) == 4


NORM_SETTINGS = [
    {"norm": norm, "parameters": parameters} for norm in ("stats", "affine", "frozen") for parameters in ("all", "bias", "norm")
]


@pytest.mark.parametrize("norms", ["batch", "layer", ""])
@pytest.mark.parametrize("bias", [False, True])
def test_keys_are_equal_only_where_the_same_parameters_train(norms: str, bias: bool) -> None:
    known = facts(norms, bias)
    for unfrozen in ("head", 1, "all"):
        trained: dict[str, tuple[object, ...]] = {}
        for values in NORM_SETTINGS:
            opening = opening_of(known, unfrozen=unfrozen, **values)
            what = (opening.parameters, opening.train_norms)
            assert trained.setdefault(key(known, unfrozen=unfrozen, **values), what) == what, (unfrozen, values)


@pytest.mark.parametrize("norms", ["batch", "layer", ""])
def test_the_canonical_recipe_is_the_same_work(norms: str) -> None:
    known = facts(norms)
    backbone = known.backbones[BASE.architecture()]
    for unfrozen, values in itertools.product(("head", 1, "all"), NORM_SETTINGS):
        recipe = dataclasses.replace(BASE, weights="IMAGENET1K_V1", unfrozen=unfrozen, **values)  # type: ignore[arg-type]
        known.backbones[recipe.architecture()] = backbone  # type: ignore[index]
        before, after = open_parameters(recipe, backbone), open_parameters(recipe.canonical(known), backbone)
        assert (before.parameters, before.train_norms) == (after.parameters, after.train_norms), (unfrozen, values)


def test_canonical_drops_what_has_no_effect_and_clips_what_cannot_be() -> None:
    recipe = Recipe(
        "torchvision/small", unfrozen=3, dropout=0.5, momentum=0.5, batch_size=256, patience=20, lr_multipliers=(("top", 0.5), ("x", 2.0))
    )  # fmt: skip
    canonical = recipe.canonical(facts())
    assert canonical == Recipe(
        "torchvision/small", weights="IMAGENET1K_V1", unfrozen="all", batch_size=80, lr_multipliers=(("top", 0.5),)
    )
    known = facts()
    known.backbones[canonical.architecture()] = known.backbones[BASE.architecture()]  # type: ignore[index]
    assert canonical.canonical(known) == canonical


def test_unknown_architectures_are_a_key_error() -> None:
    with pytest.raises(KeyError):
        Recipe("timm/other").key(facts())


# --- JSON ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        Recipe("timm/x", edits=(("conv1.stride", (1, 2)),), head_widths=(256, 128), stages=("a", "b")),
        Recipe("timm/x", lr_groups=(("early", ("a", "b")),), lr_multipliers=(("early", 0.1),), unfrozen=3),
        DataSettings("folder:x", split=(("train", 2), ("val", 3)), folders=(("train", "a"),)),
    ],
)
def test_settings_survive_json(settings: Recipe | DataSettings) -> None:
    again = type(settings).from_json(json.loads(json.dumps(settings.to_json())))
    assert again == settings and hash(again) == hash(settings)


def test_facts_survive_json_and_give_the_same_keys() -> None:
    known = dataclasses.replace(facts(notes=("read me",)), processor=Processor("cuda", "a card", True))
    again = SpaceFacts.from_json(json.loads(json.dumps(known.to_json())))
    assert again == known
    assert BASE.key(again) == BASE.key(known)


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError):
        Recipe.from_json({"backbone": "timm/x", "droput": 0.5})
