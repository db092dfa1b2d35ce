"""The sections without choices: `study`, `data` and `search`. Fixed within a study, so a list is a fault here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from searchft.recipe import DataSettings, SearchSettings
from searchft.recipe.fields import SECTIONS
from searchft.recipe.kinds import FOLDER, SEED, SPLITS, Kind
from searchft.space.check import KEYS, Keys, check, unknown_key
from searchft.space.findings import Findings
from searchft.space.yaml_reader import Node
from searchft.wording import got, shown

DATA = SECTIONS["data"]
SPLIT_WORDS: Keys = {"train": ("training",), "val": ("validation", "valid", "dev"), "test": ("testing", "holdout")}
MUST = {
    "study": "the study's name",
    "data": "which images to learn from",
    "recipe": "what to fine-tune, and how",
}
"""The keys that a file must have, and what they say."""


def top_level(root: Node, findings: Findings) -> dict[str, Node]:
    """The sections that are there and are mappings, `study` as it is; faults go to `findings`."""
    if root.value is None:
        findings.add(findings.source, "", "must hold a space (study, data, recipe, search) but is empty")
        return {}
    if not isinstance(root.value, dict):
        if not root.broken:
            rule = f"must be a mapping with the keys study, data, recipe and search but got {shown(root.plain())}"
            findings.add(root.where, "", rule)
        return {}
    found: dict[str, Node] = {}
    for name, node in root.value.items():
        if name not in KEYS[""]:
            findings.add(node.where, name[:60], unknown_key(name, KEYS[""], ""))
        elif name == "study" or isinstance(node.value, dict):
            found[name] = node
        elif not node.broken:
            findings.add(node.where, name, f"must be a mapping of keys to values but got {got(node.plain())}")
    for name, what in MUST.items():
        if name not in root.value:
            findings.add(findings.source, name, f"must be given: {what}")
    return found


def read_study(node: Node, findings: Findings) -> str:
    """The study's name."""
    return str(_one(SECTIONS[""]["study"].kind, node, "study", findings) or "")


def read_data(section: Node, findings: Findings) -> dict[str, Any]:
    """Fields of DataSettings that the file gives."""
    values: dict[str, Any] = {}
    for name, node in section.value.items():
        key = f"data.{name}"
        if name not in KEYS["data"]:
            findings.add(node.where, key, unknown_key(name, KEYS["data"], "data"))
        elif name == "split":
            values |= _read_split(node, findings)
        elif name == "folders":
            values |= _read_folders(node, findings)
        elif (value := _one(DATA[name].kind, node, key, findings, "data")) is not None:
            values[name] = value
    if "source" not in section.value:
        findings.add(section.where, "data.source", DATA["source"].kind.rule.replace("must be", "must be given:", 1))
    store, size = values.get("store_size", 0), values.get("image_size", DataSettings.image_size)
    if 0 < store < size:
        rule = f"must be 0 or at least image_size ({size}) but got {store}"
        findings.add(section.value["store_size"].where, "data.store_size", rule)
    return values


def read_search(section: Node, findings: Findings) -> SearchSettings:
    """The search settings; `enqueue` is left to `enqueue.py`."""
    values: dict[str, Any] = {}
    for name, node in section.value.items():
        key = f"search.{name}"
        if name not in KEYS["search"]:
            findings.add(node.where, key, unknown_key(name, KEYS["search"], "search"))
        elif name != "enqueue":
            field = SECTIONS["search"][name]
            if (value := _one(field.kind, node, key, findings, "search")) is not None:
                values[field.name] = value
    return SearchSettings(**values)


def _one(kind: Kind, node: Node, key: str, findings: Findings, section: str = "") -> Any:
    """One value, or None where it is wrong (and noted)."""
    if node.broken:
        return None
    plain = node.plain()
    value, rule = check(kind, plain)
    if rule:
        only = f": {section} takes one value, choices stand under recipe" if isinstance(plain, list) and section else ""
        findings.add(node.where, key, rule + only)
        return None
    return value


def _is_mapping(node: Node, name: str, findings: Findings) -> bool:
    if not isinstance(node.value, dict) and not node.broken:
        findings.add(node.where, f"data.{name}", f"{DATA[name].kind.rule} but got {shown(node.plain())}")
    return isinstance(node.value, dict)


def _read_split(node: Node, findings: Findings) -> dict[str, Any]:
    """`split: {train: 2, val: 3, test: 5, seed: 0}`: counts per class, or fractions, never both."""
    if not _is_mapping(node, "split", findings):
        return {}
    values: dict[str, Any] = {}
    parts: dict[str, float] = {}
    sound = True
    for name, child in node.value.items():
        key, rule = f"data.split.{name}", ""
        if name == "seed":
            seed = _one(SEED, child, key, findings)
            values |= {} if seed is None else {"split_seed": seed}
            continue
        part = child.plain()
        if name not in SPLITS:
            rule = unknown_key(name, {**SPLIT_WORDS, "seed": ()}, "split")
        elif (
            isinstance(part, int | float) and not isinstance(part, bool) and (0 < part < 1 or (type(part) is int and part >= 1))
        ):
            parts[name] = part
        elif not child.broken:
            whole = f": write {int(part)}" if isinstance(part, float) and part >= 1 and part.is_integer() else ""
            rule = (
                f"must be a count per class (a whole number of at least 1) or a fraction in (0, 1) but got {got(part)}{whole}"
            )
        if rule:
            findings.add(child.where, key, rule)
        sound = sound and name in parts
    for name in ("train", "val"):
        if name not in node.value:
            form = DATA["split"].kind.rule.removeprefix("must be ")
            findings.add(node.where, f"data.split.{name}", f"must be given where a split is: {form}")
            sound = False
    if not sound:
        return values
    counts = [name for name, part in parts.items() if isinstance(part, int)]
    if 0 < len(counts) < len(parts):
        without_seed: Mapping[str, Any] = {name: part for name, part in node.plain().items() if name != "seed"}
        rule = f"must hold counts per class or fractions, not both, but got {shown(without_seed)}"
        findings.add(node.where, "data.split", rule)
    elif not counts and sum(parts.values()) > 1 + 1e-9:
        rule = f"must hold fractions of at most 1 together but they make {sum(parts.values()):g}"
        findings.add(node.where, "data.split", rule)
    else:
        values["split"] = tuple((name, parts[name]) for name in SPLITS if name in parts)
    return values


def _read_folders(node: Node, findings: Findings) -> dict[str, Any]:
    """`folders: {train: facescrub_train, val: facescrub_test}`."""
    if not _is_mapping(node, "folders", findings):
        return {}
    folders: dict[str, str] = {}
    for name, child in node.value.items():
        key = f"data.folders.{name}"
        if name not in SPLITS:
            findings.add(child.where, key, unknown_key(name, SPLIT_WORDS, "folders"))
        elif (folder := _one(FOLDER, child, key, findings)) is not None:
            if folder in folders.values():
                findings.add(child.where, key, f"must be a folder of its own but got {shown(folder)} twice")
            folders[name] = folder
    return {"folders": tuple((name, folders[name]) for name in SPLITS if name in folders)}
