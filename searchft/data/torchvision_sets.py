"""`torchvision:NAME`: every classification set that torchvision knows by name, indexed through its own class.

Files are looked for beside the space and in the cache folder, then downloaded into the cache folder by torchvision itself,
which is imported only when such a set is read.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from searchft.data.records import Content, Record, Records, printable, refusal
from searchft.errors import first_line
from searchft.files import lock_file, socket_timeout
from searchft.recipe import DataSettings
from searchft.wording import near

DOWNLOAD_TIMEOUT_S = 30.0  # a server that says nothing for so long has failed
Pairs = Iterable[tuple[Any, Any]]  # (content, label) of each image of one split; a label is None where the set keeps it secret


def _indexed(dataset: Any) -> Pairs:
    """`dataset[i]` of torchvision's own class: a path where `loader` or Pillow gives one, else the image's pixels."""
    for i in range(len(dataset)):
        image, label = dataset[i]
        path = image if isinstance(image, Path | str) else getattr(image, "filename", "")
        yield Path(path) if path else np.asarray(image), label


def _pcam(dataset: Any) -> Pairs:
    with dataset.h5py.File(dataset._base_folder / dataset._FILES[dataset._split]["targets"][0]) as file:
        return _fetched(dataset, np.asarray(file["y"]).reshape(-1))


def _lsun(dataset: Any) -> Pairs:
    return _fetched(dataset, np.repeat(range(len(dataset.indices)), np.diff([0, *dataset.indices])))


def _fetched(dataset: Any, labels: np.ndarray) -> Pairs:
    """Images of a set too large to be read at once, each fetched when it is needed, by one thread at a time: LSUN has one reader."""
    fetching = threading.Lock()

    def fetch(i: int) -> Any:
        with fetching:
            return dataset[i][0]

    return [(partial(fetch, i), label) for i, label in enumerate(labels)]


Splits = tuple[tuple[str | None, Mapping[str, Any]], ...]  # (our split or None for a set to split, keyword arguments)


def _by(keyword: str, **values: Any) -> Splits:
    """The splits of a set whose class takes `keyword`, by our name for each."""
    return tuple((split, {keyword: value}) for split, value in values.items())


_TRAIN_TEST = _by("train", train=True, test=False)
_SPLIT_TRAIN_TEST = _by("split", train="train", test="test")
_SPLIT_TRAIN_VAL = _by("split", train="train", val="val")
_SPLIT_ALL = _by("split", train="train", val="val", test="test")
_PETS = _by("split", train="trainval", test="test")
_PLACES = _by("split", train="train-standard", val="val")
_NATURE = _by("version", train="2021_train_mini", val="2021_valid")
_WHOLE: Splits = ((None, {}),)


@dataclass(frozen=True)
class TorchvisionSet:
    """What has to be known of one of torchvision's sets beside its class."""

    splits: Splits
    folder: str  # what lies in the root once the set is there (folders or files), for messages
    classes: str = "classes"
    """Attribute with the class names: a sequence, or a mapping from name to label; empty: labels are the names."""
    files: bool = False  # whether it takes a `loader`: then indexing gives paths, and no image is decoded to learn its label
    pairs: Callable[[Any], Pairs] = _indexed
    download: bool = True  # whether torchvision can get it
    root: str = ""  # sub-folder of the usual root to use as root, for sets that would fill it with bare files
    extra: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments for every split
    takes_root: bool = True


_Set = TorchvisionSet
_ILSVRC = "the ILSVRC2012 archives, or train, val and meta.bin"
TORCHVISION_SETS: Mapping[str, TorchvisionSet] = MappingProxyType(
    {
        "CIFAR10": _Set(_TRAIN_TEST, "cifar-10-batches-py"),
        "CIFAR100": _Set(_TRAIN_TEST, "cifar-100-python"),
        "CLEVRClassification": _Set(_SPLIT_TRAIN_VAL, "clevr", "", files=True),
        "Caltech101": _Set(_WHOLE, "caltech101", "categories"),
        "Caltech256": _Set(_WHOLE, "caltech256", "categories"),
        "Country211": _Set(_by("split", train="train", val="valid", test="test"), "country211", files=True),
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
            _NATURE, "2021_train_mini and 2021_valid", "all_categories", files=True, download=False, root="inaturalist"
        ),
        "ImageNet": _Set(_SPLIT_TRAIN_VAL, _ILSVRC, files=True, download=False, root="imagenet"),
        "Imagenette": _Set(_SPLIT_TRAIN_VAL, "imagenette2", files=True),
        "KMNIST": _Set(_TRAIN_TEST, "KMNIST/raw"),
        "LFWPeople": _Set(_WHOLE, "lfw-py", "class_to_idx", files=True, download=False),
        "LSUN": _Set(_by("classes", train="train", val="val"), "*_lmdb", pairs=_lsun, download=False, root="lsun"),
        "MNIST": _Set(_TRAIN_TEST, "MNIST/raw"),
        "Omniglot": _Set(_WHOLE, "omniglot-py", "_characters", files=True),
        "OxfordIIITPet": _Set(_PETS, "oxford-iiit-pet", pairs=lambda d: zip(d._images, d._labels, strict=True)),
        "PCAM": _Set(_SPLIT_ALL, "pcam", "", pairs=_pcam),
        "Places365": _Set(_PLACES, "data_256_standard and val_256", files=True, root="places365", extra={"small": True}),
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
        meant = near(written.replace("-", "").replace("_", ""), TORCHVISION_SETS)
        hint = f", did you mean {meant}?" if meant else "."
        rule = (
            f"must name one of torchvision's classification sets but got {written!r}{hint} Known: {', '.join(TORCHVISION_SETS)}"
        )
        if written in NOT_CLASSIFICATION:
            rule = f"must name a classification set, but {written} has {NOT_CLASSIFICATION[written]}"
        raise refusal(where, rule)
    usual = cache / "torchvision" / row.root
    beside = [Path(settings.root) / row.root] if settings.root else []
    error: Exception | None = None
    for root in [*beside, usual]:
        # Only the usual root may be created: a space's folder is not ours to fill.
        there = root.is_dir() if row.root else any((root / part).exists() for part in row.folder.split(" and "))
        if root != usual and row.takes_root and not there:
            continue
        try:
            return _read(written, row, root, download=False)
        except Exception as caught:  # torchvision raises RuntimeError, ValueError, OSError, ImportError … for a missing set
            error = error or caught
            if isinstance(caught, ModuleNotFoundError):
                raise refusal(where, f"needs the package {caught.name}: pip install {caught.name}") from caught
            if "pip install" in str(caught):
                raise refusal(where, f"cannot be read: {first_line(caught)}") from caught
    if row.download:
        try:
            with lock_file(usual / f".{written}.lock"):
                return _read(written, row, usual, download=True)
        except Exception as caught:
            error = caught
    verb = "cannot be downloaded" if row.download else "cannot be downloaded by torchvision"
    places = " or ".join(map(str, [usual, *beside]))
    raise refusal(where, f"is not here and {verb} ({first_line(error)}). Put {row.folder} into {places}") from error


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
    # torchvision's prints go to stderr: stdout belongs to the command's answer.
    with socket_timeout(DOWNLOAD_TIMEOUT_S), contextlib.redirect_stdout(sys.stderr):
        for split, keywords in row.splits:
            dataset = build(**common, **keywords)
            classes = classes or _class_names(dataset, row)
            known = [(content, int(label)) for content, label in row.pairs(dataset) if label is not None]
            for i, (content, label) in enumerate(known):
                records.append(Record(_name(content, root, split, i), label, split, content))
    used = sorted({record.label for record in records})
    index = {label: i for i, label in enumerate(used)}  # some sets' lists of names hold more than the images
    records = [replace(record, label=index[record.label]) for record in records]
    where = f"torchvision:{name} in {root}" if row.takes_root else f"torchvision:{name}"
    return Records(where, tuple(classes[label] if classes else str(label) for label in used), records)


def _class_names(dataset: Any, row: TorchvisionSet) -> tuple[str, ...]:
    named = getattr(dataset, row.classes, None) if row.classes else None
    if isinstance(named, Mapping):
        return tuple(sorted(named, key=lambda key: named[key]))
    names = [", ".join(n) if isinstance(n, tuple | list) else str(n) for n in named or ()]
    # ImageNet has two kinds of crane and two of maillot: class names must stay different.
    return tuple(f"{n} ({i})" if names.count(n) > 1 else n for i, n in enumerate(names))


def _name(content: Content, root: Path, split: str | None, index: int) -> str:
    if isinstance(content, Path):
        return printable(os.path.relpath(content, root))
    return f"{split}/{index:06d}" if split else f"{index:06d}"
