"""`folder:PATH`: one sub-folder per class, under train, val and test or in one tree that is split.

Images may lie deeper than their class folder; links are followed, except round in a circle. Classes are sorted as torchvision's
ImageFolder sorts them, so that exported labels agree with other tools.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from searchft.data.decode import FOREIGN, READABLE, foreign_reason
from searchft.data.records import SPLIT_NAMES, SPLITS, Record, Records, find_place, printable, refusal, some
from searchft.errors import InputError, Problem
from searchft.recipe import DataSettings

IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"})
"""What systems leave behind beside images, in lower case. Names that begin with a dot are ignored too."""


@dataclass
class _Found:
    """What a walk came across."""

    images: list[tuple[str, str | None, str, Path]] = field(default_factory=list)  # (class, split, name, path)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    stray: list[Path] = field(default_factory=list)  # images that lie in no class folder
    other: Counter[str] = field(default_factory=Counter)  # suffixes of files that are no images


def read_folder(settings: DataSettings, written: str) -> Records:
    """The images under a folder. Raises InputError with every problem."""
    root = find_place(written, settings.root, "folder")
    splits = _split_folders(root, settings)
    found = _Found()
    notes = []
    for split, folder in splits.items():
        _read_classes(root, folder, split, found)
    if not splits:
        _read_classes(root, root, None, found)
    elif others := sorted(f.name for f in _folders(root) if f not in splits.values()):
        notes.append(f"folders beside the splits are not used: {some(others)}")
    classes = tuple(sorted(found.classes))
    other = [f"{count} {suffix}" for suffix, count in found.other.most_common()]
    if not found.images and not found.unreadable:
        if found.stray:
            instead = f"holds {len(found.stray)} images without class folders"
        elif classes:
            instead = f"its sub-folders hold no images ({some(classes, 5)})"
        else:
            instead = f"holds only {some(other[:5])}" if other else "is empty"
        rule = f"must hold one sub-folder of images per class but {instead}. "
        raise refusal(root, rule + "Expected PATH/cat/1.jpg, or PATH/train/cat/1.jpg beside PATH/val/cat/2.jpg")
    if found.stray:
        stray = some(map(printable, found.stray), 3)
        notes.append(f"{len(found.stray)} images lie in no class folder and are not used: {stray}")
    if other:
        notes.append(f"files that are no images are left aside: {some(other)}")
    index = {name: i for i, name in enumerate(classes)}
    records = [Record(name, index[label], split, path) for label, split, name, path in found.images]
    return Records(str(root), classes, sorted(records, key=lambda r: r.name), sorted(found.unreadable), notes)


def _split_folders(root: Path, settings: DataSettings) -> dict[str, Path]:
    """Split to folder: those that `settings.folders` names, else sub-folders called train, val (valid, validation) and test.

    They must hold sub-folders themselves: a class may be called `train` too. Empty: the whole tree is split later.
    """
    problems: list[Problem] = []

    def problem(rule: str, key: str = "data.source") -> None:
        problems.append(Problem(str(root), key, rule))

    chosen: dict[str, Path] = {}
    for split, name in settings.folders:
        chosen[split] = root / name
        if split not in SPLITS:
            problem(f"must name train, val or test but got {split!r}", "data.folders")
        elif not chosen[split].is_dir():
            near = some(sorted(f.name for f in _folders(root))) or "no sub-folders"
            problem(f"must be a sub-folder but {name!r} is none ({near})", f"data.folders.{split}")
    if settings.folders and "train" not in chosen:
        problem("must name the folder of train", "data.folders")
    for folder in [] if settings.folders else sorted(_folders(root)):
        usual = SPLIT_NAMES.get(folder.name.lower())
        if usual and _folders(folder):
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


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, sorted by name, without what systems leave behind."""
    with os.scandir(folder) as entries:
        mine = [entry for entry in entries if not (entry.name.startswith(".") or entry.name.lower() in IGNORED_NAMES)]
    return sorted(mine, key=lambda entry: entry.name)


def _folders(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(folder) if entry.is_dir()]


def _read_classes(root: Path, base: Path, split: str | None, found: _Found) -> None:
    for entry in _entries(base):
        path = Path(entry.path)
        if not entry.is_dir():
            if path.suffix.lower() in READABLE | FOREIGN:
                found.stray.append(path)
            else:
                found.other[path.suffix.lower() or "files without a suffix"] += 1
            continue
        # macOS writes é as two characters, Linux as one: the same class in train and val must have one name.
        label = unicodedata.normalize("NFC", printable(entry.name))
        found.classes.add(label)
        for file, name in _files(entry.path, path.relative_to(root).as_posix(), (os.path.realpath(base),)):
            suffix = os.path.splitext(file.name)[1].lower()
            if suffix in FOREIGN:
                found.unreadable.append((printable(file.path), foreign_reason(suffix)))
            elif suffix not in READABLE:
                found.other[suffix or "files without a suffix"] += 1
            elif file.is_file():
                found.images.append((label, split, printable(name), Path(file.path)))
            else:
                reason = "is a link to nothing" if file.is_symlink() else "is no regular file"
                found.unreadable.append((printable(file.path), reason))


def _files(folder: str, within: str, above: Sequence[str]) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Files below a folder, sorted, with their names below the root (`within`: the folder's own); `above`: real paths that led here."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _files(entry.path, f"{within}/{entry.name}", (*above, real))
        else:
            yield entry, f"{within}/{entry.name}"
