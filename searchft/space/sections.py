"""The sections without choices: `study`, `data` and `search`. Fixed within a study, so a list is a fault here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from searchft.recipe import DataSettings
from searchft.space.choices import unknown_key
from searchft.space.findings import Findings
from searchft.space.schema import DATA_KEYS, SEARCH_KEYS, TOP_KEYS, check
from searchft.space.settings import SearchSettings
from searchft.space.wording import shown
from searchft.space.yaml_reader import Node

SPLITS = ("train", "val", "test")


def top_level(root: Node, findings: Findings) -> dict[str, Node]:
    """The sections that are there and are mappings, `study` as it is; faults go to `findings`."""
    if root.value is None:
        findings.add(findings.source, "", "must hold a space (study, data, recipe, search) but is empty")
        return {}
    if not isinstance(root.value, dict):
        if not root.broken:
            findings.add(
                root.where, "", f"must be a mapping with the keys study, data, recipe and search but got {shown(root.plain())}"
            )
        return {}
    found: dict[str, Node] = {}
    for name, node in root.value.items():
        if name not in TOP_KEYS:
            findings.add(node.where, name[:60], unknown_key(name, TOP_KEYS, ""))
        elif name == "study" or isinstance(node.value, dict):
            found[name] = node
        elif not node.broken:
            got = "no value" if node.value is None else shown(node.plain())
            findings.add(node.where, name, f"must be a mapping of keys to values but got {got}")
    for name, what in (
        ("study", "the study's name"),
        ("data", "which images to learn from"),
        ("recipe", "what to fine-tune, and how"),
    ):
        if name not in root.value:
            findings.add(findings.source, name, f"must be given: {what}")
    return found


def read_study(node: Node, findings: Findings) -> str:
    """The study's name."""
    return str(_one("", "study", node, "study", findings) or "")


def read_data(section: Node, findings: Findings) -> dict[str, Any]:
    """Fields of DataSettings that the file gives."""
    values: dict[str, Any] = {}
    for name, node in section.value.items():
        key = f"data.{name}"
        if name not in DATA_KEYS:
            findings.add(node.where, key, unknown_key(name, DATA_KEYS, "data"))
        elif name == "split":
            values |= _read_split(node, findings)
        elif name == "folders":
            values |= _read_folders(node, findings)
        elif (value := _one("data", name, node, key, findings)) is not None:
            values[name] = value
    if "source" not in section.value:
        findings.add(
            section.where, "data.source", "must be given: folder:PATH, csv:PATH, torchvision:NAME, orl_faces or fashion_mnist"
        )
    store, size = values.get("store_size", 0), values.get("image_size", DataSettings.image_size)
    if 0 < store < size:
        findings.add(
            section.value["store_size"].where, "data.store_size", f"must be 0 or at least image_size ({size}) but got {store}"
        )
    return values


def read_search(section: Node, findings: Findings) -> SearchSettings:
    """The search settings; `enqueue` is left to `enqueue.py`."""
    values: dict[str, Any] = {}
    for name, node in section.value.items():
        key = f"search.{name}"
        if name not in SEARCH_KEYS:
            findings.add(node.where, key, unknown_key(name, SEARCH_KEYS, "search"))
        elif name != "enqueue" and (value := _one("search", name, node, key, findings)) is not None:
            values["timeout_s" if name == "timeout" else name] = value
    return SearchSettings(**values)


def _one(section: str, name: str, node: Node, key: str, findings: Findings) -> Any:
    """One value, or None where it is wrong (and noted)."""
    if node.broken:
        return None
    plain = node.plain()
    value, rule = check(section, name, plain)
    if rule:
        only = f": {section} takes one value, choices stand under recipe" if isinstance(plain, list) and section else ""
        findings.add(node.where, key, rule + only)
        return None
    return value


def _read_split(node: Node, findings: Findings) -> dict[str, Any]:
    """`split: {train: 2, val: 3, test: 5, seed: 0}`: counts per class, or fractions, never both."""
    form = "must be a mapping such as {train: 0.7, val: 0.15, test: 0.15, seed: 0}"
    if not isinstance(node.value, dict):
        if not node.broken:
            findings.add(node.where, "data.split", f"{form} but got {shown(node.plain())}")
        return {}
    values: dict[str, Any] = {}
    parts: dict[str, float] = {}
    sound = True
    for name, child in node.value.items():
        key = f"data.split.{name}"
        if name == "seed":
            seed = _one("data", "split_seed", child, key, findings)
            if seed is not None:
                values["split_seed"] = seed
        elif name not in SPLITS:
            findings.add(child.where, key, unknown_key(name, (*SPLITS, "seed"), "split"))
            sound = False
        elif child.broken:
            sound = False
        else:
            part = child.plain()
            is_count = isinstance(part, int) and not isinstance(part, bool) and part >= 1
            if is_count or (isinstance(part, float) and 0 < part < 1):
                parts[name] = part
            else:
                got = "no value" if part is None else shown(part)
                whole = f": write {int(part)}" if isinstance(part, float) and part >= 1 and part.is_integer() else ""
                findings.add(
                    child.where,
                    key,
                    f"must be a count per class (a whole number of at least 1) or a fraction in (0, 1) but got {got}{whole}",
                )
                sound = False
    for name in ("train", "val"):
        if name not in node.value:
            findings.add(node.where, f"data.split.{name}", f"must be given where a split is: {form.removeprefix('must be ')}")
            sound = False
    if not sound:
        return values
    counts = [name for name, part in parts.items() if isinstance(part, int)]
    if 0 < len(counts) < len(parts):
        findings.add(
            node.where, "data.split", f"must hold counts per class or fractions, not both, but got {shown(_without_seed(node))}"
        )
    elif not counts and sum(parts.values()) > 1 + 1e-9:
        findings.add(
            node.where, "data.split", f"must hold fractions of at most 1 together but they make {sum(parts.values()):g}"
        )
    else:
        values["split"] = tuple((name, parts[name]) for name in SPLITS if name in parts)
    return values


def _without_seed(node: Node) -> Mapping[str, Any]:
    return {name: value for name, value in node.plain().items() if name != "seed"}


def _read_folders(node: Node, findings: Findings) -> dict[str, Any]:
    """`folders: {train: facescrub_train, val: facescrub_test}`."""
    if not isinstance(node.value, dict):
        if not node.broken:
            findings.add(
                node.where,
                "data.folders",
                f"must map train, val and test to names of sub-folders but got {shown(node.plain())}",
            )
        return {}
    folders: dict[str, str] = {}
    for name, child in node.value.items():
        key = f"data.folders.{name}"
        if name not in SPLITS:
            findings.add(child.where, key, unknown_key(name, SPLITS, "folders"))
        elif (folder := _one("data", "folder", child, key, findings)) is not None:
            if folder in folders.values():
                findings.add(child.where, key, f"must be a folder of its own but got {shown(folder)} twice")
            folders[name] = folder
    return {"folders": tuple((name, folders[name]) for name in SPLITS if name in folders)}
