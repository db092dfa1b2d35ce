"""Divides a backbone into stages, stem first: what `unfrozen` counts from the end.

torchvision families by the table in families.py, timm models by their own `group_matcher(coarse=True)`. Every parameter outside
the head belongs to exactly one stage, named by its first module (the first one `stem`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import timm
from torch import nn

from searchft.errors import SearchftError
from searchft.models.backbones import BackboneName, refusal
from searchft.models.families import Family
from searchft.recipe import HEAD, StageFacts

STEM = "stem"


def divide(model: nn.Module, name: BackboneName, head: str, auxiliary: Iterable[str] = ()) -> tuple[StageFacts, ...]:
    """The stages of a network whose head (and auxiliary heads) are left out, in order of execution.

    Raises InputError where the library gives no way to divide it, SearchftError if a parameter were left over.
    """
    apart = (head, *auxiliary)
    inside = [key for key, _ in model.named_parameters() if not below(key, apart)]
    if name.family is not None:
        stages = _by_table(model, name.family, head)
    elif name.library == "python":
        stages = _own(model, inside, apart)
    else:
        stages = _timm(model, name, inside, apart)
    stages = tuple(stage for stage in stages if any(below(key, stage.modules) for key in inside))
    for key in inside:
        owners = [stage.name for stage in stages if below(key, stage.modules)]
        if len(owners) != 1:
            raise SearchftError(f"{name}: parameter {key} belongs to {owners or 'no stage'}: please report this")
    return stages


def below(key: str, prefixes: Iterable[str]) -> bool:
    """Whether a dotted name is one of the prefixes or lies below one."""
    return any(key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


def stage_of(key: str, stages: Iterable[StageFacts]) -> str | None:
    """The stage in which a module or parameter lies."""
    return next((stage.name for stage in stages if below(key, stage.modules)), None)


def _named(names: Iterable[str], groups: Iterable[Iterable[str]]) -> tuple[StageFacts, ...]:
    return tuple(StageFacts(name, tuple(modules)) for name, modules in zip(names, groups, strict=True))


def _by_table(model: nn.Module, family: Family, head: str) -> tuple[StageFacts, ...]:
    groups: list[tuple[str, ...]] = []
    for part in family.parts:
        if isinstance(part, tuple):
            parent, _, child = part[0].rpartition(".")
            if hasattr(model.get_submodule(parent), child):  # small members of a family lack the last stages
                groups.append(part)
            continue
        inside: list[tuple[str, ...]] = [()]
        for child, module in model.get_submodule(part.container).named_children():
            if not part.pools or isinstance(module, nn.MaxPool2d):
                inside.append(())
            if next(module.parameters(), None) is not None:
                inside[-1] += (f"{part.container}.{child}",)
        groups += filter(None, inside)
    groups[-1] += tuple(norm for norm in family.last_norm if not below(norm, (head,)))
    names = [STEM, *(group[0] for group in groups[1:])]
    if family.hidden and not below(family.hidden, (head,)):
        # Its dropouts come along: they are on where the block is trainable.
        block = [f"{family.hidden}.{child}" for child, _ in model.get_submodule(family.hidden).named_children()]
        groups.append(tuple(module for module in block if not below(module, (head,))))
        names.append(family.hidden)
    return _named(names, groups)


def _own(model: nn.Module, inside: list[str], apart: tuple[str, ...]) -> tuple[StageFacts, ...]:
    """A user's network: each top-level child with parameters outside the head is a stage; where there is only one, its children are."""
    tops: dict[str, set[str]] = {}
    for depth in range(1, max(2, 1 + max(key.count(".") for key in inside))):
        tops = {}
        for key in inside:
            tops.setdefault(".".join(key.split(".")[:depth]), set()).add(key)
        if len(tops) > 1:
            break
    covers = [_cover(model, keys, apart) for keys in tops.values()]
    return _named([STEM, *(cover[0] for cover in covers[1:])], covers)


def _timm(model: nn.Module, name: BackboneName, inside: list[str], apart: tuple[str, ...]) -> tuple[StageFacts, ...]:
    matcher: Any = None
    with contextlib.suppress(AttributeError, AssertionError, NotImplementedError):  # RDNet has fine groups only
        matcher = model.group_matcher(coarse=True)  # type: ignore[operator]
    matcher = matcher if matcher is not None else _feature_matcher(model, inside)
    if matcher is None:
        raise refusal(f"must be a timm model with a group_matcher or feature_info but {name} has neither: it cannot be divided")
    try:
        order: Mapping[str, int] = timm.models.group_parameters(model, matcher, reverse=True)
        unmatched = _unmatched(model, matcher)
    except Exception as error:  # a matcher that its own model does not fit: seen in the odd family
        rule = f"must be a model that timm can divide but {name}'s group_matcher fails ({type(error).__name__}: {error})"
        raise refusal(rule) from error
    norms = {key for key, _ in model.named_parameters() if is_norm(model.get_submodule(key.rpartition(".")[0]))}
    matched = [key for key in inside if key not in unmatched]
    if not matched:
        raise refusal(f"must be a model that timm can divide but {name} is one piece to it")
    first = inside.index(matched[0])
    groups: dict[int, list[str]] = {}
    for key in matched:
        groups.setdefault(order[key], []).append(key)
    ordered = [groups[number] for number in sorted(groups)]
    behind: list[str] = []
    for position, key in enumerate(inside):
        if key not in unmatched:
            continue
        if position < first:
            ordered[0].insert(0, key)  # tokens and embeddings that a matcher forgot
        elif key in norms and not behind:
            ordered[-1].append(key)
        else:
            behind.append(key)
    if behind:
        ordered.append(behind)
    merged: list[list[str]] = []
    for keys in ordered:
        if merged and norms.issuperset(keys):
            merged[-1] += keys  # a lone norm (VGG's) goes with the layer before it
        else:
            merged.append(keys)
    covers = [_cover(model, set(keys), apart) for keys in merged]
    names: list[str] = []
    for number, cover in enumerate(covers):
        label = STEM if number == 0 and len(merged) > 1 else cover[0]
        names.append(f"stage{number}" if label in (HEAD, "all", *names) else label)
    return _named(names, covers)


def _feature_matcher(model: nn.Module, inside: list[str]) -> Callable[[str], float] | None:
    """A matcher for the few timm models without one (MetaFormer): a stage is where timm takes a feature map. None without any."""
    info = getattr(model, "feature_info", None)
    if not isinstance(info, list) or not all(isinstance(entry, Mapping) and "module" in entry for entry in info):
        return None
    places = [[i for i, key in enumerate(inside) if below(key, (str(entry["module"]),))] for entry in info]
    places = [place for place in places if place]
    if not places:
        return None
    # The stem ends before the first feature map's module, each stage with its own; what follows the last one is left unmatched.
    ends = [places[0][0] - 1, *(place[-1] for place in places)]
    groups = {key: next((float(n) for n, end in enumerate(ends) if i <= end), float("inf")) for i, key in enumerate(inside)}
    return lambda key: groups.get(key, float("inf"))


def _unmatched(model: nn.Module, matcher: object) -> set[str]:
    """Parameters that no rule of a matcher names: timm puts them last, together with the head."""
    keys = [key for key, _ in model.named_parameters()]
    if callable(matcher):
        return {key for key in keys if matcher(key) == float("inf")}
    assert isinstance(matcher, Mapping)
    rules = [
        re.compile(rule[0] if isinstance(rule, tuple | list) else rule)
        for entry in matcher.values()
        if entry is not None
        for rule in (entry if isinstance(entry, tuple | list) else (entry,))
    ]
    return {key for key in keys if not any(rule.match(key) for rule in rules)}


def _cover(model: nn.Module, keys: set[str], apart: tuple[str, ...]) -> tuple[str, ...]:
    """The fewest modules (and bare parameters, last) that hold exactly these parameters."""
    members: dict[str, list[str]] = {}
    for key, _ in model.named_parameters():
        parts = key.split(".")
        for depth in range(1, len(parts)):
            members.setdefault(".".join(parts[:depth]), []).append(key)
    modules: list[str] = []
    bare: list[str] = []
    for key in (key for key, _ in model.named_parameters() if key in keys):
        if below(key, modules):
            continue
        parts = key.split(".")
        for depth in range(1, len(parts)):
            prefix = ".".join(parts[:depth])
            if not any(below(part, (prefix,)) for part in apart) and keys.issuperset(members[prefix]):
                modules.append(prefix)
                break
        else:
            bare.append(key)
    return (*modules, *bare)


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises: its own class or one above it is called a norm (timm has some twenty of them)."""
    return any("norm" in kind.__name__.lower() for kind in type(module).__mro__)
