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
        if name not in RECIPE:
            findings.add(node.where, f"recipe.{name}", unknown_key(name, KEYS["recipe"], "recipe"))
        elif name == MULTIPLIER:
            _read_multipliers(node, given, findings)
        else:
            _read_choices(name, name, node, given, findings)
    if "backbone" not in section.value:
        rule = "must be given: torchvision/NAME or timm/NAME (`searchft models` lists them)"
        findings.add(section.where, "recipe.backbone", rule)
    for name, rule in (*_contradictions(given), *_unknown_groups(section, given)):
        base, _, group = name.partition(".")
        inner = section.value[base]
        findings.add((inner.value[group] if group else inner).where, f"recipe.{name}", rule)
    return given


class _Fault(Exception):
    """What is wrong with the way choices are written; no words where it has been said already."""

    def __init__(self, node: Node, rule: str = "", inner: str = "") -> None:
        self.node, self.rule, self.inner = node, rule, inner


def _read_choices(field: str, name: str, node: Node, given: dict[str, tuple[Any, ...]], findings: Findings) -> None:
    """Puts the distinct choices of one recipe key into `given`, in Recipe's form; or notes what is wrong with them."""
    key = f"recipe.{name}"
    try:
        candidates = _candidates(field, node, key, findings)
    except _Fault as fault:
        if fault.rule:
            findings.add(fault.node.where, key + fault.inner, fault.rule)
        return
    choices: dict[Any, Any] = {}
    written: dict[Any, str] = {}
    sound = not any(candidate.broken for candidate in candidates)
    for candidate in candidates:
        if candidate.broken:
            continue
        value, rule = check(RECIPE[field].kind, candidate.plain())
        now, same_as = shown(candidate.plain()), written.get(identity(value))
        if not rule and same_as is not None:
            twice = f"{now} twice" if same_as == now else f"{same_as} and {now}, which are the same"
            rule = f"must list each choice once but got {twice}"
        if rule:
            findings.add(candidate.where, key, rule)
            sound = False
        else:
            choices[identity(value)], written[identity(value)] = value, now
    if len(choices) > MAX_CHOICES:
        findings.add(node.where, key, f"must list at most {MAX_CHOICES} choices but got {len(choices)}")
    elif sound:
        given[name] = tuple(choices.values())


def _candidates(field: str, node: Node, key: str, findings: Findings) -> list[Node]:
    """The nodes of the single choices."""
    shape, items = RECIPE[field].kind.shape, node.value
    if isinstance(items, dict) and "choices" in items:
        for other in items:
            if other != "choices":
                findings.add(items[other].where, key, f"must hold nothing beside choices but got the key {other[:60]!r}")
        node = items["choices"]
        if node.broken:
            raise _Fault(node)
        items = node.value
        if not isinstance(items, list):
            raise _Fault(node, f"must be a list but got {got(node.plain())}: write choices: [{_in_brackets(node)}]", ".choices")
    elif isinstance(items, dict) and shape != "mapping":
        written = shown(node.plain())
        raise _Fault(node, f"must be a value, a list of choices, or {{choices: […]}} but got the mapping {written}")
    elif not isinstance(items, list):
        return [node]
    elif shape == "list":
        nested = [isinstance(item.value, list) for item in items]
        if not any(nested):
            return [node]
        if not all(nested):
            odd = items[nested.index(False)]
            mixed = f"mixes the two with {shown(odd.plain())}: write [{_in_brackets(odd)}]"
            raise _Fault(odd, "" if odd.broken else f"must be one list or a list of lists but {mixed}")
    if not items:
        raise _Fault(node, "must list at least one choice but the list is empty")
    return list(items)


def _in_brackets(node: Node) -> str:
    plain = node.plain()
    return "…" if plain is None else plain[:40] if isinstance(plain, str) else shown(plain)


def _read_multipliers(node: Node, given: dict[str, tuple[Any, ...]], findings: Findings) -> None:
    """`lr_multipliers: {top: [1.0, 0.6], deep: 0.1}`: each group is fixed or a dimension of its own."""
    key = f"recipe.{MULTIPLIER}"
    if not isinstance(node.value, dict) or "choices" in node.value:
        if not node.broken:
            inside = "choices stand inside, as in {top: [1.0, 0.6]}"
            findings.add(node.where, key, f"must map groups to multipliers but got {got(node.plain())}: {inside}")
        return
    for group, child in node.value.items():
        if re.fullmatch(r"[A-Za-z0-9_]+", group):
            _read_choices(MULTIPLIER, f"{MULTIPLIER}.{group}", child, given, findings)
        else:
            findings.add(child.where, key, f"must name groups with letters, digits and _ but got {group[:60]!r}")


def _contradictions(given: Mapping[str, tuple[Any, ...]]) -> Iterator[tuple[str, str]]:
    """(key, rule) of what cannot stand beside another. Only sound keys are in `given`, so nothing is reported twice."""
    open_by = [name for name in EXCLUSIVE if name in given]
    for name in open_by[1:]:
        yield name, f"must not stand beside {open_by[0]}, which decides the same: remove one of the two"
    yield from conflicts(given)
    if given.get("parameters") == ("norm",) and given.get("norm") == ("frozen",):
        yield "norm", "must not be frozen beside parameters: norm, or nothing but the head trains"


def _unknown_groups(section: Node, given: Mapping[str, tuple[Any, ...]]) -> Iterator[tuple[str, str]]:
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
