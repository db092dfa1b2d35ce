"""What one value may be: each kind states its rule and a JSON schema, which is what reads a value too.

Everything is strict: true is not 1, "0.5" is not 0.5. Pydantic would replace `fits` alone: rules, advice, labels, edits and groups would
stay. That a value may be a set of choices is not known here: each choice is put through its field's kind.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from searchft.wording import did_you_mean, listed, shown

NAME = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"
NUMBER_LIMIT = 65_536
RESERVED_GROUPS = ("head", "backbone", "top", "deep")  # Learning-rate groups that exist by themselves
SPLITS = ("train", "val", "test")

Label = str | int | float | bool | None

_TYPES: Mapping[str, Any] = {
    **{"integer": int, "number": int | float, "string": str, "boolean": bool},
    **{"array": list | tuple, "object": Mapping},
}
_KEYWORDS: Mapping[str, Callable[[Any, Any], bool]] = {
    "type": lambda name, value: isinstance(value, _TYPES[name]) and isinstance(value, bool) == (name == "boolean"),
    "enum": lambda words, value: value in words,
    "minimum": operator.le,
    "maximum": operator.ge,
    "exclusiveMinimum": operator.lt,
    "exclusiveMaximum": operator.gt,
    "pattern": lambda pattern, value: re.fullmatch(pattern, value) is not None,
    "items": lambda schema, value: all(fits(schema, item) for item in value),
    "maxItems": lambda most, value: len(value) <= most,
    "minProperties": lambda least, value: len(value) >= least,
    "anyOf": lambda schemas, value: any(fits(schema, value) for schema in schemas),
}


def fits(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether a value fits a schema, its `type` first; keywords not in `_KEYWORDS` are for editors."""
    return all(_KEYWORDS[keyword](limit, value) for keyword, limit in schema.items() if keyword in _KEYWORDS)


@dataclass(frozen=True)
class Kind:
    """What one value of a field may be."""

    rule: str  # `must lie in [0, 1)`: what a message says before `but got`
    schema: Mapping[str, Any]  # JSON schema of one value
    form: Callable[[Any], Any] = lambda value: value  # A value that fits the schema in Recipe's form. Raises as `read`
    words: tuple[str, ...] = ()  # Words that a value may be: what a misspelt one is compared with
    shape: str = "scalar"
    """How one value is written: `scalar`, `list`, `mapping`, or `groups`: a mapping whose values are choices each."""
    label: Callable[[Any], Label] = lambda value: value
    """What a study shows for a value in Recipe's form; distinct for distinct values."""
    advise: Callable[[Any], str] = lambda value: ""  # What to do about a wrong value, where it can be told

    def read(self, value: Any) -> Any:
        """The value in Recipe's form. Raises ValueError: with a rule of its own, or with none for `rule`."""
        if not fits(self.schema, value):
            raise ValueError
        return self.form(value)


def whole(low: int, high: int, or_zero: str = "") -> Kind:
    """A whole number from `low` to `high`; or 0, whose meaning `or_zero` says."""
    rule, limits = f"a whole number from {low} to {high}", {"minimum": low, "maximum": high}
    if or_zero:
        return Kind(f"must be 0 ({or_zero}) or {rule}", {"type": "integer", "anyOf": [{"enum": [0]}, limits]})
    return Kind(f"must be {rule}", {"type": "integer", **limits})


def real(low: float, high: float, *, open_low: bool = False, open_high: bool = False, unit: str = "", rule: str = "") -> Kind:
    """A number in an interval, whose ends must be finite: JSON has no infinity."""
    assert math.isfinite(low) and math.isfinite(high)
    interval = f"{'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}{unit and ' ' + unit}"
    limits = {"exclusiveMinimum" if open_low else "minimum": low, "exclusiveMaximum" if open_high else "maximum": high}
    return Kind(rule or f"must lie in {interval}", {"type": "number", **limits}, float)


def word(*words: str) -> Kind:
    """One of some words."""
    return Kind(f"must be one of {listed(words)}", {"enum": list(words)}, words=words)


def text(rule: str, pattern: str, **more: Any) -> Kind:
    """A text that fits a regular expression."""
    return Kind(rule, {"type": "string", "pattern": f"^(?:{pattern})$"}, **more)


def _advise_switch(value: Any) -> str:
    words = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}
    meant = words.get(value.lower()) if isinstance(value, str) else None
    return f": write {meant}, without quotes" if meant else ""


SWITCH = Kind("must be true or false", {"type": "boolean"}, advise=_advise_switch)
SHARE = real(0, 1, open_high=True)
PROBABILITY = real(0, 1)
FACTOR = real(0, 1, open_low=True)
SEED = whole(0, 2**32 - 1)  # numpy's and torch's generators both take it


# --- networks ------------------------------------------------------------------------------------------------------

_BACKBONE = r"(?:torchvision|searchft)/[A-Za-z0-9_]+|timm/[A-Za-z0-9_][A-Za-z0-9_.\-]*|python:.+\.py:[A-Za-z_][A-Za-z0-9_]*"
_WEIGHT_WORDS = ("pretrained", "package", "none")
_ENTRY = r"(?!(?:PRETRAINED|PACKAGE|NONE)$)[A-Z][A-Z0-9_]*"
_WEIGHTS = rf"pretrained|package|none|file:.*\S|{_ENTRY}"
_WEIGHTS_RULE = "must be pretrained, package, none, file:PATH or the name of a torchvision weights entry such as IMAGENET1K_V1"
_NAMES: Mapping[str, Any] = {"type": "array", "items": {"type": "string", "pattern": f"^{NAME}$"}}


def _advise_backbone(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.]+", value):
        return ""
    name = value[:60]
    return f": write torchvision/{name} or timm/{name} (`searchft models {name}` says which exist)"


def _form_unfrozen(value: str | int) -> str | int:
    if isinstance(value, str) and value.lower() in ("head", "all") and value != value.lower():
        raise ValueError
    return value or "head"  # 0 is `head` in other words; one spelling, so that a list cannot hold both


def _form_stages(value: Any) -> tuple[str, ...]:
    if len(set(value)) != len(value):
        raise ValueError("must name each stage once")
    return tuple(sorted(value))  # a set: its order says nothing


def _in_brackets(value: Any) -> str:
    return f": write [{value}]" if isinstance(value, int | str) and not isinstance(value, bool) else ""


BACKBONE = text("must be torchvision/NAME, timm/NAME, searchft/NAME or python:FILE.py:NAME", _BACKBONE, advise=_advise_backbone)
WEIGHTS = text(_WEIGHTS_RULE, _WEIGHTS, words=_WEIGHT_WORDS)
FALLBACK = text(_WEIGHTS_RULE, rf"(?:{_WEIGHTS})?", words=_WEIGHT_WORDS)
UNFROZEN = Kind(
    "must be head, all, a count of stages from the end (0 to 1000), or the name of a stage or module",
    {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 1000}, _NAMES["items"]]},
    _form_unfrozen,
    words=("head", "all"),
)
STAGES = Kind(
    "must be a list of stage names, e.g. [layer3, layer4], or a list of such lists",
    {**_NAMES, "uniqueItems": True},
    _form_stages,
    shape="list",
    label=lambda value: "+".join(value) or "none",
    advise=_in_brackets,
)
WIDTHS = Kind(
    f"must be a list of at most 8 widths (whole numbers from 1 to {NUMBER_LIMIT}), e.g. [256, 128], or a list of such lists",
    {"type": "array", "items": whole(1, NUMBER_LIMIT).schema, "maxItems": 8},
    tuple,
    shape="list",
    label=lambda value: "+".join(map(str, value)) or "linear",
    advise=_in_brackets,
)

LAYERS = (
    *("Conv2d", "Linear", "BatchNorm2d", "GroupNorm", "LayerNorm", "ReLU", "GELU", "SiLU", "Sigmoid", "Tanh", "Softmax"),
    *("LogSoftmax", "MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "Dropout", "Dropout2d", "Flatten"),
    "Identity",
)
"""Classes of torch.nn that `append` and `replace` build, with plain arguments: a vocabulary, not a language."""


def _form_edits(value: Any) -> tuple[tuple[str, Any], ...]:
    found: dict[str, Any] = {}
    for name, new in value.items():
        if "/" not in name and not name.startswith("python:"):
            found[name] = _read_edit(name, new)
        elif not re.fullmatch(_BACKBONE, name):
            raise ValueError(f"must name a backbone before edits of its own, as {shown(name)} does not,")
        elif not isinstance(new, Mapping) or any("/" in inner for inner in new):
            raise ValueError(f"must give {name} a mapping of edits, e.g. {{features.keep: 6}},")
        else:
            found[name] = _form_edits(new)
    return tuple(sorted(found.items()))


def _read_edit(name: str, new: Any) -> Any:
    if not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)+", name):
        raise ValueError(f"must name module.attribute, e.g. conv1.stride, as {shown(name)} does not,")
    attribute = name.rpartition(".")[2]
    if attribute.startswith("_"):
        raise ValueError(f"must not edit private attributes such as {shown(name)}")
    if attribute == "keep":
        if not fits(whole(1, 10_000).schema, new):
            raise ValueError(f"must give {name} a whole number of modules to keep, at least 1,")
        return new
    if attribute == "replace":
        return _read_layer(name, new)
    if attribute == "append":
        layers = new if isinstance(new, list | tuple) else [new]
        if not 1 <= len(layers) <= 100:
            raise ValueError(f"must give {name} 1 to 100 layers")
        return tuple(_read_layer(name, layer) for layer in layers)
    return _read_plain(name, new)


def _read_plain(name: str, new: Any) -> Any:
    items = new if isinstance(new, list | tuple) else [new]
    if any(item is None or isinstance(item, list | tuple | Mapping) for item in items):
        raise ValueError(f"must give {name} a number, a text, true, false, or a list of those")
    return tuple(new) if isinstance(new, list) else new


def _read_layer(name: str, value: Any) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """`ReLU` or `{Conv2d: {in_channels: 3, …}}` as (class, arguments)."""
    kind, arguments = next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else (value, None)
    arguments = {} if arguments is None else arguments
    if not isinstance(kind, str) or not isinstance(arguments, Mapping):
        raise ValueError(f"must give {name} layers such as ReLU or {{Conv2d: {{in_channels: 64, …}}}}")
    if kind not in LAYERS:
        raise ValueError(f"must build {name} of {listed(LAYERS)}, not {shown(kind)}{did_you_mean(kind, LAYERS)},")
    for key in arguments:
        if not re.fullmatch(r"[a-z][a-z_0-9]*", key) or key in ("device", "dtype"):
            raise ValueError(f"must give {kind} plain arguments of its own, not {shown(key)},")
    return kind, tuple(sorted((key, _read_plain(f"{kind}.{key}", new)) for key, new in arguments.items()))


def _label_edits(value: Any) -> str:
    def text(new: Any) -> str:
        # JSON keeps the number 1 and the text "1" apart, which labels must.
        bare = isinstance(new, str) and re.fullmatch(r"[A-Za-z_]\w*", new) and new not in ("true", "false")
        return str(new) if bare else json.dumps(new, ensure_ascii=False, separators=(",", ":"))

    return ", ".join(f"{key}={text(new)}" for key, new in value) or "none"


def _form_groups(value: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    owner: dict[str, str] = {}
    for group, stages in value.items():
        if group in RESERVED_GROUPS or group == "choices":
            raise ValueError(f"must not name a group {group}, which has a meaning of its own,")
        if not re.fullmatch(r"[A-Za-z0-9_]+", group):
            raise ValueError(f"must name groups with letters, digits and _, as {shown(group)} does not,")
        if not stages or not fits(_STAGES_OF_A_GROUP, stages):
            raise ValueError(f"must give group {group} a list of stages")
        for stage in stages:
            if stage in owner:
                raise ValueError(f"must put each stage into one group, and {stage} once,")
            owner[stage] = group
    return tuple(sorted((group, tuple(sorted(stages))) for group, stages in value.items()))


_STAGES_OF_A_GROUP: Mapping[str, Any] = {"type": "array", "items": {"type": "string"}, "minItems": 1}
EDITS = Kind(
    "must map module.attribute to a value, e.g. {conv1.stride: 1}, or be a list of such mappings",
    {"type": "object", "propertyNames": {"pattern": rf"^(?:\w+(?:\.\w+)+|{_BACKBONE})$"}, "not": {"required": ["choices"]}},
    _form_edits,
    shape="mapping",
    label=_label_edits,
)
LR_GROUPS = Kind(
    "must map group names to lists of stages, e.g. {early: [layer1, layer2]}",
    {
        "type": "object",
        "propertyNames": {"pattern": r"^\w+$", "not": {"enum": [*RESERVED_GROUPS, "choices"]}},
        "additionalProperties": _STAGES_OF_A_GROUP,
        "minProperties": 1,
    },
    _form_groups,
    shape="mapping",
    label=lambda value: ", ".join(f"{group}={'+'.join(stages)}" for group, stages in value),
)
LR_MULTIPLIERS = replace(real(0, 1000, open_low=True), shape="groups")


# --- data ----------------------------------------------------------------------------------------------------------


def _advise_source(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    hint = did_you_mean(value.partition(":")[0], ("orl_faces", "fashion_mnist", "folder:PATH", "csv:PATH"))
    return hint or (f": write folder:{value[:60]} for a folder of images" if ":" not in value and value.strip() else "")


SOURCE = text(
    "must be folder:PATH, csv:PATH, torchvision:NAME, orl_faces or fashion_mnist",
    r"orl_faces|fashion_mnist|(?:folder|csv):.*\S|torchvision:[A-Za-z0-9_]+",
    advise=_advise_source,
)
FOLDER = text("must be the name of a sub-folder", r"[\s\S]*\S[\s\S]*")
PATH = replace(FOLDER, rule="must be the path of a folder")
LABELS = replace(
    FOLDER,
    rule="must be the path of a JSON file, or none",
    form=lambda value: "" if value == "none" else value,
    words=("none",),
)
PART = Kind(
    "must be a count per class (a whole number of at least 1) or a fraction in (0, 1)",
    {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}]},
)
SPLIT = Kind(  # it and FOLDERS are read by space/loading.py, which places a fault at the part that has it
    "must be a mapping such as {train: 0.7, val: 0.15, test: 0.15, seed: 0}",
    {
        "type": "object",
        "properties": {**dict.fromkeys(SPLITS, PART.schema), "seed": SEED.schema},
        "additionalProperties": False,
        "required": ["train", "val"],
    },
    shape="mapping",
)
FOLDERS = Kind(
    "must map train, val and test to names of sub-folders",
    {"type": "object", "properties": dict.fromkeys(SPLITS, FOLDER.schema), "additionalProperties": False},
    shape="mapping",
)


def _in_quotes(value: Any) -> str:
    return f": write '{value}', in quotes" if isinstance(value, int | float) and not isinstance(value, bool) else ""


STUDY = text(
    "must be a name of at most 100 letters, digits, '.', '_', '-' or '@' that begins with a letter, a digit or '_'",
    r"[A-Za-z0-9_][A-Za-z0-9._@\-]{0,99}",
    advise=_in_quotes,
)
ROW_NAME = text("must be a text of at most 100 characters", r"(?=.{1,100}$).*\S.*", advise=_in_quotes)
