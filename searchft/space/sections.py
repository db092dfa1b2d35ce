"""The sections without choices: `study`, `data` and `search`. Fixed within a study, so a list is a fault here."""

from __future__ import annotations

from typing import Any

from searchft.recipe import DataSettings, SearchSettings
from searchft.recipe.fields import SECTIONS
from searchft.recipe.kinds import FOLDER, PART, SEED, SPLITS
from searchft.space.check import KEYS, Keys, known_keys, read_value
from searchft.space.yaml_reader import Findings, Node
from searchft.wording import shown

DATA = SECTIONS["data"]
SPLIT_WORDS: Keys = {"train": ("training",), "val": ("validation", "valid", "dev"), "test": ("testing", "holdout")}
MUST = {"study": "the study's name", "data": "which images to learn from", "recipe": "what to fine-tune, and how"}
"""The keys that a file must have, and what they say."""


def top_level(root: Node, findings: Findings) -> dict[str, Node]:
    """The sections that are there and are mappings, `study` as it is; faults go to `findings`."""
    if root.value is None:
        findings.add(findings.source, "", "must hold a space (study, data, recipe, search) but is empty")
        return {}
    if not isinstance(root.value, dict):
        findings.refuse(root, "", "must be a mapping with the keys study, data, recipe and search")
        return {}
    found: dict[str, Node] = {}
    for name, node in known_keys(root, KEYS[""], "", "", findings):
        if name == "study" or isinstance(node.value, dict):
            found[name] = node
        else:
            findings.refuse(node, name, "must be a mapping of keys to values")
    for name, what in MUST.items():
        if name not in root.value:
            findings.add(findings.source, name, f"must be given: {what}")
    return found


def read_study(node: Node, findings: Findings) -> str:
    """The study's name."""
    return str(read_value(SECTIONS[""]["study"].kind, node, "study", findings) or "")


def read_data(section: Node, findings: Findings) -> dict[str, Any]:
    """Fields of DataSettings that the file gives."""
    values = _read_fields(section, "data", findings)
    for name, read in (("split", _read_split), ("folders", _read_folders)):
        if name in section.value:
            values |= read(section.value[name], findings)
    if "source" not in section.value:
        findings.add(section.where, "data.source", DATA["source"].kind.rule.replace("must be", "must be given:", 1))
    store, size = values.get("store_size", 0), values.get("image_size", DataSettings.image_size)
    if 0 < store < size:
        rule = f"must be 0 or at least image_size ({size}) but got {store}"
        findings.add(section.value["store_size"].where, "data.store_size", rule)
    return values


def read_search(section: Node, findings: Findings) -> SearchSettings:
    """The search settings; `enqueue` is left to `enqueue.py`."""
    return SearchSettings(**_read_fields(section, "search", findings))


def _read_fields(section: Node, name: str, findings: Findings) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, node in known_keys(section, KEYS[name], f"{name}.", name, findings):
        if key not in ("split", "folders", "enqueue"):
            field = SECTIONS[name][key]
            if (value := read_value(field.kind, node, f"{name}.{key}", findings, name)) is not None:
                values[field.name] = value
    return values


def _read_split(node: Node, findings: Findings) -> dict[str, Any]:
    """`split: {train: 2, val: 3, test: 5, seed: 0}`: counts per class, or fractions, never both."""
    if not isinstance(node.value, dict):
        findings.refuse(node, "data.split", DATA["split"].kind.rule)
        return {}
    parts: dict[str, Any] = {}
    for name, child in known_keys(node, {**SPLIT_WORDS, "seed": ()}, "data.split.", "split", findings):
        part = read_value(SEED if name == "seed" else PART, child, f"data.split.{name}", findings)
        if part is not None:
            parts[name] = part
    for name in ("train", "val"):
        if name not in node.value:
            form = DATA["split"].kind.rule.removeprefix("must be ")
            findings.add(node.where, f"data.split.{name}", f"must be given where a split is: {form}")
    values = {"split_seed": parts.pop("seed")} if "seed" in parts else {}
    if parts.keys() != node.value.keys() - {"seed"} or not parts.keys() >= {"train", "val"}:
        return values
    counts = [name for name, part in parts.items() if isinstance(part, int)]
    if 0 < len(counts) < len(parts):
        findings.add(node.where, "data.split", f"must hold counts per class or fractions, not both, but got {shown(parts)}")
    elif not counts and sum(parts.values()) > 1 + 1e-9:
        rule = f"must hold fractions of at most 1 together but they make {sum(parts.values()):g}"
        findings.add(node.where, "data.split", rule)
    else:
        values["split"] = tuple((name, parts[name]) for name in SPLITS if name in parts)
    return values


def _read_folders(node: Node, findings: Findings) -> dict[str, Any]:
    """`folders: {train: facescrub_train, val: facescrub_test}`."""
    if not isinstance(node.value, dict):
        findings.refuse(node, "data.folders", DATA["folders"].kind.rule)
        return {}
    folders: dict[str, str] = {}
    for name, child in known_keys(node, SPLIT_WORDS, "data.folders.", "folders", findings):
        if (folder := read_value(FOLDER, child, f"data.folders.{name}", findings)) is not None:
            if folder in folders.values():
                findings.add(child.where, f"data.folders.{name}", f"must be a folder of its own but got {shown(folder)} twice")
            folders[name] = folder
    return {"folders": tuple((name, folders[name]) for name in SPLITS if name in folders)}
