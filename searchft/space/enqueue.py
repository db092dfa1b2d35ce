"""The named configurations tried first: `search.enqueue`. Each value is one of the choices, or the fixed value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from searchft.space.choices import LIST_VALUED, MULTIPLIER, identity, label, same, unknown_key
from searchft.space.findings import Findings
from searchft.space.overrides import FLAG
from searchft.space.schema import RECIPE_KEYS, check, default_of
from searchft.space.strategies import SAME_QUESTION, STRATEGIES
from searchft.space.wording import shown
from searchft.space.yaml_reader import Node

ROW_KEYS = ("name", *RECIPE_KEYS)


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
    """The rows, checked against `given` (choices per key of the section `recipe`); keys in `unsure` are wrong themselves and not compared.

    `dimensions` are the keys with more than one choice, in asking order.
    """
    if not isinstance(node.value, list):
        if not node.broken:
            got = "no value" if node.value is None else shown(node.plain())
            findings.add(
                node.where, "search.enqueue", f"must be a list of rows such as {{name: Baseline, unfrozen: head}} but got {got}"
            )
        return ()
    known_choices = {field: {identity(choice): choice for choice in choices} for field, choices in given.items()}
    rows: list[EnqueuedRow] = []
    names: dict[str, Node] = {}
    for i, item in enumerate([single for written in node.value for single in _per_seed(written)]):
        if not isinstance(item.value, dict):
            if not item.broken:
                findings.add(
                    item.where,
                    f"search.enqueue[{i}]",
                    f"must be a row such as {{name: Baseline, unfrozen: head}} but got {shown(item.plain())}",
                )
            continue
        name = _name(item, i, names, findings)
        key = f"search.enqueue[{name or i}]"
        chosen = {dimension: given[dimension][0] for dimension in dimensions}
        for field, child in item.value.items():
            if field != "name" and not child.broken:
                _read_value(field, child, key, recipe, given, known_choices, unsure, chosen, findings)
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
    return [
        Node({**row, "name": Node(f"{name.value}, seed {seed.plain()}", name.where), "seed": seed}, item.where)
        for seed in seeds
    ]


def _name(item: Node, i: int, names: dict[str, Node], findings: Findings) -> str:
    node = item.value.get("name")
    if node is None:
        findings.add(item.where, f"search.enqueue[{i}].name", "must be given: what the trial will be called")
        return ""
    if node.broken:
        return ""
    name, rule = check("", "name", node.plain())
    if rule:
        findings.add(node.where, f"search.enqueue[{i}].name", rule)
        return ""
    if name in names:
        findings.add(node.where, f"search.enqueue[{i}].name", f"must be distinct but {shown(name)} is the name of another row")
    names.setdefault(name, node)
    return str(name)


def _read_value(
    field: str,
    node: Node,
    row: str,
    recipe: Node,
    given: Mapping[str, tuple[Any, ...]],
    known_choices: Mapping[str, Mapping[Any, Any]],
    unsure: Sequence[str],
    chosen: dict[str, Any],
    findings: Findings,
) -> None:
    """Puts one value of a row into `chosen`, or notes why it cannot."""
    if field == MULTIPLIER:
        if not isinstance(node.value, dict):
            findings.add(node.where, f"{row}.{field}", f"must map groups to multipliers but got {shown(node.plain())}")
            return
        for group, child in node.value.items():
            _read_value(f"{MULTIPLIER}.{group}", child, row, recipe, given, known_choices, unsure, chosen, findings)
        return
    base, _, group = field.partition(".")
    known = base == MULTIPLIER and bool(group)
    if field not in RECIPE_KEYS and not known:
        findings.add(node.where, f"{row}.{field[:60]}", unknown_key(field, ROW_KEYS, "a row"))
        return
    if field in unsure or base in unsure:
        return
    plain = node.plain()
    value, rule = check("recipe", base, plain)
    if field in given:
        match = None if rule else known_choices[field].get(identity(value))
        if match is None:
            origin = recipe.value[base].value[group].where if group else recipe.value[base].where
            findings.add(node.where, f"{row}.{field}", _no_choice(field, base, plain, rule, given[field], origin))
        elif field in chosen:
            chosen[field] = match
        return
    if "strategy" in given and field in _set_by(given["strategy"]):
        findings.add(node.where, f"{row}.{field}", "must not be given: the strategy sets it")
        return
    # The seed's default is the study's, so none of a row's own can be meant by it.
    default = 1.0 if known else None if base in ("strategy", "seed") else default_of(base)
    if rule or not same(value, default):
        findings.add(
            node.where,
            f"{row}.{field}",
            f"must be among the choices but the space does not give {field}: list {_text(plain)} under recipe.{field} too",
        )


def _set_by(strategies: tuple[str, ...]) -> set[str]:
    fields = {field for strategy in strategies for field in STRATEGIES[strategy]}
    return fields.union(*(SAME_QUESTION.get(field, ()) for field in fields))


def _text(plain: Any) -> str:
    return "the value" if plain is None else shown(plain)


def _no_choice(field: str, base: str, plain: Any, rule: str, choices: tuple[Any, ...], origin: str) -> str:
    got = "no value" if plain is None else shown(plain)
    overridden = f" ({origin} says so: change the row, or drop all with --set search.enqueue=[])" if _is_flag(origin) else ""
    if len(choices) == 1:
        return f"must be {_as_written(base, choices[0])}, the value under recipe.{field}, but got {got}{overridden}"
    listed = ", ".join(_as_written(base, choice) for choice in choices[:20]) + (", …" if len(choices) > 20 else "")
    one = ": a row takes one value" if isinstance(plain, list) and base not in LIST_VALUED else ""
    return f"must be one of the choices {listed} but got {got}{one}{overridden}"


def _is_flag(origin: str) -> bool:
    return origin.startswith(FLAG + " ")


def _as_written(base: str, choice: Any) -> str:
    """A choice as the user would write it: bare words, lists in brackets, mappings in braces."""
    if base in ("edits", "lr_groups"):
        return shown(dict(choice))
    return choice if isinstance(choice, str) and choice else shown(choice if choice is not None else label(base, choice))
