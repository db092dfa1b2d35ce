"""From a space's data settings to images ready for training: found, split, checked, decoded once, described.

`open_images` is the driver's: it builds what is missing. `reopen_images` is a worker's: it only opens and checks what
the driver has built. Both give the same `Images`. The settings themselves were checked when the space was read.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from searchft.data.hashes import source_digests
from searchft.data.records import SPLITS, Record, Records, some
from searchft.data.sources import read_source
from searchft.data.split import split_images
from searchft.data.store import Preprocessing, open_store, read_store
from searchft.errors import InputError, Problem, StorageError
from searchft.files import read_sealed, write_sealed
from searchft.recipe import DataFacts, DataSettings, SpaceFacts, digest

KEY = "data.source"

VIEW = "view.sealed"
"""What a source calls the rows of a store: classes, labels, names, splits. Several sources may share one store."""


@dataclass(frozen=True)
class ImageSplit:
    """The images of train, val or test."""

    images: np.ndarray
    """uint8 [N, S, S, 3], RGB, memory-mapped copy-on-write; ordered by class, then name."""
    labels: np.ndarray
    """int64 [N]: indices into the classes."""
    names: list[str]
    """Paths relative to the source, or numbers, for people."""

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Images:
    """All splits of a data set, decoded."""

    folder: Path
    """What `reopen_images` takes in another process."""
    facts: DataFacts
    size: int
    """Side of the stored squares in pixels."""
    splits: Mapping[str, ImageSplit]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        return self.facts.classes

    def split(self, name: str) -> ImageSplit:
        """The images of `train`, `val` or `test` (empty where there is none). Raises KeyError for another name."""
        return self.splits[name]


def open_images(settings: DataSettings, cache: Path, progress: Callable[[int, int], None] | None = None) -> Images:
    """Finds, splits, checks and decodes the images of `settings`, or finds them decoded under `cache`.

    `progress` receives (done, all) now and then while images are hashed and decoded. Raises InputError with everything
    that is wrong with the data, StorageError where the disk fails.
    """
    # What there is, and where it goes.
    preprocessing = Preprocessing(settings.store_size or settings.image_size, settings.resize, settings.interpolation)
    records = read_source(settings, cache)
    _check_share(records, len(records.records), records.unreadable, settings)
    splits = _assign(records, settings)
    _check_classes(records, [r.label for r in records.records], splits)
    rows = sorted(
        ((split, record) for split, record in zip(splits, records.records, strict=True) if split is not None),
        key=lambda row: (SPLITS.index(row[0]), row[1].label, row[1].name),
    )

    # What is in the files.
    digests = source_digests([record for _, record in rows], records.where, cache / "images", progress)
    unreadable = list(records.unreadable)
    unreadable += [(record.place, reason) for (_, record), (_, reason) in zip(rows, digests, strict=True) if reason]
    rows = [row for row, (_, reason) in zip(rows, digests, strict=True) if not reason]
    found = [digest for digest, reason in digests if not reason]
    if rows:
        pixels = open_store([record for _, record in rows], found, preprocessing, cache / "images", progress)
        unreadable += [(rows[i][1].place, reason) for i, reason in pixels.rejected.items()]
        found = [digest for i, digest in enumerate(found) if i not in pixels.rejected]
        rows = [row for i, row in enumerate(rows) if i not in pixels.rejected]
    _check_share(records, len(rows), unreadable, settings)
    _check_classes(records, [record.label for _, record in rows], [split for split, _ in rows])

    # What it is, in words and numbers.
    facts = _describe(settings, preprocessing, records, rows, found, sorted(unreadable))
    view = {
        "facts": SpaceFacts(facts, {}).to_json(),
        "size": preprocessing.size,
        "rows": [[split, record.label, record.name] for split, record in rows],
    }
    folder = pixels.folder / hashlib.sha256(json.dumps(view).encode()).hexdigest()[:16]
    try:
        read_sealed(folder / VIEW)
    except (FileNotFoundError, StorageError):
        write_sealed(folder / VIEW, view)
    return _images(folder, view, pixels.values)


def reopen_images(folder: Path) -> Images:
    """Opens what `open_images` built, by its `Images.folder`. Raises StorageError if it is gone or damaged."""
    try:
        return _images(folder, read_sealed(folder / VIEW), read_store(folder.parent).values)
    except FileNotFoundError as error:
        raise StorageError(f"{folder} is gone: run again and it is built anew", str(folder)) from error


def _images(folder: Path, view: Mapping, values: np.ndarray) -> Images:
    rows = view["rows"]
    if len(rows) != len(values):
        raise StorageError(f"{folder} does not fit its images: run again and it is built anew", str(folder))
    splits = {}
    start = 0
    for name in SPLITS:
        mine = [(label, text) for split, label, text in rows if split == name]
        stop = start + len(mine)
        labels = np.array([label for label, _ in mine], dtype=np.int64)
        splits[name] = ImageSplit(values[start:stop], labels, [text for _, text in mine])
        start = stop
    return Images(folder, SpaceFacts.from_json(view["facts"]).data, view["size"], splits)


def _assign(records: Records, settings: DataSettings) -> list[str | None]:
    """The split of each record: the source's own, with val taken from train where it has none, or ours."""
    given: list[str | None] = [record.split for record in records.records]
    if "val" in given and "train" in given:
        return given
    has_own = any(given)
    pool = [i for i, split in enumerate(given) if split == "train" or not has_own]
    chosen = split_images(
        [records.records[i].name for i in pool],
        [records.records[i].label for i in pool],
        records.classes,
        settings.split,
        settings.split_seed,
        keep_test=has_own,
        where=records.where,
    )
    for i, split in zip(pool, chosen, strict=True):
        given[i] = split
    if has_own and pool:
        records.notes.append(f"the source has no val split: {chosen.count('val')} images of train became val")
    left = given.count(None)
    if left:
        records.notes.append(f"{left} images are not used: data.split asks for fewer")
    return given


def _check_share(records: Records, readable: int, unreadable: Sequence[tuple[str, str]], settings: DataSettings) -> None:
    """Stops if too many images cannot be read, with the first ten."""
    total = readable + len(unreadable)
    if not unreadable or len(unreadable) <= settings.max_unreadable * total:
        return
    by_suffix = Counter(Path(path).suffix.lower() or "no suffix" for path, _ in unreadable)
    rule = (
        f"{len(unreadable)} of {total} images cannot be read ({some(f'{n} {s}' for s, n in by_suffix.most_common())}), "
        f"more than data.max_unreadable ({settings.max_unreadable:g}) allows. "
        "Convert or remove them, or allow more of them in the space. The first:"
    )
    first = [Problem(path, "", reason) for path, reason in sorted(unreadable)[:10]]
    raise InputError([Problem(records.where, KEY, rule), *first])


def _check_classes(records: Records, labels: Sequence[int], splits: Sequence[str | None]) -> None:
    """Stops if this is no classification: one class, an empty split, a class that train lacks."""
    classes = records.classes
    problems = []
    if len(classes) < 2:
        only = f"has only {classes[0]!r}" if classes else "has none"
        problems.append(Problem(records.where, KEY, f"must have at least two classes but {only}"))
    counts = Counter(zip(splits, labels, strict=True))
    totals = Counter(splits)
    for split in ("train", "val"):
        if not totals[split]:
            problems.append(Problem(records.where, KEY, f"must have images in {split} but has none{_too_few(labels)}"))
    if totals["train"]:
        for label, name in enumerate(classes):
            if counts["train", label]:
                continue
            elsewhere = [f"{counts[split, label]} in {split}" for split in ("val", "test") if counts[split, label]]
            there = f" (but {' and '.join(elsewhere)})" if elsewhere else ""
            rule = f"must have an image in train for every class but {name!r} has none{there}; add some or remove the class"
            problems.append(Problem(records.where, KEY, rule))
    if len(problems) > 10:
        problems = [*problems[:10], Problem(records.where, KEY, f"and {len(problems) - 10} more classes lack images in train")]
    if problems:
        raise InputError(problems)


def _too_few(labels: Sequence[int]) -> str:
    """Why a split came out empty, where it is the classes' size."""
    most = max(Counter(labels).values(), default=0)
    return ": every class has a single image, and needs two at least, one to learn from and one to check" if most == 1 else ""


def _describe(
    settings: DataSettings,
    preprocessing: Preprocessing,
    records: Records,
    rows: Sequence[tuple[str, Record]],
    digests: Sequence[str],
    unreadable: Sequence[tuple[str, str]],
) -> DataFacts:
    """Counts, leaks, notes and the fingerprint. `digests` belong to `rows`."""
    counts = Counter((split, record.label) for split, record in rows)
    present = [split for split in SPLITS if any(s == split for s, _ in rows)]
    same: dict[str, list[tuple[str, Record]]] = defaultdict(list)
    for row, found in zip(rows, digests, strict=True):
        same[found].append(row)
    twins = [group for group in same.values() if len(group) > 1]
    leaks = tuple(
        tuple(f"{split}: {record.name}" for split, record in group) for group in twins if len({split for split, _ in group}) > 1
    )
    notes = list(records.notes)
    torn = [group for group in twins if len({record.label for _, record in group}) > 1]
    if torn:
        first = " = ".join(record.name for _, record in torn[0][:2])
        stand = "image stands" if len(torn) == 1 else "images stand"
        notes.append(f"{len(torn)} {stand} byte for byte in more than one class, such as {first}")
    repeated = sum(len(group) - 1 for group in twins if len({split for split, _ in group}) == 1)
    if repeated:
        what = "image repeats" if repeated == 1 else "images repeat"
        notes.append(f"{repeated} {what} another of the same split byte for byte")
    if "test" not in present:
        notes.append("there is no test split: nothing is left to measure the winner on")
    lines = "\n".join(f"{split} {record.label} {found}" for (split, record), found in zip(rows, digests, strict=True))
    content = hashlib.sha256(lines.encode()).hexdigest()
    return DataFacts(
        source=settings.source,
        fingerprint=digest([content, preprocessing.parts(), settings.image_size, len(records.classes)]),
        classes=records.classes,
        counts=tuple((split, tuple(counts[split, label] for label in range(len(records.classes)))) for split in present),
        unreadable=tuple(f"{path}: {reason}" for path, reason in unreadable),
        leaks=leaks,
        notes=tuple(notes),
    )
