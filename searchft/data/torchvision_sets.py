"""`torchvision:NAME`: every classification set that torchvision knows by name, each a row of one table.

Files are looked for beside the space and in the cache folder, then downloaded into the cache folder by torchvision
itself. A set with a test but no validation split gives a part of train to val (see split.py); one with neither is split
whole. torchvision is imported only when such a set is read.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from searchft.data.records import Content, Record, Records, printable
from searchft.errors import InputError, Problem
from searchft.files import lock_file
from searchft.recipe import DataSettings
from searchft.wording import near

KEY = "data.source"

DOWNLOAD_TIMEOUT_S = 30.0
"""A server that says nothing for so long has failed."""

Pairs = tuple[Sequence[Content], Sequence[int]]
"""Contents and labels of one split."""


def _arrays(images: str = "data", labels: str = "targets") -> Callable[[Any], Pairs]:
    """Reads sets that hold all pictures in one array: [N, H, W], [N, H, W, 3] or [N, 3, H, W]."""

    def read(dataset: Any) -> Pairs:
        array = np.asarray(getattr(dataset, images))
        if array.ndim == 4 and array.shape[1] == 3 and array.shape[3] != 3:
            array = array.transpose(0, 2, 3, 1)
        numbers = np.asarray(getattr(dataset, labels))
        return list(array), (numbers if numbers.ndim == 1 else numbers[:, 0]).tolist()

    return read


def _files(images: str, labels: str) -> Callable[[Any], Pairs]:
    """Reads sets that keep paths and labels in two lists."""

    def read(dataset: Any) -> Pairs:
        return [Path(file) for file in getattr(dataset, images)], list(getattr(dataset, labels))

    return read


def _samples(attribute: str = "samples") -> Callable[[Any], Pairs]:
    """Reads sets that keep (path, label) pairs."""

    def read(dataset: Any) -> Pairs:
        pairs = getattr(dataset, attribute)
        return [Path(pair[0]) for pair in pairs], [pair[1] for pair in pairs]

    return read


def _fetched(dataset: Any) -> Pairs:
    """Reads small sets whose pictures and labels come only from indexing."""
    return [_Fetch(dataset, i) for i in range(len(dataset))], [int(dataset[i][1]) for i in range(len(dataset))]


def _pcam(dataset: Any) -> Pairs:
    targets = dataset._base_folder / dataset._FILES[dataset._split]["targets"][0]
    with dataset.h5py.File(targets) as file:
        labels = np.asarray(file["y"]).reshape(-1).astype(int).tolist()
    return [_Fetch(dataset, i) for i in range(len(labels))], labels


def _fer2013(dataset: Any) -> Pairs:
    known = [(image, label) for image, label in dataset._samples if label is not None]
    return [np.asarray(image) for image, _ in known], [label for _, label in known]


def _caltech(folder: str, name: str) -> Callable[[Any], Pairs]:
    def read(dataset: Any) -> Pairs:
        root = Path(dataset.root) / folder
        files = [
            root / dataset.categories[label] / name.format(label + 1, number)
            for label, number in zip(dataset.y, dataset.index, strict=True)
        ]
        return files, list(dataset.y)

    return read


def _inaturalist(dataset: Any) -> Pairs:
    pairs = dataset.index
    return [Path(dataset.root) / dataset.all_categories[label] / name for label, name in pairs], [label for label, _ in pairs]


def _omniglot(dataset: Any) -> Pairs:
    pairs = dataset._flat_character_images
    folder = Path(dataset.target_folder)
    return [folder / dataset._characters[label] / name for name, label in pairs], [label for _, label in pairs]


def _lsun(dataset: Any) -> Pairs:
    starts = [0, *dataset.indices]
    labels = [label for label in range(len(dataset.indices)) for _ in range(starts[label], starts[label + 1])]
    return [_Fetch(dataset, i) for i in range(len(labels))], labels


@dataclass(frozen=True)
class _Fetch:
    """A picture that only its data set can get."""

    dataset: Any
    index: int

    def __call__(self) -> Any:
        # FakeData seeds torch's global generator, LSUN shares a transaction: one thread at a time.
        with _fetching:
            return self.dataset[self.index][0]


_fetching = threading.Lock()


_TRAIN_TEST = (("train", {"train": True}), ("test", {"train": False}))
_SPLIT_TRAIN_TEST = (("train", {"split": "train"}), ("test", {"split": "test"}))
_SPLIT_TRAIN_VAL = (("train", {"split": "train"}), ("val", {"split": "val"}))
_SPLIT_ALL = (*_SPLIT_TRAIN_VAL, ("test", {"split": "test"}))
_WHOLE: tuple[tuple[str | None, Mapping[str, Any]], ...] = ((None, {}),)


@dataclass(frozen=True)
class TorchvisionSet:
    """How one of torchvision's sets names its splits, and where it keeps pictures and labels."""

    splits: tuple[tuple[str | None, Mapping[str, Any]], ...]
    """(our split or None for a set to split, keyword arguments)."""
    read: Callable[[Any], Pairs]
    folder: str
    """What lies in the root once the set is there (a folder or a file), for messages."""
    classes: str = "classes"
    """Attribute with the class names: a sequence, or a mapping from name to label; empty: labels are the names."""
    download: bool = True
    """Whether torchvision can get it."""
    root: str = ""
    """Sub-folder of the usual root to use as root, for sets that would fill it with bare files."""
    extra: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Keyword arguments for every split."""
    takes_root: bool = True


TORCHVISION_SETS: Mapping[str, TorchvisionSet] = MappingProxyType(
    {
        "CIFAR10": TorchvisionSet(_TRAIN_TEST, _arrays(), "cifar-10-batches-py"),
        "CIFAR100": TorchvisionSet(_TRAIN_TEST, _arrays(), "cifar-100-python"),
        "CLEVRClassification": TorchvisionSet(_SPLIT_TRAIN_VAL, _files("_image_files", "_labels"), "clevr", ""),
        "Caltech101": TorchvisionSet(_WHOLE, _caltech("101_ObjectCategories", "image_{1:04d}.jpg"), "caltech101", "categories"),
        "Caltech256": TorchvisionSet(
            _WHOLE, _caltech("256_ObjectCategories", "{0:03d}_{1:04d}.jpg"), "caltech256", "categories"
        ),
        "Country211": TorchvisionSet(
            (("train", {"split": "train"}), ("val", {"split": "valid"}), ("test", {"split": "test"})), _samples(), "country211"
        ),
        "DTD": TorchvisionSet(_SPLIT_ALL, _files("_image_files", "_labels"), "dtd"),
        "EMNIST": TorchvisionSet(_TRAIN_TEST, _arrays(), "EMNIST/raw", extra={"split": "balanced"}),
        "EuroSAT": TorchvisionSet(_WHOLE, _samples(), "eurosat"),
        "FER2013": TorchvisionSet(_SPLIT_TRAIN_TEST, _fer2013, "fer2013", "", download=False),
        "FGVCAircraft": TorchvisionSet(_SPLIT_ALL, _files("_image_files", "_labels"), "fgvc-aircraft-2013b"),
        "FakeData": TorchvisionSet(
            _WHOLE, _fetched, "", "", download=False, takes_root=False, extra={"size": 400, "image_size": (3, 32, 32)}
        ),
        "FashionMNIST": TorchvisionSet(_TRAIN_TEST, _arrays(), "FashionMNIST/raw"),
        "Flowers102": TorchvisionSet(_SPLIT_ALL, _files("_image_files", "_labels"), "flowers-102"),
        "Food101": TorchvisionSet(_SPLIT_TRAIN_TEST, _files("_image_files", "_labels"), "food-101"),
        "GTSRB": TorchvisionSet(_SPLIT_TRAIN_TEST, _samples("_samples"), "gtsrb", ""),
        "INaturalist": TorchvisionSet(
            (("train", {"version": "2021_train_mini"}), ("val", {"version": "2021_valid"})),
            _inaturalist,
            "2021_train_mini and 2021_valid",
            "all_categories",
            download=False,
            root="inaturalist",
        ),
        "ImageNet": TorchvisionSet(
            _SPLIT_TRAIN_VAL, _samples(), "the ILSVRC2012 archives, or train, val and meta.bin", download=False, root="imagenet"
        ),
        "Imagenette": TorchvisionSet(_SPLIT_TRAIN_VAL, _samples("_samples"), "imagenette2"),
        "KMNIST": TorchvisionSet(_TRAIN_TEST, _arrays(), "KMNIST/raw"),
        "LFWPeople": TorchvisionSet(_WHOLE, _files("data", "targets"), "lfw-py", "class_to_idx", download=False),
        "LSUN": TorchvisionSet(
            (("train", {"classes": "train"}), ("val", {"classes": "val"})), _lsun, "*_lmdb", download=False, root="lsun"
        ),
        "MNIST": TorchvisionSet(_TRAIN_TEST, _arrays(), "MNIST/raw"),
        "Omniglot": TorchvisionSet(_WHOLE, _omniglot, "omniglot-py", "_characters"),
        "OxfordIIITPet": TorchvisionSet(
            (("train", {"split": "trainval"}), ("test", {"split": "test"})), _files("_images", "_labels"), "oxford-iiit-pet"
        ),
        "PCAM": TorchvisionSet(_SPLIT_ALL, _pcam, "pcam", ""),
        "Places365": TorchvisionSet(
            (("train", {"split": "train-standard"}), ("val", {"split": "val"})),
            _samples("imgs"),
            "data_256_standard and val_256",
            root="places365",
            extra={"small": True},
        ),
        "QMNIST": TorchvisionSet(_TRAIN_TEST, _arrays(), "QMNIST/raw"),
        "RenderedSST2": TorchvisionSet(_SPLIT_ALL, _samples("_samples"), "rendered-sst2"),
        "SEMEION": TorchvisionSet(_WHOLE, _arrays(labels="labels"), "semeion.data", ""),
        "STL10": TorchvisionSet(_SPLIT_TRAIN_TEST, _arrays(labels="labels"), "stl10_binary"),
        "SUN397": TorchvisionSet(_WHOLE, _files("_image_files", "_labels"), "SUN397"),
        "SVHN": TorchvisionSet(_SPLIT_TRAIN_TEST, _arrays(labels="labels"), "train_32x32.mat and test_32x32.mat", ""),
        "StanfordCars": TorchvisionSet(_SPLIT_TRAIN_TEST, _samples("_samples"), "stanford_cars"),
        "USPS": TorchvisionSet(_TRAIN_TEST, _arrays(), "usps.bz2 and usps.t.bz2", ""),
    }
)
"""torchvision's class name to how it is read. EMNIST is its `balanced` part, Imagenette the full-size one."""

NOT_CLASSIFICATION = MappingProxyType(
    {
        "CelebA": "40 attributes and an identity instead of one class",
        "Flickr8k": "captions",
        "Flickr30k": "captions",
        "SBU": "captions",
        "CocoCaptions": "captions",
        "CocoDetection": "boxes",
        "LFWPairs": "pairs of photos",
        "VOCDetection": "boxes",
        "VOCSegmentation": "masks",
        "Cityscapes": "masks",
        "WIDERFace": "boxes",
        "Kitti": "boxes",
        "SBDataset": "masks",
        "PhotoTour": "pairs of patches",
        "MovingMNIST": "videos",
        "UCF101": "videos",
        "HMDB51": "videos",
        "Kinetics": "videos",
    }
)
"""Sets that do not have one class per picture, and what they have instead."""


def read_torchvision(settings: DataSettings, written: str, cache: Path) -> Records:
    """The named set, downloaded if need be. Raises InputError for an unknown name or where it cannot be had."""
    row = TORCHVISION_SETS.get(written)
    if row is None:
        raise InputError(Problem(f"torchvision:{written}", KEY, _unknown(written)))
    usual = cache / "torchvision"
    roots = [Path(settings.root), usual] if settings.root else [usual]
    if row.root:
        roots = [root / row.root for root in roots]
    error: Exception | None = None
    # Only the usual root may be created: a space's folder is not ours to fill.
    for root in roots:
        if row.takes_root and root != roots[-1] and not _holds(root, row):
            continue
        try:
            return _read(written, row, root, download=False)
        except Exception as caught:  # torchvision raises RuntimeError, ValueError, OSError, ImportError … for a missing set
            error = error or caught
            if isinstance(caught, ModuleNotFoundError):
                rule = f"needs the package {caught.name}: pip install {caught.name}"
                raise InputError(Problem(f"torchvision:{written}", KEY, rule)) from caught
            if "pip install" in str(caught):
                raise InputError(Problem(f"torchvision:{written}", KEY, f"cannot be read: {_first_line(caught)}")) from caught
    if row.download:
        try:
            with lock_file(roots[-1] / f".{written}.lock"):
                return _read(written, row, roots[-1], download=True)
        except Exception as caught:
            error = caught
    verb = "cannot be downloaded" if row.download else "cannot be downloaded by torchvision"
    places = " or ".join(str(root) for root in reversed(roots))
    raise InputError(
        Problem(
            f"torchvision:{written}",
            KEY,
            f"is not here and {verb} ({_first_line(error)}). Put {row.folder} into {places}",
        )
    ) from error


def _unknown(name: str) -> str:
    if name in NOT_CLASSIFICATION:
        return f"must name a classification set, but {name} has {NOT_CLASSIFICATION[name]}"
    meant = near(name.replace("-", "").replace("_", ""), TORCHVISION_SETS)
    hint = f", did you mean {meant}?" if meant else "."
    return f"must name one of torchvision's classification sets but got {name!r}{hint} Known: {', '.join(TORCHVISION_SETS)}"


def _first_line(error: Exception | None) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def _holds(root: Path, row: TorchvisionSet) -> bool:
    """Whether any of the row's files lie in the root."""
    if row.root:
        return root.is_dir()
    return any((root / part).exists() for part in row.folder.split(" and "))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """torchvision's prints go to stderr (stdout belongs to the command's answer), and sockets give up in time."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _read(name: str, row: TorchvisionSet, root: Path, download: bool) -> Records:
    from searchft.uncompiled import torchvision

    build = getattr(torchvision.datasets, name, None)
    if build is None:
        raise RuntimeError(f"this torchvision ({torchvision.__version__}) does not know it")
    common: dict[str, Any] = dict(row.extra)
    if row.takes_root:
        root.mkdir(parents=True, exist_ok=True)
        common["root"] = str(root)
    if row.download:
        common["download"] = download
    records: list[Record] = []
    classes: tuple[str, ...] = ()
    with _quietly():
        for split, keywords in row.splits:
            if name == "FER2013" and split == "test" and not _fer_has_test(root):
                continue
            dataset = build(**common, **keywords)
            contents, labels = row.read(dataset)
            classes = classes or _class_names(dataset, row)
            for i, (content, label) in enumerate(zip(contents, labels, strict=True)):
                records.append(Record(_name(content, root, split, i), int(label), split, content))
    classes = classes or tuple(map(str, range(1 + max((r.label for r in records), default=0))))
    if name in ("INaturalist", "SUN397", "LFWPeople", "EMNIST", "CLEVRClassification"):
        records, classes = _without_empty(records, classes)
    return Records(f"torchvision:{name} in {root}" if row.takes_root else f"torchvision:{name}", classes, records)


def _fer_has_test(root: Path) -> bool:
    return any((root / "fer2013" / name).exists() for name in ("fer2013.csv", "icml_face_data.csv"))


def _class_names(dataset: Any, row: TorchvisionSet) -> tuple[str, ...]:
    named = getattr(dataset, row.classes, None) if row.classes else None
    if named is None:
        return ()
    if isinstance(named, Mapping):
        return tuple(sorted(named, key=lambda key: named[key]))
    names = [", ".join(n) if isinstance(n, tuple | list) else str(n) for n in named]
    # ImageNet has two kinds of crane and two of maillot: class names must stay different.
    return tuple(f"{n} ({i})" if names.count(n) > 1 else n for i, n in enumerate(names))


def _name(content: Content, root: Path, split: str | None, index: int) -> str:
    if isinstance(content, Path):
        return printable(Path(os.path.relpath(content, root)).as_posix())
    return f"{split}/{index:06d}" if split else f"{index:06d}"


def _without_empty(records: list[Record], classes: tuple[str, ...]) -> tuple[list[Record], tuple[str, ...]]:
    """Drops class names that no picture has: these sets' lists of names hold more than the pictures."""
    used = sorted({record.label for record in records})
    index = {label: i for i, label in enumerate(used)}
    return (
        [Record(r.name, index[r.label], r.split, r.content) for r in records],
        tuple(classes[label] for label in used),
    )
