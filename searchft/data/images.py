"""From a space's data settings to images ready for training: found, split, checked, decoded once, described.

`open_images` is the driver's and builds what is missing; `reopen_images` is a worker's and only opens what the driver has built.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from searchft.data.records import SPLITS, Record, Records, some
from searchft.data.sources import read_source
from searchft.data.split import split_images
from searchft.data.store import Preprocessing, Progress, open_store, read_store, source_digests
from searchft.errors import InputError, Problem, StorageError
from searchft.files import read_sealed, write_sealed
from searchft.recipe import DataFacts, DataSettings, SpaceFacts, digest

VIEW = "view.sealed"
"""What a source calls the rows of a store: classes, labels, names, splits. Several sources may share one store."""

Rows = Sequence[tuple[str, Record]]  # (split, record), ordered by split, class and name: as in the store


@dataclass(frozen=True)
class ImageSplit:
    """The images of train, val or test, ordered by class, then name."""

    images: np.ndarray  # uint8 [N, S, S, 3], RGB, memory-mapped copy-on-write
    labels: np.ndarray  # int64 [N]: indices into the classes
    names: list[str]  # paths relative to the source, or numbers, for people

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Images:
    """All splits of a data set, decoded."""

    folder: Path  # what `reopen_images` takes in another process
    facts: DataFacts
    size: int  # side of the stored squares in pixels
    splits: Mapping[str, ImageSplit]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""
        return self.facts.classes

    def split(self, name: str) -> ImageSplit:
        """The images of `train`, `val` or `test` (empty where there is none). Raises KeyError for another name."""
        return self.splits[name]


def open_images(settings: DataSettings, cache: Path, progress: Progress | None = None) -> Images:
    """Finds, splits, checks and decodes the images of `settings`, or finds them decoded under `cache`.

    Raises InputError with everything that is wrong with the data, StorageError where the disk fails.
    """
    # What there is, and where it goes.
    preprocessing = Preprocessing(settings.store_size or settings.image_size, settings.resize, settings.interpolation)
    source = read_source(settings, cache)
    _check_share(source, len(source.records), source.unreadable, settings)
    splits = _assign(source, settings)
    _check_classes(source, Counter((split, r.label) for split, r in zip(splits, source.records, strict=True)))
    rows: Rows = sorted(
        ((split, record) for split, record in zip(splits, source.records, strict=True) if split is not None),
        key=lambda row: (SPLITS.index(row[0]), row[1].label, row[1].name),
    )

    # What is in the files.
    found = source_digests([record for _, record in rows], source.where, cache / "images", progress)
    unreadable = [*source.unreadable]
    unreadable += [(record.place, reason) for (_, record), (_, reason) in zip(rows, found, strict=True) if reason]
    rows = [row for row, (_, reason) in zip(rows, found, strict=True) if not reason]
    digests = [digest for digest, reason in found if not reason]
    if rows:
        pixels = open_store([record for _, record in rows], digests, preprocessing, cache / "images", progress)
        unreadable += [(rows[i][1].place, reason) for i, reason in pixels.rejected.items()]
        digests = [digest for i, digest in enumerate(digests) if i not in pixels.rejected]
        rows = [row for i, row in enumerate(rows) if i not in pixels.rejected]
    _check_share(source, len(rows), unreadable, settings)
    _check_classes(source, Counter((split, record.label) for split, record in rows))

    # What it is, in words and numbers.
    facts = _describe(settings, preprocessing, source, rows, digests, sorted(unreadable))
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
    if len(view["rows"]) != len(values):
        raise StorageError(f"{folder} does not fit its images: run again and it is built anew", str(folder))
    splits = {}
    start = 0
    for name in SPLITS:
        mine = [(label, text) for split, label, text in view["rows"] if split == name]
        labels = np.array([label for label, _ in mine], dtype=np.int64)
        splits[name] = ImageSplit(values[start : start + len(mine)], labels, [text for _, text in mine])
        start += len(mine)
    return Images(folder, SpaceFacts.from_json(view["facts"]).data, view["size"], splits)


def _assign(source: Records, settings: DataSettings) -> list[str | None]:
    """The split of each record: the source's own, with val taken from train where it has none, or ours."""
    given: list[str | None] = [record.split for record in source.records]
    if "val" in given and "train" in given:
        return given
    has_own = any(given)
    pool = [i for i, split in enumerate(given) if split == "train" or not has_own]
    chosen = split_images(
        [source.records[i].name for i in pool],
        [source.records[i].label for i in pool],
        source.classes,
        settings.split,
        settings.split_seed,
        keep_test=has_own,
        where=source.where,
    )
    for i, split in zip(pool, chosen, strict=True):
        given[i] = split
    if has_own and pool:
        source.notes.append(f"the source has no val split: {chosen.count('val')} images of train became val")
    if left := given.count(None):
        source.notes.append(f"{left} images are not used: data.split asks for fewer")
    return given


def _check_share(source: Records, readable: int, unreadable: Sequence[tuple[str, str]], settings: DataSettings) -> None:
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
    raise InputError([Problem(source.where, "data.source", rule), *first])


def _check_classes(source: Records, counts: Mapping[tuple[str | None, int], int]) -> None:
    """Stops if this is no classification: one class, an empty split, a class that train lacks. `counts` by split and label."""
    classes = range(len(source.classes))
    problems = []
    if len(classes) < 2:
        only = f"has only {source.classes[0]!r}" if classes else "has none"
        problems.append(f"must have at least two classes but {only}")
    totals = {split: sum(counts[split, label] for label in classes) for split in SPLITS}
    most = max((sum(counts[split, label] for split in (*SPLITS, None)) for label in classes), default=0)
    single = ": every class has a single image, and needs two at least, one to learn from and one to check"
    for split in ("train", "val"):
        if not totals[split]:
            problems.append(f"must have images in {split} but has none{single if most == 1 else ''}")
    for label in classes if totals["train"] else ():
        if not counts["train", label]:
            elsewhere = [f"{counts[split, label]} in {split}" for split in ("val", "test") if counts[split, label]]
            there = f" (but {' and '.join(elsewhere)})" if elsewhere else ""
            name = source.classes[label]
            problems.append(
                f"must have an image in train for every class but {name!r} has none{there}; add some or remove the class"
            )
    if len(problems) > 10:
        problems[10:] = [f"and {len(problems) - 10} more classes lack images in train"]
    if problems:
        raise InputError(Problem(source.where, "data.source", rule) for rule in problems)


def _describe(
    settings: DataSettings,
    preprocessing: Preprocessing,
    source: Records,
    rows: Rows,
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
    across = [group for group in twins if len({split for split, _ in group}) > 1]
    notes = list(source.notes)
    if torn := [group for group in twins if len({record.label for _, record in group}) > 1]:
        first = " = ".join(record.name for _, record in torn[0][:2])
        stand = "image stands" if len(torn) == 1 else "images stand"
        notes.append(f"{len(torn)} {stand} byte for byte in more than one class, such as {first}")
    if repeated := sum(len(group) - 1 for group in twins if group not in across):
        what = "image repeats" if repeated == 1 else "images repeat"
        notes.append(f"{repeated} {what} another of the same split byte for byte")
    if "test" not in present:
        notes.append("there is no test split: nothing is left to measure the winner on")
    lines = "\n".join(f"{split} {record.label} {found}" for (split, record), found in zip(rows, digests, strict=True))
    content = hashlib.sha256(lines.encode()).hexdigest()
    return DataFacts(
        source=settings.source,
        fingerprint=digest([content, preprocessing.parts(), settings.image_size, len(source.classes)]),
        classes=source.classes,
        counts=tuple((split, tuple(counts[split, label] for label in range(len(source.classes)))) for split in present),
        unreadable=tuple(f"{path}: {reason}" for path, reason in unreadable),
        leaks=tuple(tuple(f"{split}: {record.name}" for split, record in group) for group in across),
        notes=tuple(notes),
    )
