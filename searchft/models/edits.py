"""`edits`: changes to a network beside its head.

Attributes of modules (strides, paddings, pooling sizes) are set before the weights are loaded and never change their shapes, so that
the weights still fit. Modules are kept (the first n of an nn.Sequential), appended or replaced afterwards, so that what stays has its
pretrained values; what is new has random ones, from a seed, and is a row of (path, class of torch.nn, arguments).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from searchft.errors import InputError, Problem, first_line
from searchft.models.backbones import near
from searchft.models.convnets import Rows, add_rows
from searchft.models.seeding import seeded

_SIMPLE = (bool, int, float, str, tuple, list, type(None))

_WEIGHT_SHAPES: tuple[tuple[type[nn.Module], tuple[str, ...]], ...] = (
    (nn.modules.conv._ConvNd, ("in_channels", "out_channels", "kernel_size", "groups", "transposed")),
    (nn.Linear, ("in_features", "out_features")),
    (nn.modules.batchnorm._NormBase, ("num_features", "affine", "track_running_stats")),
    (nn.LayerNorm, ("normalized_shape", "elementwise_affine")),
    (nn.GroupNorm, ("num_channels", "affine")),
)
"""Attributes that describe weights already made: setting them would change nothing, or break the layer."""


def apply_edits(model: nn.Module, edits: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Sets each (MODULE.ATTRIBUTE, value) on `model`; returns what was set, in the form the modules hold.

    A number where the module holds a tuple of numbers is repeated: `conv1.stride: 1` sets (1, 1). Raises InputError with
    every problem: unknown module or attribute (with near misses), a value of another kind or length, an attribute that
    would change the shape of weights.
    """
    modules = dict(model.named_modules())
    problems: list[Problem] = []
    done: dict[str, Any] = {}
    for path, value in edits:
        key = f"recipe.edits.{path}"
        name, _, attribute = path.rpartition(".")
        if not name or name not in modules:
            wrong = repr(name) if name else f"no module in {path!r}"
            rule = f"must be MODULE.ATTRIBUTE of a module of the backbone but got {wrong}"
            problems.append(Problem("", key, rule + near(name or path, [m for m in modules if m])))
            continue
        module = modules[name]
        known = editable(module)
        if attribute not in known:
            frozen = any(isinstance(module, kind) and attribute in names for kind, names in _WEIGHT_SHAPES)
            rule = (
                f"must leave the weights' shapes as they are but {attribute!r} of {type(module).__name__} would change them"
                if frozen
                else f"must name an attribute of {type(module).__name__} ({', '.join(known) or 'it has none to set'})"
                f" but got {attribute!r}{near(attribute, known)}"
            )
            problems.append(Problem("", key, rule))
            continue
        try:
            done[path] = _converted(value, getattr(module, attribute))
        except ValueError as error:
            problems.append(Problem("", key, str(error)))
    if problems:
        raise InputError(problems)
    for path, value in done.items():
        set_attribute(model, path, value)
    return done


STRUCTURAL = ("keep", "append", "replace")
"""Last parts of a path that name a change of modules, not an attribute."""

_OTHER_STREAM = 0x5EED
"""New layers draw from a stream of their own, so that they do not repeat the random values of the network's first ones."""


def is_structural(path: str) -> bool:
    """Whether an edit's path keeps, appends or replaces modules."""
    return path.rpartition(".")[2] in STRUCTURAL


def change_modules(model: nn.Module, edits: Iterable[tuple[str, Any]], head: str, seed: int) -> tuple[dict[str, int], Rows]:
    """Keeps, appends and replaces modules of `model` in place, in the order of their paths.

    Values: `MODULE.keep` a count, `MODULE.append` a tuple of layers, `MODULE.replace` one layer; a layer is (class of
    torch.nn, ((argument, value), …)). Returns counts kept by module, and rows of new layers. Raises InputError with every
    problem; the head (`head` and what is above it) cannot be replaced or cut off.
    """
    problems: list[Problem] = []
    kept: dict[str, int] = {}
    rows: Rows = []
    # Cutting off comes first, so that what is appended follows what was kept.
    for path, value in sorted(edits, key=lambda edit: STRUCTURAL.index(edit[0].rpartition(".")[2])):
        name, _, verb = path.rpartition(".")

        def refuse(rule: str, path: str = path) -> None:
            problems.append(Problem("", f"recipe.edits.{path}", rule))

        modules = dict(model.named_modules())
        if name not in modules:
            refuse(f"must name a module of the backbone but got {name!r}{near(name, [m for m in modules if m])}")
            continue
        module = modules[name]
        if verb == "replace":
            if head == name or head.startswith(name + "."):
                refuse(f"must leave the head ({head}) to head_widths and head_replaces")
                continue
            new: Rows = [(name, value[0], dict(value[1]))]
        elif not isinstance(module, nn.Sequential):
            refuse(f"must name an nn.Sequential for {verb} but {name} is a {type(module).__name__}")
            continue
        elif verb == "keep":
            gone = [f"{name}.{child}" for child in list(dict(module.named_children()))[value:]]
            if any(head == child or head.startswith(child + ".") for child in gone):
                refuse(f"must keep the head ({head}) but got {value}")
            elif value >= len(module):
                refuse(f"must be less than {len(module)}, the modules of {name}, but got {value}")
            else:
                model.set_submodule(name, module[:value])
                kept[name] = value
            continue
        else:
            new = [(f"{name}.{len(module) + i}", kind, dict(arguments)) for i, (kind, arguments) in enumerate(value)]
        try:
            with seeded((seed ^ _OTHER_STREAM) + len(rows)):
                add_rows(model, new)
        except (TypeError, ValueError, RuntimeError) as error:
            refuse(f"must have arguments that torch.nn takes but: {first_line(error)}")
            continue
        rows += new
    if problems:
        raise InputError(problems)
    return kept, rows


def set_attribute(model: nn.Module, path: str, value: Any) -> None:
    """Sets one attribute by dotted path; a convolution's hidden copy of its padding follows."""
    name, _, attribute = path.rpartition(".")
    module = model.get_submodule(name)
    setattr(module, attribute, value)
    if isinstance(module, nn.Conv2d) and attribute == "padding" and not isinstance(value, str):
        module._reversed_padding_repeated_twice = [size for size in reversed(module.padding) for _ in range(2)]  # type: ignore[misc]


def editable(module: nn.Module) -> list[str]:
    """Attributes of a module that an edit may set: public, simple, and not about the shape of its weights."""
    fixed = {"training", *(name for kind, names in _WEIGHT_SHAPES if isinstance(module, kind) for name in names)}
    public = {name: value for name, value in vars(module).items() if not name.startswith("_") and name not in fixed}
    return [name for name, value in public.items() if isinstance(value, _SIMPLE)]


def _converted(value: Any, held: Any) -> Any:
    """The value in the form that the module holds. Raises ValueError with the rule."""
    if isinstance(held, tuple | list):
        if value in ("same", "valid"):  # Conv2d.padding alone takes words beside tuples
            return value
        values = list(value) if isinstance(value, tuple | list) else [value] * len(held)
        if isinstance(value, str) or len(values) != len(held):
            got = repr(value) if isinstance(value, str) else len(values)
            raise ValueError(f"must be a number or {len(held)} numbers but got {got}")
        return type(held)(_converted(new, old) for new, old in zip(values, held, strict=True))
    if held is None:
        return tuple(value) if isinstance(value, list) else value
    if type(held) is int and isinstance(value, tuple | list) and value and all(type(v) is int for v in value):
        return tuple(value)  # a pooling layer that was built with one number takes a pair as well
    kind, what = next(
        row for row in ((bool, "true or false"), (int | float, "a number"), (str, "text")) if isinstance(held, row[0])
    )
    if not isinstance(value, kind) or (isinstance(value, bool) and not isinstance(held, bool)):
        raise ValueError(f"must be {what} but got {value!r}")
    if isinstance(held, int) and isinstance(value, float):
        if not float(value).is_integer():
            raise ValueError(f"must be a whole number but got {value!r}")
        return int(value)
    return value
