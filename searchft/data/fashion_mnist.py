"""`fashion_mnist`: 60,000 + 10,000 grey pictures of clothes, from torchvision's folder or Debian's package.

Both hold the same four idx files, plain or gzipped; they are read here without torchvision.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from searchft.data.records import Record, Records
from searchft.data.torchvision_sets import read_torchvision
from searchft.errors import InputError, Problem
from searchft.recipe import DataSettings

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

_PARTS = {"train": "train", "test": "t10k"}

_LARGEST = 1 << 28
"""No idx file of this set unpacks to more: a larger one is not believed."""


def read_fashion_mnist(settings: DataSettings, written: str, cache: Path) -> Records:
    """Train and test as published. Raises InputError that tells both ways to get the files where there are none."""
    places = [cache / "torchvision" / "FashionMNIST" / "raw", DEBIAN]
    if settings.root:
        places.insert(0, Path(settings.root) / "FashionMNIST" / "raw")
    for place in places:
        if all(_file(place, part, kind) for part in _PARTS.values() for kind in ("images-idx3", "labels-idx1")):
            return _read(place)
    try:
        return read_torchvision(settings, "FashionMNIST", cache)
    except InputError as error:
        raise InputError(
            Problem(
                "fashion_mnist",
                "data.source",
                f"the files are not here and cannot be downloaded. Put torchvision's four idx files in {places[-2]}, "
                "or install Debian's package: apt-get install dataset-fashion-mnist",
            )
        ) from error


def _file(place: Path, part: str, kind: str) -> Path | None:
    plain = place / f"{part}-{kind}-ubyte"
    return next((f for f in (plain, plain.with_name(plain.name + ".gz")) if f.is_file()), None)


def _read(place: Path) -> Records:
    records = []
    for split, part in _PARTS.items():
        images, labels = (read_idx(_file(place, part, kind)) for kind in ("images-idx3", "labels-idx1"))
        if images.ndim != 3 or labels.shape != images.shape[:1] or labels.max(initial=0) >= len(CLASSES):
            raise InputError(Problem(str(place), "data.source", f"the idx files of {split} do not belong together"))
        records += [
            Record(f"{split}/{i:05d}", int(label), split, image)
            for i, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
    return Records(str(place), CLASSES, records)


def read_idx(path: Path | None) -> np.ndarray:
    """The uint8 array of an idx file, plain or gzipped. Raises InputError if it is damaged."""
    assert path is not None
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
        zeros, kind, rank = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{rank}I", content, 4)
        if (zeros, kind) != (0, 8) or not 1 <= rank <= 4:
            raise ValueError("not an idx file of bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise InputError(Problem(str(path), "data.source", f"is damaged: {error}. Remove it and get it again")) from error
