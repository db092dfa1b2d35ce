"""The named configurations tried first: `search.enqueue`. Each value is one of the choices, or the fixed value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from searchft.recipe.fields import ENQUEUE, SECTIONS, STRATEGIES
from searchft.recipe.kinds import ROW_NAME
from searchft.space.check import ROW_KEYS, check, unknown_key
from searchft.space.choices import MULTIPLIER, identity, label, same, same_question
from searchft.space.findings import Findings
from searchft.space.overrides import FLAG
from searchft.space.yaml_reader import Node
from searchft.wording import got, shown

RECIPE = SECTIONS["recipe"]


@dataclass(frozen=True)
class EnqueuedRow:
    """A configuration with a name, tried before the sampler's."""

    name: str
    chosen: Mapping[str, Any]
    """A choice for every dimension; those that the row does not give have their first."""


def read_enqueue(
    node: Node,
    recipe: Node,
    given: Mapping[str, tuple[Any, ...]],
    unsure: Sequence[str],
    dimensions: Sequence[str],
    findings: Findings,
) -> tuple[EnqueuedRow, ...]:
    """The rows, checked against `given` (choices per key of the section `recipe`); keys in `unsure` are wrong themselves and
    not compared. `dimensions` are the keys with more than one choice, in asking order."""
    if not isinstance(node.value, list):
        if not node.broken:
            findings.add(node.where, "search.enqueue", f"{ENQUEUE.kind.rule} but got {got(node.plain())}")
        return ()
    known = {key: {identity(choice): choice for choice in choices} for key, choices in given.items()}
    rows: list[EnqueuedRow] = []
    names: dict[str, Node] = {}
    for i, item in enumerate([single for written in node.value for single in _per_seed(written)]):
        if not isinstance(item.value, dict):
            if not item.broken:
                rule = f"must be a row such as {{name: Baseline, unfrozen: head}} but got {shown(item.plain())}"
                findings.add(item.where, f"search.enqueue[{i}]", rule)
            continue
        name = _read_name(item, i, names, findings)
        chosen = {dimension: given[dimension][0] for dimension in dimensions}
        for key, value in _values(item, f"search.enqueue[{name or i}]", findings):
            base = key.partition(".")[0]
            if key in unsure or base in unsure:
                continue
            plain, rule = value.plain(), ""
            choice, wrong = check(RECIPE[base].kind, plain)
            if key in given:
                match = None if wrong else known[key].get(identity(choice))
                if match is None:
                    rule = _no_choice(key, plain, given[key], _origin(recipe, key))
                elif key in chosen:
                    chosen[key] = match
            elif key in _set_by(given.get("strategy", ())):
                rule = "must not be given: the strategy sets it"
            elif wrong or not same(choice, _default(key)):
                text = "the value" if plain is None else shown(plain)
                rule = f"must be among the choices but the space does not give {key}: list {text} under recipe.{key} too"
            if rule:
                findings.add(value.where, f"search.enqueue[{name or i}].{key}", rule)
        rows.append(EnqueuedRow(name, chosen))
    return tuple(rows)


def _per_seed(item: Node) -> list[Node]:
    """A row as it is; one whose `seed` is a list once for each, the seed added to its name."""
    row = item.value
    if not isinstance(row, dict) or item.broken or "seed" not in row or not isinstance(row["seed"].value, list):
        return [item]
    seeds, name = row["seed"].value, row.get("name")
    if not seeds or name is None or not isinstance(name.value, str):
        return [item]
    named = ({**row, "name": Node(f"{name.value}, seed {seed.plain()}", name.where), "seed": seed} for seed in seeds)
    return [Node(one, item.where) for one in named]


def _read_name(item: Node, i: int, names: dict[str, Node], findings: Findings) -> str:
    node = item.value.get("name")
    name, rule = "", ""
    if node is None:
        rule = "must be given: what the trial will be called"
    elif not node.broken:
        name, rule = check(ROW_NAME, node.plain())
        if not rule and name in names:
            rule = f"must be distinct but {shown(name)} is the name of another row"
    if rule:
        findings.add((node or item).where, f"search.enqueue[{i}].name", rule)
    if name and node is not None:
        names.setdefault(name, node)
    return str(name or "")


def _values(item: Node, row: str, findings: Findings) -> list[tuple[str, Node]]:
    """The row's values by the names of dimensions, multipliers as `lr_multipliers.GROUP`; keys that do not exist are noted."""
    found: list[tuple[str, Node]] = []
    for key, node in item.value.items():
        base, _, group = key.partition(".")
        if key == "name" or node.broken:
            continue
        if key == MULTIPLIER and isinstance(node.value, dict):
            found += [(f"{MULTIPLIER}.{name}", child) for name, child in node.value.items() if not child.broken]
        elif key == MULTIPLIER:
            findings.add(node.where, f"{row}.{key}", f"must map groups to multipliers but got {shown(node.plain())}")
        elif key in RECIPE or (base == MULTIPLIER and group):
            found.append((key, node))
        else:
            findings.add(node.where, f"{row}.{key[:60]}", unknown_key(key, ROW_KEYS, "a row"))
    return found


def _default(key: str) -> Any:
    """What a key that the space does not give stands for. The seed's default is the study's, so no row's own can be meant by it."""
    return 1.0 if "." in key else None if key == "seed" else RECIPE[key].default


def _set_by(strategies: tuple[str, ...]) -> set[str]:
    return {key for strategy in strategies for field in STRATEGIES[strategy] for key in same_question(field)}


def _origin(recipe: Node, key: str) -> str:
    """Where the space gives a key: a line, or an override."""
    base, _, group = key.partition(".")
    node: Node = recipe.value[base].value[group] if group else recipe.value[base]
    return node.where


def _no_choice(key: str, plain: Any, choices: tuple[Any, ...], origin: str) -> str:
    overridden = f" ({origin} says so: change the row, or drop all with --set search.enqueue=[])"
    overridden = overridden if origin.startswith(FLAG + " ") else ""
    written = [_as_written(key, choice) for choice in choices[:20]]
    if len(choices) == 1:
        return f"must be {written[0]}, the value under recipe.{key}, but got {got(plain)}{overridden}"
    listed = ", ".join(written) + (", …" if len(choices) > 20 else "")
    one = ": a row takes one value" if isinstance(plain, list) and RECIPE[key.partition(".")[0]].kind.shape != "list" else ""
    return f"must be one of the choices {listed} but got {got(plain)}{one}{overridden}"


def _as_written(key: str, choice: Any) -> str:
    """A choice as the user would write it: bare words, lists in brackets, mappings in braces."""
    if RECIPE[key.partition(".")[0]].kind.shape == "mapping":
        return shown(dict(choice))
    return choice if isinstance(choice, str) and choice else shown(choice if choice is not None else label(key, choice))
