"""`folder:PATH`: one sub-folder per class, under train, val and test or in one tree that is split.

Images may lie deeper than their class folder. Links to files and folders are followed, except round in a circle.
Classes are sorted by plain text order, as torchvision's ImageFolder does, so that exported labels agree with other tools.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from searchft.data.decode import foreign_reason
from searchft.data.formats import FOREIGN, READABLE, is_ignored
from searchft.data.places import find_place
from searchft.data.records import SPLIT_NAMES, Record, Records, printable, some
from searchft.errors import InputError, Problem
from searchft.recipe import DataSettings

KEY = "data.source"


@dataclass
class _Found:
    """What a walk came across."""

    images: list[tuple[str, str | None, str, Path]] = field(default_factory=list)
    """(class, split, name, path)."""
    foreign: list[Path] = field(default_factory=list)
    broken: list[tuple[Path, str]] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    stray: list[Path] = field(default_factory=list)
    """Images that lie in no class folder."""
    other: Counter[str] = field(default_factory=Counter)
    """Suffixes of files that are no images."""


def read_folder(settings: DataSettings, written: str) -> Records:
    """The images under a folder.

    Split folders are those that `settings.folders` names, else sub-folders called train, val (valid, validation) and
    test that hold sub-folders themselves (a class may be called `train` too); without them the whole tree is split later.
    Raises InputError with every problem.
    """
    root = find_place(written, settings.root, KEY, "folder")
    splits = _split_folders(root, settings)
    found = _Found()
    notes = []
    if splits:
        for split, folder in splits.items():
            _read_classes(root, folder, split, found)
        others = sorted(f.name for f in _folders(root) if f not in splits.values() and not is_ignored(f.name))
        if others:
            notes.append(f"folders beside the splits are not used: {some(others)}")
    else:
        _read_classes(root, root, None, found)
    classes = tuple(sorted(found.classes))
    if not found.images and not found.foreign:
        rule = f"must hold one sub-folder of images per class but {_what_instead(found)}. "
        rule += "Expected PATH/cat/1.jpg, or PATH/train/cat/1.jpg beside PATH/val/cat/2.jpg"
        raise InputError(Problem(str(root), KEY, rule))
    if found.stray:
        notes.append(f"{len(found.stray)} images lie in no class folder and are not used: {some(map(_text, found.stray), 3)}")
    if found.other:
        notes.append(f"files that are no images are left aside: {some(f'{n} {s}' for s, n in found.other.most_common())}")
    index = {name: i for i, name in enumerate(classes)}
    records = [Record(name, index[label], split, path) for label, split, name, path in found.images]
    unreadable = [(_text(path), foreign_reason(path.suffix)) for path in found.foreign]
    unreadable += [(_text(path), reason) for path, reason in found.broken]
    return Records(str(root), classes, sorted(records, key=lambda r: r.name), sorted(unreadable), notes)


def _what_instead(found: _Found) -> str:
    if found.stray:
        return f"holds {len(found.stray)} images without class folders"
    if found.classes:
        return f"its sub-folders hold no images ({some(sorted(found.classes), 5)})"
    return "is empty" if not found.other else f"holds only {some(f'{n} {s}' for s, n in found.other.most_common(5))}"


def _split_folders(root: Path, settings: DataSettings) -> dict[str, Path]:
    """Split to folder, or nothing where the tree has no split of its own."""
    problems: list[Problem] = []

    def problem(rule: str, key: str = KEY) -> None:
        problems.append(Problem(str(root), key, rule))

    chosen: dict[str, Path] = {}
    for split, name in settings.folders:
        chosen[split] = root / name
        if split not in ("train", "val", "test"):
            problem(f"must name train, val or test but got {split!r}", "data.folders")
        elif not chosen[split].is_dir():
            near = some(sorted(f.name for f in _folders(root))) or "no sub-folders"
            problem(f"must be a sub-folder but {name!r} is none ({near})", f"data.folders.{split}")
    if settings.folders and "train" not in chosen:
        problem("must name the folder of train", "data.folders")
    for folder in [] if settings.folders else sorted(_folders(root)):
        usual = SPLIT_NAMES.get(folder.name.lower())
        if usual and any(not is_ignored(inner.name) for inner in _folders(folder)):
            if usual in chosen:
                twice = f"{chosen[usual].name} and {folder.name}"
                problem(f"must hold one folder for {usual} but holds {twice}; choose with data.folders")
            chosen[usual] = folder
    if chosen and "train" not in chosen and not settings.folders:
        there = some(sorted(folder.name for folder in chosen.values()))
        problem(f"must hold a folder `train` beside {there}; name it with data.folders")
    if problems:
        raise InputError(problems)
    return chosen


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir()]


def _read_classes(root: Path, base: Path, split: str | None, found: _Found) -> None:
    with os.scandir(base) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        if is_ignored(entry.name):
            continue
        path = Path(entry.path)
        if not entry.is_dir():
            if path.suffix.lower() in READABLE or path.suffix.lower() in FOREIGN:
                found.stray.append(path)
            else:
                found.other[path.suffix.lower() or "files without a suffix"] += 1
            continue
        # macOS writes é as two characters, Linux as one: the same class in train and val must have one name.
        label = unicodedata.normalize("NFC", _text(entry.name))
        found.classes.add(label)
        within = path.relative_to(root).as_posix()
        for file, name in _files(entry.path, within, (os.path.realpath(base),)):
            suffix = os.path.splitext(file.name)[1].lower()
            if suffix in FOREIGN:
                found.foreign.append(Path(file.path))
            elif suffix not in READABLE:
                found.other[suffix or "files without a suffix"] += 1
            elif file.is_file():
                found.images.append((label, split, _text(name), Path(file.path)))
            else:
                reason = "is a link to nothing" if file.is_symlink() else "is no regular file"
                found.broken.append((Path(file.path), reason))


def _files(folder: str, within: str, above: Sequence[str]) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Files below a folder, in sorted order, with their names below the root.

    `within` is the folder's own name there; `above` holds the real paths of the folders that led here.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        if is_ignored(entry.name):
            continue
        if entry.is_dir():
            yield from _files(entry.path, f"{within}/{entry.name}", (*above, real))
        else:
            yield entry, f"{within}/{entry.name}"


def _text(path: Path | str) -> str:
    return printable(str(path))
