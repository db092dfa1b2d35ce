"""YAML file and `--set` overrides -> Space, or every problem at once. Top to bottom: read, override, check, build."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from searchft.errors import InputError
from searchft.recipe import DataSettings, SearchSettings
from searchft.space.choices import read_recipe
from searchft.space.enqueue import EnqueuedRow, read_enqueue
from searchft.space.overrides import apply_overrides
from searchft.space.sections import read_data, read_search, read_study, top_level
from searchft.space.space import Dimension, Space, asking_place
from searchft.space.yaml_reader import MAX_BYTES, Findings, Node, read_yaml
from searchft.wording import near


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
    found = top_level(root, findings)
    name = read_study(found["study"], findings) if "study" in found else ""
    data = read_data(found["data"], findings) if "data" in found else {}
    given = read_recipe(found["recipe"], findings) if "recipe" in found else {}
    search = read_search(found["search"], findings) if "search" in found else SearchSettings()

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
