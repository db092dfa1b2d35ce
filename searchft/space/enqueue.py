"""The named configurations tried first: `search.enqueue`. Each value is one of the choices, or the fixed value."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from searchft.recipe.fields import ENQUEUE, STRATEGIES
from searchft.recipe.kinds import ROW_NAME
from searchft.space.check import KEYS, Keys, check, known_keys, read_value
from searchft.space.choices import MULTIPLIER, RECIPE, Given, identity, label, same_question
from searchft.space.overrides import FLAG
from searchft.space.yaml_reader import Findings, Node
from searchft.wording import got, shown

ROW_KEYS: Keys = {"name": (), **KEYS["recipe"]}


@dataclass(frozen=True)
class EnqueuedRow:
    """A configuration with a name, tried before the sampler's."""

    name: str
    chosen: Mapping[str, Any]
    """A choice for every dimension; those that the row does not give have their first."""


def read_enqueue(
    node: Node, recipe: Node, given: Given, dimensions: Sequence[str], findings: Findings
) -> tuple[EnqueuedRow, ...]:
    """The rows, checked against `given` (the sound choices of the section `recipe`). `dimensions` are the keys with more than
    one choice, in asking order."""
    if not isinstance(node.value, list):
        findings.refuse(node, "search.enqueue", ENQUEUE.kind.rule)
        return ()
    known = {key: {identity(choice): choice for choice in choices} for key, choices in given.items()}
    rows: list[EnqueuedRow] = []
    names: set[str] = set()
    for i, item in enumerate([single for written in node.value for single in _per_seed(written)]):
        if not isinstance(item.value, dict):
            findings.refuse(item, f"search.enqueue[{i}]", "must be a row such as {name: Baseline, unfrozen: head}")
            continue
        name = _read_name(item, i, names, findings)
        chosen = {dimension: given[dimension][0] for dimension in dimensions}
        row = f"search.enqueue[{name or i}]"
        for key, value in _values(item, row, findings):
            if key not in known and _is_unsound(recipe, key):
                continue
            choice, rule = _read_choice(key, value.plain(), recipe, known)
            if rule:
                findings.add(value.where, f"{row}.{key}", rule)
            elif key in chosen:
                chosen[key] = choice
        rows.append(EnqueuedRow(name, chosen))
    return tuple(rows)


def _per_seed(item: Node) -> list[Node]:
    """A row as it is; one whose `seed` is a list once for each, the seed added to its name."""
    row = {} if item.broken or not isinstance(item.value, dict) else item.value
    name, seeds = row.get("name"), row["seed"].value if "seed" in row else None
    if not seeds or not isinstance(seeds, list) or name is None or not isinstance(name.value, str):
        return [item]
    named = ({**row, "name": Node(f"{name.value}, seed {seed.plain()}", name.where), "seed": seed} for seed in seeds)
    return [Node(one, item.where) for one in named]


def _read_name(item: Node, i: int, names: set[str], findings: Findings) -> str:
    """The row's name, put into `names`; empty where it is wrong (and noted)."""
    key, node = f"search.enqueue[{i}].name", item.value.get("name")
    if node is None:
        findings.add(item.where, key, "must be given: what the trial will be called")
        return ""
    name = str(read_value(ROW_NAME, node, key, findings) or "")
    if name in names:
        findings.add(node.where, key, f"must be distinct but {shown(name)} is the name of another row")
    names |= {name} - {""}
    return name


def _values(item: Node, row: str, findings: Findings) -> list[tuple[str, Node]]:
    """The row's values by the names of dimensions, multipliers as `lr_multipliers.GROUP`; keys that do not exist are noted."""
    keys = {**ROW_KEYS, **{key: () for key in item.value if key.startswith(MULTIPLIER + ".")}}
    found: list[tuple[str, Node]] = []
    for key, node in known_keys(item, keys, f"{row}.", "a row", findings):
        if key == MULTIPLIER and isinstance(node.value, dict):
            found += [(f"{MULTIPLIER}.{group}", child) for group, child in node.value.items()]
        elif key == MULTIPLIER:
            findings.refuse(node, f"{row}.{key}", "must map groups to multipliers")
        elif key != "name":
            found.append((key, node))
    return [(key, node) for key, node in found if not node.broken]


def _is_unsound(recipe: Node, key: str) -> bool:
    """Whether the space gives a key that is not among the sound ones: it is wrong itself, and no row is held against it."""
    base, _, group = key.partition(".")
    node = recipe.value.get(base)
    return node is not None and (not group or not isinstance(node.value, dict) or group in node.value)


def _read_choice(key: str, plain: Any, recipe: Node, known: Mapping[str, Mapping[Any, Any]]) -> tuple[Any, str]:
    """(the choice that a row means, "") or (None, the rule that it breaks)."""
    base, _, group = key.partition(".")
    choice, wrong = check(RECIPE[base].kind, plain)
    if key not in known:
        strategies = known.get("strategy", {}).values()
        if any(key in same_question(field) for strategy in strategies for field in STRATEGIES[strategy]):
            return None, "must not be given: the strategy sets it"
        # The seed's default is the study's, so no row's own can be meant by it.
        default = 1.0 if "." in key else None if key == "seed" else RECIPE[key].default
        if not wrong and identity(choice) == identity(default):
            return choice, ""
        text = "the value" if plain is None else shown(plain)
        return None, f"must be among the choices but the space does not give {key}: list {text} under recipe.{key} too"
    if not wrong and identity(choice) in known[key]:
        return known[key][identity(choice)], ""
    origin = (recipe.value[base].value[group] if group else recipe.value[base]).where
    overridden = f" ({origin} says so: change the row, or drop all with --set search.enqueue=[])"
    after = overridden if origin.startswith(FLAG + " ") else ""
    written = [_as_written(key, one) for one in itertools.islice(known[key].values(), 20)]
    if len(known[key]) == 1:
        return None, f"must be {written[0]}, the value under recipe.{key}, but got {got(plain)}{after}"
    several = ", ".join(written) + (", …" if len(known[key]) > 20 else "")
    one_value = ": a row takes one value" if isinstance(plain, list) and RECIPE[base].kind.shape != "list" else ""
    return None, f"must be one of the choices {several} but got {got(plain)}{one_value}{after}"


def _as_written(key: str, choice: Any) -> str:
    """A choice as the user would write it: bare words, lists in brackets, mappings in braces."""
    if RECIPE[key.partition(".")[0]].kind.shape == "mapping":
        return shown(dict(choice))
    return choice if isinstance(choice, str) and choice else shown(choice if choice is not None else label(key, choice))
