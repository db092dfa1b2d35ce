"""`fashion_mnist`: 60,000 + 10,000 grey images of clothes, from torchvision's folder or Debian's package.

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

KEY = "data.source"

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

_PARTS = {"train": "train", "test": "t10k"}
_KINDS = ("images-idx3", "labels-idx1")

_LARGEST = 1 << 28
"""No idx file of this set unpacks to more bytes: a larger one is not believed."""


def read_fashion_mnist(settings: DataSettings, written: str, cache: Path) -> Records:
    """Train and test as published. Raises InputError that tells both ways to get the files where there are none."""
    usual = cache / "torchvision" / "FashionMNIST" / "raw"
    for place in (*([Path(settings.root) / "FashionMNIST" / "raw"] if settings.root else []), usual, DEBIAN):
        files = {(split, kind): _file(place / f"{_PARTS[split]}-{kind}-ubyte") for split in _PARTS for kind in _KINDS}
        if all(files.values()):
            return _read(place, {key: file for key, file in files.items() if file})
    try:
        return read_torchvision(settings, "FashionMNIST", cache)
    except InputError as error:
        rule = (
            f"the files are not here and cannot be downloaded. Put torchvision's four idx files in {usual}, "
            "or install Debian's package: apt-get install dataset-fashion-mnist"
        )
        raise InputError(Problem("fashion_mnist", KEY, rule)) from error


def _file(plain: Path) -> Path | None:
    return next((file for file in (plain, plain.with_name(plain.name + ".gz")) if file.is_file()), None)


def _read(place: Path, files: dict[tuple[str, str], Path]) -> Records:
    records = []
    for split in _PARTS:
        images, labels = (read_idx(files[split, kind]) for kind in _KINDS)
        if images.ndim != 3 or labels.shape != images.shape[:1] or labels.max(initial=0) >= len(CLASSES):
            raise InputError(Problem(str(place), KEY, f"the idx files of {split} do not belong together"))
        pairs = enumerate(zip(images, labels.tolist(), strict=True))
        records += [Record(f"{split}/{i:05d}", label, split, image) for i, (image, label) in pairs]
    return Records(str(place), CLASSES, records)


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array of an idx file, plain or gzipped. Raises InputError if it is damaged."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
        zeros, kind, rank = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{rank}I", content, 4)
        if (zeros, kind) != (0, 8) or not 1 <= rank <= 4:
            raise ValueError("not an idx file of bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise InputError(Problem(str(path), KEY, f"is damaged: {error}. Remove it and get it again")) from error
