"""`edits`: changes to a network beside its head.

Attributes of modules (strides, paddings, pooling sizes) are set before the weights are loaded and never change their shapes.
Modules are kept (the first n of an nn.Sequential), appended or replaced afterwards: what stays has its pretrained values, what is
new has random ones, from a seed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from searchft.errors import InputError, Problem, first_line
from searchft.models.backbones import near, seeded
from searchft.models.families import Rows, add_rows

STRUCTURAL = ("keep", "append", "replace")  # last parts of a path that name a change of modules, not an attribute
_OTHER_STREAM = 0x5EED  # new layers do not repeat the random values of the network's first ones
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

    A number where the module holds a tuple of numbers is repeated: `conv1.stride: 1` sets (1, 1). Raises InputError with every problem.
    """
    modules = dict(model.named_modules())
    problems: list[Problem] = []
    done: dict[str, Any] = {}
    for path, value in edits:
        name, _, attribute = path.rpartition(".")
        try:
            if not name or name not in modules:
                got = repr(name) if name else f"no module in {path!r}"
                meant = near(name or path, [m for m in modules if m])
                raise ValueError(f"must be MODULE.ATTRIBUTE of a module of the backbone but got {got}{meant}")
            done[path] = _converted(value, _held(modules[name], attribute))
        except ValueError as error:
            problems.append(Problem("", f"recipe.edits.{path}", str(error)))
    if problems:
        raise InputError(problems)
    for path, value in done.items():
        name, _, attribute = path.rpartition(".")
        module = modules[name]
        setattr(module, attribute, value)
        if isinstance(module, nn.Conv2d) and attribute == "padding" and not isinstance(value, str):
            module._reversed_padding_repeated_twice = [n for n in reversed(module.padding) for _ in "ab"]  # type: ignore[misc]
    return done


def _held(module: nn.Module, attribute: str) -> Any:
    """What a module holds in a public, simple attribute that is not about its weights' shapes. Raises ValueError for another."""
    kind = type(module).__name__
    fixed = [name for owner, names in _WEIGHT_SHAPES if isinstance(module, owner) for name in names]
    if attribute in fixed:
        raise ValueError(f"must leave the weights' shapes as they are but {attribute!r} of {kind} would change them")
    known = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and name not in fixed and isinstance(value, _SIMPLE)
    ]
    if attribute not in known:
        names = ", ".join(known) or "it has none to set"
        raise ValueError(f"must name an attribute of {kind} ({names}) but got {attribute!r}{near(attribute, known)}")
    return getattr(module, attribute)


def is_structural(path: str) -> bool:
    """Whether an edit's path keeps, appends or replaces modules."""
    return path.rpartition(".")[2] in STRUCTURAL


def change_modules(model: nn.Module, edits: Iterable[tuple[str, Any]], head: str, seed: int) -> tuple[dict[str, int], Rows]:
    """Keeps, appends and replaces modules of `model` in place; returns counts kept by module, and rows of new layers.

    Values: `MODULE.keep` a count, `MODULE.append` a tuple of layers, `MODULE.replace` one layer; a layer is (class of torch.nn,
    ((argument, value), …)). Raises InputError with every problem; the head (and what is above it) cannot be replaced or cut off.
    """
    problems: list[Problem] = []
    kept: dict[str, int] = {}
    rows: Rows = []
    # Cutting off comes first, so that what is appended follows what was kept.
    for path, value in sorted(edits, key=lambda edit: STRUCTURAL.index(edit[0].rpartition(".")[2])):
        name, _, verb = path.rpartition(".")
        modules = dict(model.named_modules())
        try:
            if name not in modules:
                raise ValueError(f"must name a module of the backbone but got {name!r}{near(name, [m for m in modules if m])}")
            module = modules[name]
            if verb == "replace":
                if head == name or head.startswith(name + "."):
                    raise ValueError(f"must leave the head ({head}) to head_widths and head_replaces")
                new: Rows = [(name, value[0], dict(value[1]))]
            elif not isinstance(module, nn.Sequential):
                raise ValueError(f"must name an nn.Sequential for {verb} but {name} is a {type(module).__name__}")
            elif verb == "keep":
                gone = [f"{name}.{child}" for child in list(dict(module.named_children()))[value:]]
                if any(head == child or head.startswith(child + ".") for child in gone):
                    raise ValueError(f"must keep the head ({head}) but got {value}")
                if value >= len(module):
                    raise ValueError(f"must be less than {len(module)}, the modules of {name}, but got {value}")
                model.set_submodule(name, module[:value])
                kept[name] = value
                continue
            else:
                new = [(f"{name}.{len(module) + i}", kind, dict(arguments)) for i, (kind, arguments) in enumerate(value)]
            _add(model, new, (seed ^ _OTHER_STREAM) + len(rows))
            rows += new
        except ValueError as error:
            problems.append(Problem("", f"recipe.edits.{path}", str(error)))
    if problems:
        raise InputError(problems)
    return kept, rows


def _add(model: nn.Module, rows: Rows, seed: int) -> None:
    try:
        with seeded(seed):
            add_rows(model, rows)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"must have arguments that torch.nn takes but: {first_line(error)}") from error


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
