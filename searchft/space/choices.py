"""The rule that makes a recipe a space: a scalar is fixed, a list is a set of choices.

Where one value is itself a list or a mapping (its kind's `shape`), choices are a list of those, or
`{choices: […]}`, which every key understands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from searchft.recipe.fields import SECTIONS, STRATEGIES
from searchft.recipe.kinds import RESERVED_GROUPS, Label
from searchft.space.check import KEYS, check, known_keys
from searchft.space.yaml_reader import Findings, Node
from searchft.wording import did_you_mean, listed, shown

MAX_CHOICES = 1000
"""Of one key. A finer grid is not a search."""
EXCLUSIVE = ("unfrozen", "stages", "unfrozen_tensors")
"""Three ways to say what is open: a space takes one."""
MULTIPLIER = "lr_multipliers"
RECIPE = SECTIONS["recipe"]
Given = Mapping[str, tuple[Any, ...]]
"""The sound choices of each recipe key in Recipe's form, multipliers as `lr_multipliers.GROUP`."""


def identity(value: Any) -> Any:
    """A hashable stand-in that is equal exactly for the same choice: 1 and 1.0 are one, 1 and true are not."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, tuple | list):
        return tuple(identity(item) for item in value)
    return value


def label(name: str, value: Any) -> Label:
    """What the persistent study shows for a value in Recipe's form: 0.5, "layer4", "256+128", "linear" for no hidden layer."""
    return RECIPE[name.partition(".")[0]].kind.label(value)


def read_recipe(section: Node, findings: Findings) -> Given:
    """The choices of every key under `recipe:`; faults go to `findings`."""
    given: dict[str, tuple[Any, ...]] = {}
    for name, node in known_keys(section, KEYS["recipe"], "recipe.", "recipe", findings):
        if name == MULTIPLIER:
            _read_multipliers(node, given, findings)
        else:
            _read_choices(name, node, given, findings)
    if "backbone" not in section.value:
        rule = "must be given: torchvision/NAME or timm/NAME (`searchft models` lists them)"
        findings.add(section.where, "recipe.backbone", rule)
    for name, rule in (*_contradictions(given), *_unknown_groups(section, given)):
        base, _, group = name.partition(".")
        inner = section.value[base]
        findings.add((inner.value[group] if group else inner).where, f"recipe.{name}", rule)
    return given


def _read_choices(name: str, node: Node, given: dict[str, tuple[Any, ...]], findings: Findings) -> None:
    """Puts the distinct choices of one recipe key into `given`, or notes what is wrong with them."""
    key, kind = f"recipe.{name}", RECIPE[name.partition(".")[0]].kind
    candidates = _candidates(kind.shape, node, key, findings)
    choices: dict[Any, Any] = {}
    written: dict[Any, str] = {}
    for candidate in candidates:
        if candidate.broken:
            continue
        value, rule = check(kind, candidate.plain())
        now, same_as = shown(candidate.plain()), written.get(identity(value))
        if not rule and same_as is not None:
            twice = f"{now} twice" if same_as == now else f"{same_as} and {now}, which are the same"
            rule = f"must list each choice once but got {twice}"
        if rule:
            findings.add(candidate.where, key, rule)
        else:
            choices[identity(value)], written[identity(value)] = value, now
    if len(choices) > MAX_CHOICES:
        findings.add(node.where, key, f"must list at most {MAX_CHOICES} choices but got {len(choices)}")
    elif choices and len(choices) == len(candidates):
        given[name] = tuple(choices.values())


def _candidates(shape: str, node: Node, key: str, findings: Findings) -> list[Node]:
    """The nodes of the single choices; none where the set is written wrongly, which goes to `findings`."""
    items = node.value
    if isinstance(items, dict) and "choices" in items:
        for other, inner in items.items():
            if other != "choices":
                findings.add(inner.where, key, f"must hold nothing beside choices but got the key {other[:60]!r}")
        node, items = items["choices"], items["choices"].value
        if not isinstance(items, list):
            findings.refuse(node, f"{key}.choices", "must be a list", f": write choices: [{_in_brackets(node)}]")
            return []
    elif isinstance(items, dict) and shape != "mapping":
        findings.refuse(node, key, "must be a value, a list of choices, or {choices: […]}", got="but got the mapping")
        return []
    elif not isinstance(items, list):
        return [node]
    elif shape == "list":
        odd = next((item for item in items if not isinstance(item.value, list)), None)
        if not any(isinstance(item.value, list) for item in items):
            return [node]
        if odd is not None:
            mend = f": write [{_in_brackets(odd)}]"
            findings.refuse(odd, key, "must be one list or a list of lists", mend, got="but mixes the two with")
            return []
    if not items:
        findings.add(node.where, key, "must list at least one choice but the list is empty")
    return list(items)


def _in_brackets(node: Node) -> str:
    plain = node.plain()
    return "…" if plain is None else plain[:40] if isinstance(plain, str) else shown(plain)


def _read_multipliers(node: Node, given: dict[str, tuple[Any, ...]], findings: Findings) -> None:
    """`lr_multipliers: {top: [1.0, 0.6], deep: 0.1}`: each group is fixed or a dimension of its own."""
    key = f"recipe.{MULTIPLIER}"
    if not isinstance(node.value, dict) or "choices" in node.value:
        findings.refuse(node, key, "must map groups to multipliers", ": choices stand inside, as in {top: [1.0, 0.6]}")
        return
    for group, child in node.value.items():
        if re.fullmatch(r"[A-Za-z0-9_]+", group):
            _read_choices(f"{MULTIPLIER}.{group}", child, given, findings)
        else:
            findings.add(child.where, key, f"must name groups with letters, digits and _ but got {group[:60]!r}")


def _contradictions(given: Given) -> Iterator[tuple[str, str]]:
    """(key, rule) of what cannot stand beside another. Only sound keys are in `given`, so nothing is reported twice."""
    open_by = [name for name in EXCLUSIVE if name in given]
    for name in open_by[1:]:
        yield name, f"must not stand beside {open_by[0]}, which decides the same: remove one of the two"
    yield from _overridden(given).items()
    if given.get("parameters") == ("norm",) and given.get("norm") == ("frozen",):
        yield "norm", "must not be frozen beside parameters: norm, or nothing but the head trains"


def _unknown_groups(section: Node, given: Given) -> Iterator[tuple[str, str]]:
    """(key, rule) of multipliers of groups that there are not, or not beside the others."""
    if "lr_groups" in section.value and "lr_groups" not in given:
        return  # the groups are not known
    own = tuple(dict.fromkeys(group for groups in given.get("lr_groups", ()) for group, _ in groups))
    groups = ("head", "backbone", *own) if own else RESERVED_GROUPS
    named = {name.partition(".")[2]: name for name in given if name.startswith(MULTIPLIER + ".")}
    for group, name in named.items():
        if group not in groups:
            hint = did_you_mean(group, groups) or ("" if own else ": groups of your own are named under lr_groups")
            yield name, f"must name one of the groups {listed(groups)} but got {group[:60]!r}{hint}"
        elif group == "backbone" and named.keys() & {"top", "deep"}:
            yield name, "must not stand beside top or deep, which divide the backbone: name those two only"


def _overridden(given: Given) -> dict[str, str]:
    """Key to rule, of each value of `given` that a strategy overrides.

    Weights beside `scratch` are a conflict only where every choice is `scratch`: elsewhere they are the others' weights. So
    is `unfrozen` only where no choice is `partial`.
    """
    found: dict[str, str] = {}
    strategies = given.get("strategy", ())
    for strategy in strategies:
        for field, value in STRATEGIES[strategy].items():
            for_others = field in ("weights", "weights_fallback") and strategies != (strategy,)
            if for_others or (field == "unfrozen" and "partial" in strategies):
                continue
            for key in same_question(field):
                if key in given and (key != field or given[key] != (value,)):
                    sets = f"sets {field} to {value}" if value != "" else f"needs no {field}"
                    found.setdefault(key, f"must not stand beside strategy {strategy}, which {sets}: remove one of the two")
    return found


def same_question(field: str) -> tuple[str, ...]:
    """The recipe values that say the same as `field`, in other words, and itself."""
    return EXCLUSIVE if field in EXCLUSIVE else (field,)
