"""`torchvision:NAME`: every classification set that torchvision knows by name, indexed through its own class.

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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from searchft.data.records import Content, Record, Records, printable
from searchft.errors import InputError, Problem, first_line
from searchft.files import lock_file
from searchft.recipe import DataSettings
from searchft.wording import near

KEY = "data.source"

DOWNLOAD_TIMEOUT_S = 30.0
"""A server that says nothing for so long has failed."""

Pairs = Iterable[tuple[Any, Any]]
"""(content, label) of each image of one split; a label is None where the set keeps it secret."""


def _indexed(dataset: Any) -> Pairs:
    """`dataset[i]` of torchvision's own class: a path where `loader` or Pillow gives one, else the image's pixels."""
    for i in range(len(dataset)):
        image, label = dataset[i]
        path = image if isinstance(image, Path | str) else getattr(image, "filename", "")
        yield Path(path) if path else np.asarray(image), label


def _pcam(dataset: Any) -> Pairs:
    with dataset.h5py.File(dataset._base_folder / dataset._FILES[dataset._split]["targets"][0]) as file:
        labels = np.asarray(file["y"]).reshape(-1)
    return [(_Fetch(dataset, i), label) for i, label in enumerate(labels)]


def _lsun(dataset: Any) -> Pairs:
    labels = np.repeat(range(len(dataset.indices)), np.diff([0, *dataset.indices]))
    return [(_Fetch(dataset, i), label) for i, label in enumerate(labels)]


@dataclass(frozen=True)
class _Fetch:
    """An image of a set too large to be read at once. One thread at a time: LSUN allows a single reader."""

    dataset: Any
    index: int

    def __call__(self) -> Any:
        with _fetching:
            return self.dataset[self.index][0]


_fetching = threading.Lock()


_TRAIN_TEST = (("train", {"train": True}), ("test", {"train": False}))
_SPLIT_TRAIN_TEST = (("train", {"split": "train"}), ("test", {"split": "test"}))
_SPLIT_TRAIN_VAL = (("train", {"split": "train"}), ("val", {"split": "val"}))
_SPLIT_ALL = (*_SPLIT_TRAIN_VAL, ("test", {"split": "test"}))
_COUNTRY_SPLITS = (("train", {"split": "train"}), ("val", {"split": "valid"}), ("test", {"split": "test"}))
_PET_SPLITS = (("train", {"split": "trainval"}), ("test", {"split": "test"}))
_NATURALIST_SPLITS = (("train", {"version": "2021_train_mini"}), ("val", {"version": "2021_valid"}))
_LSUN_SPLITS = (("train", {"classes": "train"}), ("val", {"classes": "val"}))
_PLACES_SPLITS = (("train", {"split": "train-standard"}), ("val", {"split": "val"}))
_WHOLE: tuple[tuple[str | None, Mapping[str, Any]], ...] = ((None, {}),)


@dataclass(frozen=True)
class TorchvisionSet:
    """What has to be known of one of torchvision's sets beside its class."""

    splits: tuple[tuple[str | None, Mapping[str, Any]], ...]
    """(our split or None for a set to split, keyword arguments)."""
    folder: str
    """What lies in the root once the set is there (a folder or a file), for messages."""
    classes: str = "classes"
    """Attribute with the class names: a sequence, or a mapping from name to label; empty: labels are the names."""
    files: bool = False
    """Whether it takes a `loader`: then indexing gives paths, and no image is decoded to learn its label."""
    pairs: Callable[[Any], Pairs] = _indexed
    download: bool = True
    """Whether torchvision can get it."""
    root: str = ""
    """Sub-folder of the usual root to use as root, for sets that would fill it with bare files."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments for every split."""
    takes_root: bool = True


_Set = TorchvisionSet
TORCHVISION_SETS: Mapping[str, TorchvisionSet] = MappingProxyType(
    {
        "CIFAR10": _Set(_TRAIN_TEST, "cifar-10-batches-py"),
        "CIFAR100": _Set(_TRAIN_TEST, "cifar-100-python"),
        "CLEVRClassification": _Set(_SPLIT_TRAIN_VAL, "clevr", "", files=True),
        "Caltech101": _Set(_WHOLE, "caltech101", "categories"),
        "Caltech256": _Set(_WHOLE, "caltech256", "categories"),
        "Country211": _Set(_COUNTRY_SPLITS, "country211", files=True),
        "DTD": _Set(_SPLIT_ALL, "dtd", files=True),
        "EMNIST": _Set(_TRAIN_TEST, "EMNIST/raw", extra={"split": "balanced"}),
        "EuroSAT": _Set(_WHOLE, "eurosat", files=True),
        "FER2013": _Set(_SPLIT_TRAIN_TEST, "fer2013", "", download=False),
        "FGVCAircraft": _Set(_SPLIT_ALL, "fgvc-aircraft-2013b", files=True),
        "FakeData": _Set(_WHOLE, "", "", download=False, takes_root=False, extra={"size": 400, "image_size": (3, 32, 32)}),
        "FashionMNIST": _Set(_TRAIN_TEST, "FashionMNIST/raw"),
        "Flowers102": _Set(_SPLIT_ALL, "flowers-102", files=True),
        "Food101": _Set(_SPLIT_TRAIN_TEST, "food-101", files=True),
        "GTSRB": _Set(_SPLIT_TRAIN_TEST, "gtsrb", "", pairs=lambda d: [(Path(file), label) for file, label in d._samples]),
        "INaturalist": _Set(
            _NATURALIST_SPLITS,
            "2021_train_mini and 2021_valid",
            "all_categories",
            files=True,
            download=False,
            root="inaturalist",
        ),
        "ImageNet": _Set(
            _SPLIT_TRAIN_VAL,
            "the ILSVRC2012 archives, or train, val and meta.bin",
            files=True,
            download=False,
            root="imagenet",
        ),
        "Imagenette": _Set(_SPLIT_TRAIN_VAL, "imagenette2", files=True),
        "KMNIST": _Set(_TRAIN_TEST, "KMNIST/raw"),
        "LFWPeople": _Set(_WHOLE, "lfw-py", "class_to_idx", files=True, download=False),
        "LSUN": _Set(_LSUN_SPLITS, "*_lmdb", pairs=_lsun, download=False, root="lsun"),
        "MNIST": _Set(_TRAIN_TEST, "MNIST/raw"),
        "Omniglot": _Set(_WHOLE, "omniglot-py", "_characters", files=True),
        "OxfordIIITPet": _Set(_PET_SPLITS, "oxford-iiit-pet", pairs=lambda d: zip(d._images, d._labels, strict=True)),
        "PCAM": _Set(_SPLIT_ALL, "pcam", "", pairs=_pcam),
        "Places365": _Set(_PLACES_SPLITS, "data_256_standard and val_256", files=True, root="places365", extra={"small": True}),
        "QMNIST": _Set(_TRAIN_TEST, "QMNIST/raw"),
        "RenderedSST2": _Set(_SPLIT_ALL, "rendered-sst2", files=True),
        "SEMEION": _Set(_WHOLE, "semeion.data", ""),
        "STL10": _Set(_SPLIT_TRAIN_TEST, "stl10_binary"),
        "SUN397": _Set(_WHOLE, "SUN397", files=True),
        "SVHN": _Set(_SPLIT_TRAIN_TEST, "train_32x32.mat and test_32x32.mat", ""),
        "StanfordCars": _Set(_SPLIT_TRAIN_TEST, "stanford_cars", files=True),
        "USPS": _Set(_TRAIN_TEST, "usps.bz2 and usps.t.bz2", ""),
    }
)
"""torchvision's class name to how it is read. EMNIST is its `balanced` part, Imagenette the full-size one."""

NOT_CLASSIFICATION = MappingProxyType(
    {"CelebA": "40 attributes and an identity instead of one class"}
    | dict.fromkeys(("Flickr8k", "Flickr30k", "SBU", "CocoCaptions"), "captions")
    | dict.fromkeys(("CocoDetection", "VOCDetection", "WIDERFace", "Kitti"), "boxes")
    | dict.fromkeys(("VOCSegmentation", "Cityscapes", "SBDataset"), "masks")
    | dict.fromkeys(("MovingMNIST", "UCF101", "HMDB51", "Kinetics"), "videos")
    | {"LFWPairs": "pairs of images", "PhotoTour": "pairs of patches"}
)
"""Sets that do not have one class per image, and what they have instead."""


def read_torchvision(settings: DataSettings, written: str, cache: Path) -> Records:
    """The named set, downloaded if need be. Raises InputError for an unknown name or where it cannot be had."""
    row = TORCHVISION_SETS.get(written)
    where = f"torchvision:{written}"
    if row is None:
        raise InputError(Problem(where, KEY, _unknown(written)))
    roots = [Path(settings.root) / row.root] if settings.root else []
    # Only the usual root may be created: a space's folder is not ours to fill.
    roots = [root for root in roots if not row.takes_root or _holds(root, row)] + [cache / "torchvision" / row.root]
    error: Exception | None = None
    for root in roots:
        try:
            return _read(written, row, root, download=False)
        except Exception as caught:  # torchvision raises RuntimeError, ValueError, OSError, ImportError … for a missing set
            error = error or caught
            if isinstance(caught, ModuleNotFoundError):
                rule = f"needs the package {caught.name}: pip install {caught.name}"
                raise InputError(Problem(where, KEY, rule)) from caught
            if "pip install" in str(caught):
                raise InputError(Problem(where, KEY, f"cannot be read: {first_line(caught)}")) from caught
    if row.download:
        try:
            with lock_file(roots[-1] / f".{written}.lock"):
                return _read(written, row, roots[-1], download=True)
        except Exception as caught:
            error = caught
    verb = "cannot be downloaded" if row.download else "cannot be downloaded by torchvision"
    places = " or ".join(
        map(str, [cache / "torchvision" / row.root, *([Path(settings.root) / row.root] if settings.root else [])])
    )
    rule = f"is not here and {verb} ({first_line(error)}). Put {row.folder} into {places}"
    raise InputError(Problem(where, KEY, rule)) from error


def _unknown(name: str) -> str:
    if name in NOT_CLASSIFICATION:
        return f"must name a classification set, but {name} has {NOT_CLASSIFICATION[name]}"
    meant = near(name.replace("-", "").replace("_", ""), TORCHVISION_SETS)
    hint = f", did you mean {meant}?" if meant else "."
    return f"must name one of torchvision's classification sets but got {name!r}{hint} Known: {', '.join(TORCHVISION_SETS)}"


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
    import torchvision

    build = getattr(torchvision.datasets, name, None)
    if build is None:
        raise RuntimeError(f"this torchvision ({torchvision.__version__}) does not know it")
    common: dict[str, Any] = dict(row.extra)
    if row.takes_root:
        root.mkdir(parents=True, exist_ok=True)
        common["root"] = str(root)
    if row.download:
        common["download"] = download
    if row.files:
        common["loader"] = Path
    records: list[Record] = []
    classes: tuple[str, ...] = ()
    with _quietly():
        for split, keywords in row.splits:
            if name == "FER2013" and split == "test" and not _fer_has_test(root):
                continue
            dataset = build(**common, **keywords)
            classes = classes or _class_names(dataset, row)
            known = [(content, int(label)) for content, label in row.pairs(dataset) if label is not None]
            records += [
                Record(_name(content, root, split, i), label, split, content) for i, (content, label) in enumerate(known)
            ]
    used = sorted({record.label for record in records})
    index = {label: i for i, label in enumerate(used)}  # some sets' lists of names hold more than the images
    records = [replace(record, label=index[record.label]) for record in records]
    where = f"torchvision:{name} in {root}" if row.takes_root else f"torchvision:{name}"
    return Records(where, tuple(classes[label] if classes else str(label) for label in used), records)


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
