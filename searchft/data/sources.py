"""The sources of images: one row each. `data.source` is a row's name, with a colon and an argument where it takes one."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from searchft.data.csv_table import read_csv
from searchft.data.folder import read_folder
from searchft.data.packaged import read_fashion_mnist, read_orl_faces
from searchft.data.records import Records, find_place, refusal, some
from searchft.data.torchvision_sets import read_torchvision
from searchft.recipe import DataSettings
from searchft.wording import near


@dataclass(frozen=True)
class Source:
    """One kind of source."""

    argument: str  # what stands after the colon (`PATH`), or an empty string
    read: Callable[[DataSettings, str, Path], Records]
    """From settings, argument and cache folder to what is there. Raises InputError."""


SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "folder": Source("PATH", lambda settings, written, cache: read_folder(settings, written)),
        "csv": Source("PATH", lambda settings, written, cache: read_csv(settings, written)),
        "torchvision": Source("NAME", read_torchvision),
        "orl_faces": Source("", lambda settings, written, cache: read_orl_faces(settings, written)),
        "fashion_mnist": Source("", read_fashion_mnist),
    }
)


def read_source(settings: DataSettings, cache: Path) -> Records:
    """The images of `settings.source`, with class names as `settings.labels` has them. Raises InputError."""
    kind, colon, argument = settings.source.partition(":")
    source = SOURCES.get(kind)
    if source is None or bool(source.argument) != bool(colon):
        known = {name: f"{name}:{row.argument}" if row.argument else name for name, row in SOURCES.items()}
        meant = near(kind, SOURCES)
        hint = f", did you mean {known[meant]!r}?" if meant else ""
        raise refusal(settings.source, f"must be one of {', '.join(known.values())} but got {settings.source!r}{hint}")
    records = source.read(settings, argument, cache)
    if settings.labels:
        _rename(records, settings)
    # One would shift every line behind it in an exported labels.txt.
    odd = [name for name in records.classes if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in name)]
    if odd:
        rule = f"must have class names of one line without control characters but got {some(map(repr, odd))}: rename them"
        raise refusal(records.where, rule)
    return records


def _rename(records: Records, settings: DataSettings) -> None:
    """Applies the JSON file that maps the source's class names to better ones."""
    place = find_place(settings.labels, settings.root, "file", "data.labels")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := _repeated(key for key, _ in pairs):
            raise ValueError(f"holds a name twice: {twice}")
        return dict(pairs)

    try:
        names = json.loads(place.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
        if not isinstance(names, dict) or not all(isinstance(v, str) and v.strip() for v in names.values()):
            raise ValueError("is not one object with text values")
    except (ValueError, RecursionError, OSError) as error:
        rule = f'must be a JSON object from folder name to class name ({{"n01440764": "tench"}}) but {error}'
        raise refusal(place, rule, "data.labels") from error
    classes = tuple(names.get(name, name) for name in records.classes)
    if twice := _repeated(classes):
        raise refusal(place, f"must give each class a name of its own, but two have the same: {twice}", "data.labels")
    unnamed = [name for name in records.classes if name not in names]
    if unnamed:
        records.notes.append(f"{len(unnamed)} classes are not in {place.name} and keep their names: {some(unnamed, 5)}")
    records.classes = classes


def _repeated(names: Iterable[str]) -> str:
    return some(repr(name) for name, count in Counter(names).items() if count > 1)
