"""YAML file and `--set` overrides -> Space, or every problem at once. Top to bottom: read, override, check, build.

The sections without choices are read here too: `study`, `data` and `search` are fixed within a study, so a list is a fault there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from searchft.errors import InputError
from searchft.recipe import DataSettings, SearchSettings
from searchft.recipe.fields import SECTIONS
from searchft.recipe.kinds import FOLDER, PART, SEED, SPLITS
from searchft.space.check import KEYS, Keys, known_keys, read_value
from searchft.space.choices import read_recipe
from searchft.space.enqueue import EnqueuedRow, read_enqueue
from searchft.space.overrides import apply_overrides
from searchft.space.space import Dimension, Space, asking_place
from searchft.space.yaml_reader import MAX_BYTES, Findings, Node, read_yaml
from searchft.wording import near, shown

DATA = SECTIONS["data"]
SPLIT_WORDS: Keys = {"train": ("training",), "val": ("validation", "valid", "dev"), "test": ("testing", "holdout")}
MUST = {"study": "the study's name", "data": "which images to learn from", "recipe": "what to fine-tune, and how"}
"""The keys that a file must have, and what they say."""


def load_space(path: Path | str, overrides: Sequence[str] = ()) -> Space:
    """The space in a YAML file, with `KEY=VALUE` overrides put over it.

    Relative paths under `data` are meant from the file's folder. Raises InputError with all problems, each with its
    line; nothing has been created then.
    """
    # A file name that is no UTF-8 is shown with escapes: messages must be printable.
    source, path = str(path).encode("utf-8", "backslashreplace").decode(), Path(path)
    try:
        if path.exists() and not path.is_file():
            raise InputError("must be a file with a space in it but is a folder or a device", source)
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"must be a file with a space in it but there is none{_neighbour(path)}", source) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"must be a file that can be read but cannot ({reason})", source) from error
    return parse_space(content, source, overrides, str(path.parent.absolute()))


def _neighbour(path: Path) -> str:
    try:
        names = sorted(p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml"))[:1000]
    except OSError:
        return f": there is no folder {str(path.parent)!r} either"
    if meant := near(path.name, names):
        return f", did you mean {str(path.parent / meant)!r}?"
    return f": that folder has {', '.join(names[:8])}" if names else ""


def parse_space(content: bytes | str, source: str = "space.yaml", overrides: Sequence[str] = (), folder: str = "") -> Space:
    """The space in a YAML text; `source` names it in messages, `folder` is where relative data paths stand.

    Raises InputError with all problems.
    """
    findings = Findings(source)

    # Read everything, and put the overrides where they belong.
    in_file = read_yaml(content, source, lambda line: f"{source}:{line}", findings)
    root = apply_overrides(in_file, overrides, findings)

    # Check each section; `given` holds the sound recipe values only.
    found = _top_level(root, findings)
    name = read_value(SECTIONS[""]["study"].kind, found["study"], "study", findings) if "study" in found else ""
    data = _read_data(found["data"], findings) if "data" in found else {}
    given = read_recipe(found["recipe"], findings) if "recipe" in found else {}
    search = _read_search(found["search"], findings) if "search" in found else SearchSettings()

    # Choices become dimensions, and the named rows are held against them.
    dimensions = tuple(Dimension(name, given[name]) for name in sorted(given, key=asking_place) if len(given[name]) > 1)
    rows: tuple[EnqueuedRow, ...] = ()
    if "recipe" in found and "search" in found and "enqueue" in found["search"].value:
        enqueue = found["search"].value["enqueue"]
        rows = read_enqueue(enqueue, found["recipe"], given, [d.name for d in dimensions], findings)
    findings.raise_if_any()

    # `root` only where a path needs one: torchvision's sets keep torchvision's own folder unless the user names another.
    if data.get("root"):
        data["root"] = str(Path(folder, Path(data["root"]).expanduser())) if folder else data["root"]
    elif data["source"].startswith(("folder:", "csv:")) or data.get("labels"):
        data["root"] = folder
    return Space(
        name=name,
        data=DataSettings(**data),
        search=search,
        fixed={name: choices[0] for name, choices in given.items() if len(choices) == 1},
        dimensions=dimensions,
        enqueue=rows,
        source=source,
        text=content.decode() if isinstance(content, bytes) else content,
        lines=_lines(in_file, source),
        overrides=tuple(overrides),
    )


def _lines(root: Node, source: str) -> dict[str, int]:
    """Dotted key to line, for whatever stands in the file."""
    places = ((key, node.where.removeprefix(f"{source}:")) for key, node in root.walk("") if key)
    return {key: int(line) for key, line in places if line.isdecimal()}


def _top_level(root: Node, findings: Findings) -> dict[str, Node]:
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


def _read_data(section: Node, findings: Findings) -> dict[str, Any]:
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


def _read_search(section: Node, findings: Findings) -> SearchSettings:
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
