"""The rule that makes a recipe a space: a scalar is fixed, a list is a set of choices.

Where one value is itself a list or a mapping (its kind's `shape`), choices are a list of those, or
`{choices: […]}`, which every key understands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from searchft.recipe.fields import SECTIONS, STRATEGIES
from searchft.recipe.kinds import RESERVED_GROUPS, Label
from searchft.space.check import KEYS, check, unknown_key
from searchft.space.findings import Findings
from searchft.space.yaml_reader import Node
from searchft.wording import did_you_mean, got, listed, shown

MAX_CHOICES = 1000
"""Of one key. A finer grid is not a search."""
EXCLUSIVE = ("unfrozen", "stages", "unfrozen_tensors")
"""Three ways to say what is open: a space takes one."""
MULTIPLIER = "lr_multipliers"
RECIPE = SECTIONS["recipe"]


def same(a: Any, b: Any) -> bool:
    """Whether two values are one choice: 1 and 1.0 are, 1 and true are not."""
    return identity(a) == identity(b)


def identity(value: Any) -> Any:
    """A hashable stand-in that is equal exactly for the same choice."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, tuple | list):
        return tuple(identity(item) for item in value)
    return value


def label(name: str, value: Any) -> Label:
    """What the persistent study shows for a value in Recipe's form: 0.5, "layer4", "256+128", "linear" for no hidden layer."""
    return RECIPE[name.partition(".")[0]].kind.label(value)


def read_recipe(section: Node, findings: Findings) -> dict[str, tuple[Any, ...]]:
    """The choices of every key under `recipe:`, multipliers as `lr_multipliers.GROUP`; faults go to `findings`."""
    given: dict[str, tuple[Any, ...]] = {}
    for name, node in section.value.items():
        key = f"recipe.{name}"
        if name not in RECIPE:
            findings.add(node.where, key, unknown_key(name, KEYS["recipe"], "recipe"))
        elif name == MULTIPLIER:
            _read_multipliers(node, given, findings)
        elif (choices := read_choices(name, node, key, findings)) is not None:
            given[name] = choices
    if "backbone" not in section.value:
        findings.add(
            section.where, "recipe.backbone", "must be given: torchvision/NAME or timm/NAME (`searchft models` lists them)"
        )
    _check_together(section, given, findings)
    return given


def read_choices(name: str, node: Node, key: str, findings: Findings) -> tuple[Any, ...] | None:
    """The distinct choices of one recipe key in Recipe's form, or None where something was wrong (and noted)."""
    candidates = _candidates(name, node, key, findings)
    if candidates is None:
        return None
    choices: dict[Any, Any] = {}
    written: dict[Any, Any] = {}
    sound = True
    for candidate in candidates:
        if candidate.broken:
            sound = False
            continue
        value, rule = check(RECIPE[name].kind, candidate.plain())
        if rule:
            findings.add(candidate.where, key, rule)
            sound = False
        elif identity(value) in choices:
            before, now = shown(written[identity(value)]), shown(candidate.plain())
            twice = f"{now} twice" if before == now else f"{before} and {now}, which are the same"
            findings.add(candidate.where, key, f"must list each choice once but got {twice}")
            sound = False
        else:
            choices[identity(value)] = value
            written[identity(value)] = candidate.plain()
    if len(choices) > MAX_CHOICES:
        findings.add(node.where, key, f"must list at most {MAX_CHOICES} choices but got {len(choices)}")
        sound = False
    return tuple(choices.values()) if sound else None


def _candidates(name: str, node: Node, key: str, findings: Findings) -> list[Node] | None:
    """The nodes of the single choices."""
    value = node.value
    if isinstance(value, dict) and "choices" in value:
        for other in value:
            if other != "choices":
                findings.add(value[other].where, key, f"must hold nothing beside choices but got the key {other[:60]!r}")
        inner = value["choices"]
        if inner.broken:
            return None
        if not isinstance(inner.value, list):
            findings.add(
                inner.where,
                f"{key}.choices",
                f"must be a list but got {got(inner.plain())}: write choices: [{_bracket(inner)}]",
            )
            return None
        return _not_empty(inner, key, findings)
    if isinstance(value, dict) and RECIPE[name].kind.shape != "mapping":
        findings.add(
            node.where,
            key,
            f"must be a value, a list of choices, or {{choices: […]}} but got the mapping {shown(node.plain())}",
        )
        return None
    if not isinstance(value, list):
        return [node]
    if RECIPE[name].kind.shape == "list":
        nested = [isinstance(item.value, list) for item in value]
        if not any(nested):
            return [node]
        if not all(nested):
            odd = value[nested.index(False)]
            if not odd.broken:
                findings.add(
                    odd.where,
                    key,
                    f"must be one list or a list of lists but mixes the two with {shown(odd.plain())}: write [{_bracket(odd)}]",
                )
            return None
    return _not_empty(node, key, findings)


def _bracket(node: Node) -> str:
    plain = node.plain()
    return "…" if plain is None else plain[:40] if isinstance(plain, str) else shown(plain)


def _not_empty(node: Node, key: str, findings: Findings) -> list[Node] | None:
    items: list[Node] = node.value
    if not items:
        findings.add(node.where, key, "must list at least one choice but the list is empty")
        return None
    return items


def _read_multipliers(node: Node, given: dict[str, tuple[Any, ...]], findings: Findings) -> None:
    """`lr_multipliers: {top: [1.0, 0.6], deep: 0.1}`: each group is fixed or a dimension of its own."""
    if node.value.__class__ is not dict or "choices" in node.value:
        if not node.broken:
            findings.add(
                node.where,
                f"recipe.{MULTIPLIER}",
                f"must map groups to multipliers but got {got(node.plain())}: choices stand inside, as in {{top: [1.0, 0.6]}}",
            )
        return
    for group, child in node.value.items():
        name = f"{MULTIPLIER}.{group}"
        if not re.fullmatch(r"[A-Za-z0-9_]+", group):
            findings.add(
                child.where, f"recipe.{MULTIPLIER}", f"must name groups with letters, digits and _ but got {group[:60]!r}"
            )
        elif (choices := read_choices(MULTIPLIER, child, f"recipe.{name}", findings)) is not None:
            given[name] = choices


def _check_together(section: Node, given: dict[str, tuple[Any, ...]], findings: Findings) -> None:
    """Rules between keys. Only sound keys are in `given`, so nothing is reported twice."""

    def where(name: str) -> str:
        field, _, group = name.partition(".")
        node: Node = section.value[field]
        return node.value[group].where if group else node.where

    open_by = [name for name in EXCLUSIVE if name in given]
    for name in open_by[1:]:
        findings.add(
            where(name), f"recipe.{name}", f"must not stand beside {open_by[0]}, which decides the same: remove one of the two"
        )
    for name, rule in conflicts(given):
        findings.add(where(name), f"recipe.{name}", rule)
    if given.get("parameters") == ("norm",) and given.get("norm") == ("frozen",):
        findings.add(where("norm"), "recipe.norm", "must not be frozen beside parameters: norm, or nothing but the head trains")

    multipliers = [name for name in given if name.startswith(MULTIPLIER + ".")]
    own = tuple(dict.fromkeys(group for groups in given.get("lr_groups", ()) for group, _ in groups))
    if "lr_groups" in section.value and "lr_groups" not in given:
        return  # the groups are not known
    named = {name.partition(".")[2] for name in multipliers}
    for name in multipliers:
        group = name.partition(".")[2]
        if group in own or (group in RESERVED_GROUPS and not (own and group in ("top", "deep"))):
            if group == "backbone" and named & {"top", "deep"}:
                findings.add(
                    where(name),
                    f"recipe.{name}",
                    "must not stand beside top or deep, which divide the backbone: name those two only",
                )
            continue
        groups = ("head", "backbone", *own) if own else RESERVED_GROUPS
        rule = f"must name one of the groups {listed(groups)} but got {group[:60]!r}"
        findings.add(where(name), f"recipe.{name}", rule + (did_you_mean(group, groups) or _own_groups(own)))


def _own_groups(own: tuple[str, ...]) -> str:
    return "" if own else ": groups of your own are named under lr_groups"


def conflicts(given: Mapping[str, tuple[Any, ...]]) -> list[tuple[str, str]]:
    """(key, rule) of each value of `given` (choices per recipe key, `strategy` among them) that a strategy overrides.

    Weights beside `scratch` are a conflict only where every choice is `scratch`: elsewhere they are the others' weights. So
    is `unfrozen` only where no choice is `partial`.
    """
    found: dict[str, str] = {}
    strategies = given.get("strategy", ())
    for strategy in strategies:
        for field, value in STRATEGIES[strategy].items():
            if field in ("weights", "weights_fallback") and strategies != (strategy,):
                continue
            if field == "unfrozen" and "partial" in strategies:
                continue
            for key in same_question(field):
                if key in given and (key != field or given[key] != (value,)) and key not in found:
                    sets = f"sets {field} to {value}" if value != "" else f"needs no {field}"
                    found[key] = f"must not stand beside strategy {strategy}, which {sets}: remove one of the two"
    return list(found.items())


def same_question(field: str) -> tuple[str, ...]:
    """The recipe values that say the same as `field`, in other words, and itself."""
    return EXCLUSIVE if field in EXCLUSIVE else (field,)
