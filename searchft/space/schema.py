"""What one value of each key may be: tables of pydantic types, whose description is the rule that messages state.

The tables hold the type of a single value; that a recipe value may be a set of choices is `choices.py`'s business, which
puts each choice through the field's own check. Everything is strict: true is not 1, "0.5" is not 0.5.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field, Strict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from searchft.recipe import DataSettings, Recipe
from searchft.space.settings import SearchSettings
from searchft.space.strategies import STRATEGIES
from searchft.space.wording import did_you_mean, listed, near, shown

MAX_SEED = 2**32 - 1
"""numpy's and torch's generators both take it."""
LARGEST = 65_536
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"
RESERVED_GROUPS = ("head", "backbone", "top", "deep")
"""Learning-rate groups that exist by themselves."""


# --- the kinds of values -------------------------------------------------------------------------------------------


def _whole(low: int, high: int) -> Any:
    rule = f"must be a whole number from {low} to {high}"
    return Annotated[int, Strict(), Field(ge=low, le=high, description=rule)]


def _real(rule: str, **limits: Any) -> Any:
    return Annotated[float, Strict(), Field(description=rule, allow_inf_nan=False, **limits)]


def _text(rule: str, pattern: str) -> Any:
    def matches(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(rule)
        return value

    return Annotated[str, Strict(), AfterValidator(matches), Field(description=rule)]


def _custom(rule: str, read: Any) -> Any:
    """A value read by a function that raises ValueError: with a rule of its own, or with none for the general one."""
    return Annotated[Any, BeforeValidator(read), Field(description=rule)]


Share = _real("must lie in [0, 1)", ge=0, lt=1)
Probability = _real("must lie in [0, 1]", ge=0, le=1)
Factor = _real("must lie in (0, 1]", gt=0, le=1)
Seed = _whole(0, MAX_SEED)
Switch = Annotated[bool, Strict(), Field(description="must be true or false")]
Multiplier = _real("must lie in (0, 1000]", gt=0, le=1000)


def _read_backbone(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(
        r"((torchvision|searchft)/[A-Za-z0-9_]+|timm/[A-Za-z0-9_][A-Za-z0-9_.\-]*|python:.+\.py:[A-Za-z_][A-Za-z0-9_]*)", value
    ):
        raise ValueError
    return value


WEIGHT_WORDS = ("pretrained", "package", "none")


def _read_weights(value: Any) -> str:
    if isinstance(value, str):
        if value in WEIGHT_WORDS or re.fullmatch(r"file:.*\S", value):
            return value
        if re.fullmatch(r"[A-Z][A-Z0-9_]*", value) and value.lower() not in WEIGHT_WORDS:
            return value
    raise ValueError


def _read_fallback(value: Any) -> str:
    return "" if value == "" else _read_weights(value)


def _read_unfrozen(value: Any) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError
    if isinstance(value, int):
        if not 0 <= value <= 1000:
            raise ValueError
        return value or "head"  # 0 is `head` in other words; one spelling, so that a list cannot hold both
    if not re.fullmatch(NAME, value) or (value.lower() in ("head", "all") and value not in ("head", "all")):
        raise ValueError
    return value


def _read_widths(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or len(value) > 8:
        raise ValueError
    if any(isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= LARGEST for width in value):
        raise ValueError
    return tuple(value)


def _read_stages(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or any(not isinstance(s, str) or not re.fullmatch(NAME, s) for s in value):
        raise ValueError
    if len(set(value)) != len(value):
        raise ValueError("must name each stage once")
    return tuple(sorted(value))  # a set: its order says nothing


STRUCTURAL = ("keep", "append", "replace")
"""Edits that change which modules there are: MODULE.keep: n, MODULE.append: [layers], MODULE.replace: layer."""

LAYERS = (
    *("Conv2d", "Linear", "BatchNorm2d", "GroupNorm", "LayerNorm", "ReLU", "GELU", "SiLU", "Sigmoid", "Tanh", "Softmax"),
    *("LogSoftmax", "MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "Dropout", "Dropout2d", "Flatten"),
    "Identity",
)
"""Classes of torch.nn that `append` and `replace` build, with plain arguments: a vocabulary, not a language."""


def _read_edits(value: Any) -> tuple[tuple[str, Any], ...]:
    if not isinstance(value, Mapping):
        raise ValueError
    found: dict[str, Any] = {}
    for name, new in value.items():
        if "/" in name or name.startswith("python:"):
            try:
                backbone = _read_backbone(name)
            except ValueError:
                raise ValueError(f"must name a backbone before edits of its own, as {shown(name)} does not,") from None
            if not isinstance(new, Mapping) or any("/" in inner for inner in new):
                raise ValueError(f"must give {name} a mapping of edits, e.g. {{features.keep: 6}},")
            found[backbone] = _read_edits(new)
        else:
            found[name] = _read_edit(name, new)
    return tuple(sorted(found.items()))


def _read_edit(name: str, new: Any) -> Any:
    if not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)+", name):
        raise ValueError(f"must name module.attribute, e.g. conv1.stride, as {shown(name)} does not,")
    attribute = name.rpartition(".")[2]
    if attribute.startswith("_"):
        raise ValueError(f"must not edit private attributes such as {shown(name)}")
    if attribute == "keep":
        if isinstance(new, bool) or not isinstance(new, int) or not 1 <= new <= 10_000:
            raise ValueError(f"must give {name} a whole number of modules to keep, at least 1,")
        return new
    if attribute == "replace":
        return _read_layer(name, new)
    if attribute == "append":
        layers = new if isinstance(new, list | tuple) else [new]
        if not layers or len(layers) > 100:
            raise ValueError(f"must give {name} 1 to 100 layers")
        return tuple(_read_layer(name, layer) for layer in layers)
    items = new if isinstance(new, list | tuple) else [new]
    if any(item is None or isinstance(item, list | tuple | Mapping) for item in items):
        raise ValueError(f"must give {name} a number, a text, true, false, or a list of those")
    return tuple(new) if isinstance(new, list) else new


def _read_layer(name: str, value: Any) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """`ReLU` or `{Conv2d: {in_channels: 3, …}}` as (class, arguments)."""
    kind: Any = value if isinstance(value, str) else None
    arguments: Any = {}
    if isinstance(value, Mapping) and len(value) == 1:
        kind, arguments = next(iter(value.items()))
        arguments = {} if arguments is None else arguments
    if kind is None or not isinstance(arguments, Mapping):
        raise ValueError(f"must give {name} layers such as ReLU or {{Conv2d: {{in_channels: 64, …}}}}")
    if kind not in LAYERS:
        raise ValueError(f"must build {name} of {listed(LAYERS)}, not {shown(kind)}{did_you_mean(str(kind), LAYERS)},")
    read: dict[str, Any] = {}
    for key, new in arguments.items():
        items = new if isinstance(new, list | tuple) else [new]
        if not re.fullmatch(r"[a-z][a-z_0-9]*", key) or key in ("device", "dtype"):
            raise ValueError(f"must give {kind} plain arguments of its own, not {shown(key)},")
        if any(item is None or isinstance(item, list | tuple | Mapping) for item in items):
            raise ValueError(f"must give {kind}.{key} a number, a text, true, false, or a list of those")
        read[key] = tuple(new) if isinstance(new, list) else new
    return kind, tuple(sorted(read.items()))


def _read_groups(value: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not isinstance(value, Mapping) or not value:
        raise ValueError
    owner: dict[str, str] = {}
    for group, stages in value.items():
        if group in RESERVED_GROUPS or group == "choices":
            raise ValueError(f"must not name a group {group}, which has a meaning of its own,")
        if not re.fullmatch(r"[A-Za-z0-9_]+", group):
            raise ValueError(f"must name groups with letters, digits and _, as {shown(group)} does not,")
        if not isinstance(stages, list | tuple) or not stages or any(not isinstance(s, str) for s in stages):
            raise ValueError(f"must give group {group} a list of stages")
        for stage in stages:
            if stage in owner:
                raise ValueError(f"must put each stage into one group, and {stage} once,")
            owner[stage] = group
    return tuple(sorted((group, tuple(sorted(stages))) for group, stages in value.items()))


def _read_source(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"orl_faces|fashion_mnist|(folder|csv):.*\S|torchvision:[A-Za-z0-9_]+", value):
        return value
    raise ValueError


def _read_store_size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not (value == 0 or 8 <= value <= 4096):
        raise ValueError
    return value


def _read_labels(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return "" if value == "none" else value


Weights = _custom(
    "must be pretrained, package, none, file:PATH or the name of a torchvision weights entry such as IMAGENET1K_V1",
    _read_weights,
)
Fallback = _custom(
    "must be pretrained, package, none, file:PATH or the name of a torchvision weights entry such as IMAGENET1K_V1",
    _read_fallback,
)


# --- the sections --------------------------------------------------------------------------------------------------


RECIPE_VALUES: Mapping[str, Any] = {
    "strategy": Literal["head", "full", "partial", "scratch", "bias", "norm", "tinytl"],
    "backbone": _custom("must be torchvision/NAME, timm/NAME, searchft/NAME or python:FILE.py:NAME", _read_backbone),
    "weights": Weights,
    "weights_fallback": Fallback,
    "edits": _custom(
        "must map module.attribute to a value, e.g. {conv1.stride: 1}, or be a list of such mappings", _read_edits
    ),
    "head_replaces": Literal["last", "classifier"],
    "normalisation": Literal["weights", "none"],
    "unfrozen": _custom(
        "must be head, all, a count of stages from the end (0 to 1000), or the name of a stage or module", _read_unfrozen
    ),
    "stages": _custom("must be a list of stage names, e.g. [layer3, layer4], or a list of such lists", _read_stages),
    "unfrozen_tensors": _whole(0, 1_000_000),
    "parameters": Literal["all", "bias", "norm"],
    "norm": Literal["frozen", "affine", "stats", "running"],
    "adapters": Literal["none", "lite_residual"],
    "head_widths": _custom(
        f"must be a list of at most 8 widths (whole numbers from 1 to {LARGEST}), e.g. [256, 128], or a list of such lists",
        _read_widths,
    ),
    "head_activation": Literal["relu", "gelu", "none"],
    "dropout": Share,
    "input_dropout": Share,
    "optimizer": Literal["sgd", "adam", "adamw"],
    "lr": _real("must lie in (0, 100]", gt=0, le=100),
    "lr_groups": _custom("must map group names to lists of stages, e.g. {early: [layer1, layer2]}", _read_groups),
    "layer_decay": Factor,
    "momentum": Share,
    "weight_decay": _real("must lie in [0, 10]", ge=0, le=10),
    "schedule": Literal["constant", "cosine", "exponential", "step"],
    "lr_gamma": Factor,
    "lr_step_epochs": _whole(1, 10_000),
    "warmup_epochs": _real("must lie in [0, 10000]", ge=0, le=10_000),
    "batch_size": _whole(1, LARGEST),
    "epochs": _whole(1, 10_000),
    "head_first_epochs": _whole(0, 10_000),
    "label_smoothing": Share,
    "class_weights": Literal["none", "balanced"],
    "clip_norm": _real("must lie in [0, 1000000] (0: no clipping)", ge=0, le=1_000_000),
    "patience": _whole(0, 10_000),
    "validate_every": _whole(0, 1_000_000),
    "auxiliary": Switch,
    "final_softmax": Switch,
    "horizontal_flip": Probability,
    "rotation": _real("must lie in [0, 180] degrees", ge=0, le=180),
    "brightness": Probability,
    "contrast": Probability,
    "saturation": Probability,
    "hue": _real("must lie in [0, 0.5]", ge=0, le=0.5),
    "grayscale": Probability,
    "crop_scale": Factor,
    "augment_views": _whole(0, 1000),
    "precision": Literal["auto", "fp32", "bf16"],
    "seed": Seed,
    "lr_multipliers": Multiplier,
}
"""One value of each key under `recipe:`; the defaults are Recipe's own."""

DATA_VALUES: Mapping[str, Any] = {
    "source": _custom("must be folder:PATH, csv:PATH, torchvision:NAME, orl_faces or fashion_mnist", _read_source),
    "image_size": _whole(8, 4096),
    "resize": Literal["squash", "crop", "pad"],
    "store_size": _custom("must be 0 (the image size) or a whole number from 8 to 4096", _read_store_size),
    "interpolation": Literal["bilinear", "bicubic", "lanczos", "nearest"],
    "max_unreadable": Probability,
    "labels": _custom("must be the path of a JSON file, or none", _read_labels),
    "root": _text("must be the path of a folder", r"(?s).*\S.*"),
    "split_seed": Seed,
    "folder": _text("must be the name of a sub-folder", r"(?s).*\S.*"),
}
"""One value of each key under `data:` (`split` and `folders` are mappings read by `sections.py`)."""

SEARCH_VALUES: Mapping[str, Any] = {
    "sampler": Literal["tpe", "random", "grid"],
    "pruner": Literal["none", "median", "percentile", "asha", "hyperband", "patient"],
    "trials": _whole(1, 1_000_000),
    "seed": Seed,
    "timeout": _real("must be 0 (no limit) or more seconds, at most 31536000", ge=0, le=31_536_000),
    "max_retries": _whole(0, 100),
    "keep_checkpoints": _whole(1, 10_000),
    "startup_trials": _whole(0, 100_000),
    "prune_startup_trials": _whole(0, 100_000),
    "prune_warmup_epochs": _whole(0, 10_000),
    "prune_percentile": _real("must lie in (0, 100)", gt=0, lt=100),
    "prune_patience": _whole(1, 10_000),
    "reduction_factor": _whole(2, 100),
    "min_epochs": _whole(1, 10_000),
}
"""One value of each key under `search:` (`enqueue` is read by `enqueue.py`)."""

STUDY_VALUES: Mapping[str, Any] = {
    "study": _text(
        "must be a name of at most 100 letters, digits, '.', '_', '-' or '@' that begins with a letter, a digit or '_'",
        r"[A-Za-z0-9_][A-Za-z0-9._@\-]{0,99}",
    ),
    "name": _text("must be a text of at most 100 characters", r"(?=.{1,100}\Z).*\S.*"),
}
"""Names: a study's is a folder's too."""


SECTIONS: Mapping[str, Mapping[str, Any]] = {
    "": STUDY_VALUES,
    "data": DATA_VALUES,
    "recipe": RECIPE_VALUES,
    "search": SEARCH_VALUES,
}
DATA_KEYS = ("source", "split", "folders", *(n for n in DATA_VALUES if n not in ("source", "split_seed", "folder")))
RECIPE_KEYS = tuple(RECIPE_VALUES)
SEARCH_KEYS = (*SEARCH_VALUES, "enqueue")
TOP_KEYS = ("study", "data", "recipe", "search")
ELSEWHERE = {
    **{name: "under data" for name in DATA_KEYS},
    **{name: "under recipe" for name in RECIPE_KEYS if name != "seed"},
    **{name: "under search" for name in SEARCH_KEYS if name != "seed"},
    "split_seed": "in data.split as seed",
}
"""Keys that are right in one place: what to say where they stand in another."""
OTHER_WORDS = {
    **dict.fromkeys(("validation", "valid", "dev"), "val"),
    **dict.fromkeys(("training",), "train"),
    **dict.fromkeys(("learning_rate", "rate"), "lr"),
    **dict.fromkeys(("bs", "batch"), "batch_size"),
    **dict.fromkeys(("num_epochs", "n_epochs", "max_epochs"), "epochs"),
    **dict.fromkeys(("n_trials", "num_trials", "max_trials"), "trials"),
    **dict.fromkeys(("model", "arch", "architecture", "network"), "backbone"),
    **dict.fromkeys(("pretrained", "checkpoint"), "weights"),
    **dict.fromkeys(("freeze", "frozen", "unfreeze", "trainable"), "unfrozen"),
    **dict.fromkeys(("hidden", "hidden_units", "hidden_layers", "head", "fc"), "head_widths"),
    **dict.fromkeys(("activation",), "head_activation"),
    **dict.fromkeys(("scheduler", "lr_scheduler", "lr_schedule"), "schedule"),
    **dict.fromkeys(("wd", "l2"), "weight_decay"),
    **dict.fromkeys(("early_stopping",), "patience"),
    **dict.fromkeys(("augment", "augmentation", "flip", "hflip"), "horizontal_flip"),
    **dict.fromkeys(("img_size", "input_size", "resolution"), "image_size"),
    **dict.fromkeys(("dataset", "path", "folder"), "source"),
    **dict.fromkeys(("experiments", "baselines", "configs"), "enqueue"),
    **dict.fromkeys(("name", "study_name"), "study"),
}
"""What other programs call our keys. Taken for a near miss only where no key here is nearer."""
NESTED_KEYS = ("lr_multipliers", "lr_groups", "edits", "split", "folders")
"""Keys that hold a mapping of the user's own names."""


# --- the check -----------------------------------------------------------------------------------------------------


@functools.cache
def _checker(section: str, name: str) -> tuple[TypeAdapter[Any], str, tuple[str, ...]]:
    kind = SECTIONS[section][name]
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    members = get_args(kind) if get_origin(kind) is Literal else ()
    rule = f"must be one of {listed(members)}" if members else (FieldInfo.from_annotation(kind).description or "")
    return adapter, rule, members


def check(section: str, name: str, value: Any) -> tuple[Any, str]:
    """(value in Recipe's form, "") of one value, or (None, the rule it breaks, the value, and what to do)."""
    adapter, rule, members = _checker(section, name)
    try:
        return adapter.validate_python(value), ""
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":
            rule = str(first.get("ctx", {}).get("error", "")) or rule
    got = "got no value" if value is None else f"got {shown(value)}"
    return None, f"{rule} but {got}{_advice(section, name, value, rule, members)}"


def _advice(section: str, name: str, value: Any, rule: str, members: tuple[str, ...]) -> str:
    """What to do about a value, where it can be told."""
    words = members or (WEIGHT_WORDS if name.startswith("weights") else ("head", "all") if name == "unfrozen" else ())
    if value is None:
        return ": write the word none" if "none" in words else ": write a value, or remove the key"
    if isinstance(value, bool) and words:
        return ": write the word none" if "none" in words and value is False else ""
    if isinstance(value, str):
        if value.lower() in ("off", "no", "false", "null", "~", "never", "without") and "none" in words:
            return ": write the word none"
        if words:
            meant = near(value, words)
            return f", did you mean {meant!r}?" if meant else ""
        if name == "source":
            hint = did_you_mean(value.partition(":")[0], ("orl_faces", "fashion_mnist", "folder:PATH", "csv:PATH"))
            return hint or (f": write folder:{value[:60]} for a folder of images" if ":" not in value and value.strip() else "")
        if name == "backbone":
            bare = re.fullmatch(r"[A-Za-z0-9_.]+", value)
            name = value[:60]
            return f": write torchvision/{name} or timm/{name} (`searchft models {name}` says which exist)" if bare else ""
        if rule == "must be true or false":
            plain = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(value.lower(), value.lower())
            return f": write {plain}, without quotes" if plain in ("true", "false") else ""
        if name in ("head_widths",) or "lie in" in rule or "whole number" in rule:
            return ": write the number without quotes" if _is_number(value) else ""
    if name == "source":
        return ""
    if isinstance(value, float) and value.is_integer() and "whole number" in rule and abs(value) < 1e15:
        return f": write {int(value)}"
    if name in ("head_widths", "stages") and isinstance(value, int | str) and not isinstance(value, bool):
        return f": write [{value}]"
    if isinstance(value, int | float) and not isinstance(value, bool) and ("a name" in rule or "a text" in rule):
        return f": write '{value}', in quotes"
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def default_of(field: str) -> Any:
    """Recipe's own value of a field that a space does not give."""
    return Recipe.__dataclass_fields__[field].default


# A key added to Recipe, DataSettings or SearchSettings and forgotten here would be refused as unknown: say so at import.
_RECIPE_FIELDS = {f.name for f in dataclasses.fields(Recipe)}
assert set(RECIPE_KEYS) == _RECIPE_FIELDS | {"strategy"}, set(RECIPE_KEYS) ^ _RECIPE_FIELDS
assert {f.name for f in dataclasses.fields(DataSettings)} == {*DATA_KEYS, "split_seed"}
assert {f.name for f in dataclasses.fields(SearchSettings)} == {*SEARCH_KEYS} - {"enqueue", "timeout"} | {"timeout_s"}
assert get_args(RECIPE_VALUES["strategy"]) == tuple(STRATEGIES)
