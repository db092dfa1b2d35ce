"""Files that travel between the driver and the nodes of a Ray cluster: checkpoints, decoded images, pretrained weights.

A node shares no file system with the driver. A checkpoint is small (only what trains) and travels whole with its job and with
each epoch. Images and weights stay where they are if the node has the same ones, under the driver's path or in its own cache
folder; else it asks for them once, piece by piece, and keeps them there for all its workers and for later studies.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchft.cache import MANIFEST, Cache
from searchft.data.images import VIEW
from searchft.data.store import PIXELS
from searchft.errors import InputError, StorageError
from searchft.execution.protocol import WorkerSetup
from searchft.files import BEST_WEIGHTS, LAST_CHECKPOINT, lock_file, read_sealed, replacing, sha256_of, write_atomic
from searchft.recipe import SpaceFacts

_TRAVELLING = (BEST_WEIGHTS, LAST_CHECKPOINT)
"""In the order in which they must be replaced: a checkpoint may lag behind its best weights, not lead."""

PIECE_BYTES = 32 << 20
"""Of a large file that is sent at once: enough to fill a network, little beside a node's memory."""


@dataclass(frozen=True)
class WithFiles:
    """A job, or a worker's message, and the trial's files that the other side does not have yet, by name."""

    message: Any
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class BigFile:
    """A file of the driver's machine that a node may lack. Sent in pieces, once, through Ray's object store."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class PieceRequest:
    """A node lacks a file and asks for one piece of it (0-based); the answer is the piece's bytes."""

    sha256: str
    piece: int


@dataclass(frozen=True)
class ImagesNeeded:
    """The decoded images of a study: a store (`data.store`) and one view of it, by the names of their folders."""

    store: str
    view: str
    manifest: Mapping[str, Any]
    """What the driver's cache says of the store."""
    rows: bytes
    """Content of the view's file."""
    pixels: BigFile


@dataclass(frozen=True)
class WeightsNeeded:
    """The pretrained weights of one architecture of the study."""

    file: BigFile
    hub: bool
    """Whether the library looks for them by name in torch's hub folder; else the space names their path."""


@dataclass(frozen=True)
class NodeSetup:
    """The WorkerSetup as the driver knows it, and what a node needs to make it its own."""

    setup: WorkerSetup
    images: ImagesNeeded | None
    """None: nothing is trained (the analytic worker)."""
    weights: tuple[WeightsNeeded, ...] = ()


Fetch = Callable[[BigFile], Iterator[bytes]]
"""Asks the driver for a file, piece by piece."""


# A trial's folder -----------------------------------------------------------------------------------------------------


def read_checkpoint(folder: Path) -> dict[str, bytes]:
    """The files of a trial's folder by name; those that are not there are left out."""
    return {name: (folder / name).read_bytes() for name in _TRAVELLING if (folder / name).exists()}


def write_checkpoint(folder: Path, files: Mapping[str, bytes]) -> None:
    """Puts files into a trial's folder, each whole or not at all. Raises StorageError where the disk refuses."""
    for name in _TRAVELLING:
        if name in files:
            with replacing(folder / name, sync=False) as file:  # as train.checkpoints: a kill cannot undo a rename
                file.write(files[name])


class ChangedFiles:
    """Which files of a trial's folder changed since they were last looked at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen = self._stamps()

    def take(self) -> dict[str, bytes]:
        """Their content."""
        before, self._seen = self._seen, self._stamps()
        return {name: (self.folder / name).read_bytes() for name, stamp in self._seen.items() if before.get(name) != stamp}

    def _stamps(self) -> dict[str, tuple[int, int, int]]:
        states = {name: (self.folder / name).stat() for name in _TRAVELLING if (self.folder / name).exists()}
        # replaced by a rename: another inode
        return {name: (state.st_ino, state.st_mtime_ns, state.st_size) for name, state in states.items()}


# What a study stands on: the driver's part ----------------------------------------------------------------------------


def find_needs(setup: WorkerSetup) -> NodeSetup:
    """Which images and weights a node must have. Raises StorageError where the images are gone."""
    view = Path(setup.images)
    store = view.parent
    try:
        manifest = read_sealed(store / MANIFEST)
        (pixels,) = manifest["files"]
        images = ImagesNeeded(
            store=store.name,
            view=view.name,
            manifest=manifest,
            rows=(view / VIEW).read_bytes(),
            pixels=BigFile(str(store / PIXELS), pixels["bytes"], pixels["sha256"]),
        )
    except FileNotFoundError as error:
        raise StorageError(f"{view} is gone: run again and it is built anew", str(view)) from error
    return NodeSetup(setup, images, tuple(_find_weights(SpaceFacts.from_json(setup.facts))))


def _find_weights(facts: SpaceFacts) -> Iterator[WeightsNeeded]:
    """Weights that lie in a file whose place a node can be given: named by the space, or in torch's hub folder."""
    from searchft.models.weights import hub_folder

    for backbone in facts.backbones.values():
        named = backbone.weights.startswith("file:")
        path = Path(backbone.weights.removeprefix("file:") if named else backbone.weights_source)
        if path.is_file() and (named or path.parent == hub_folder()):
            sha256 = backbone.weights_sha256.partition("@")[0]
            yield WeightsNeeded(BigFile(str(path), path.stat().st_size, sha256), hub=not named)


# The node's part ------------------------------------------------------------------------------------------------------


def settle(needs: NodeSetup, cache: Path, fetch: Fetch) -> WorkerSetup:
    """The setup with this machine's paths, once everything is there.

    Raises InputError where code or weights that must be here are not, StorageError where the disk refuses.
    """
    setup = needs.setup
    if needs.images is not None:
        _check_code(SpaceFacts.from_json(setup.facts))
        _settle_weights(needs.weights, cache, fetch)
        images = settle_images(needs.images, Path(setup.images), cache, fetch)
        setup = dataclasses.replace(setup, images=str(images))
    return dataclasses.replace(setup, store=str(cache / "features")) if setup.store else setup


def settle_images(needed: ImagesNeeded, theirs: Path, cache: Path, fetch: Fetch) -> Path:
    """The folder of the images on this machine: the driver's if it is here too, else one below `cache`, filled if need be."""
    sha256 = needed.pixels.sha256

    def fits(manifest: Mapping[str, Any]) -> bool:
        return bool(manifest["files"][0]["sha256"] == sha256)

    def build(reserve: Callable[[int], Path]) -> dict[str, Any]:
        write_fetched(reserve(needed.pixels.size_bytes) / PIXELS, needed.pixels, fetch)
        return dict(needed.manifest)

    if Cache(theirs.parent.parent).open(needed.store, fits=fits) is not None and _same_rows(theirs, needed):
        return theirs
    images = Cache(cache / "images")  # one worker of the machine fetches, the others wait
    here = images.open(needed.store)
    decoded_otherwise = here is not None and not fits(here.manifest)
    opened = images.open(needed.store + sha256[:8] if decoded_otherwise else needed.store, build, fits)
    assert opened is not None  # it was fetched, or something was raised
    if not _same_rows(opened.folder / needed.view, needed):
        write_atomic(opened.folder / needed.view / VIEW, needed.rows)
    return opened.folder / needed.view


def _same_rows(view: Path, needed: ImagesNeeded) -> bool:
    return (view / VIEW).is_file() and (view / VIEW).read_bytes() == needed.rows


def write_fetched(path: Path, needed: BigFile, fetch: Fetch) -> None:
    """Writes a file of the driver's here, whole or not at all. Raises StorageError where the disk refuses."""
    digest = hashlib.sha256()
    with replacing(path) as file:
        for piece in fetch(needed):
            digest.update(piece)
            file.write(piece)
        if digest.hexdigest() != needed.sha256:
            raise OSError(errno.EIO, f"what came of {needed.path} is not what its SHA-256 says")


def _settle_weights(needed: tuple[WeightsNeeded, ...], cache: Path, fetch: Fetch) -> None:
    """Puts weights that this machine lacks into torch's hub folder, or below `cache` with a word to `models.weights`."""
    from searchft.models.weights import RELOCATED, hub_folder

    for one in needed:
        file, theirs = one.file, Path(one.file.path)
        if not one.hub and _has_content(theirs, file):
            continue
        own = hub_folder() / theirs.name if one.hub else cache / "weights" / file.sha256[:16] / theirs.name
        with lock_file(cache / "weights" / "locks" / f"{file.sha256[:16]}.lock"):
            # Another file in the hub folder is the user's, and named when it is read
            if not (own.is_file() if one.hub else _has_content(own, file)):
                write_fetched(own, file, fetch)
        if not one.hub:
            RELOCATED[theirs] = own


def _has_content(path: Path, wanted: BigFile) -> bool:
    return path.is_file() and path.stat().st_size == wanted.size_bytes and sha256_of(path) == wanted.sha256


def _check_code(facts: SpaceFacts) -> None:
    """A user's own network is code: it is not sent, but must be on every node, the same text under the same path."""
    from searchft.models.code import digest_of

    for backbone in facts.backbones.values():
        if backbone.backbone.startswith("python:"):
            there = backbone.weights_sha256.rpartition("@")[2]
            if digest_of(backbone.backbone) != there:
                rule = f"must be the same file on every node but the text of {backbone.backbone} differs from the driver's"
                raise InputError(rule, "recipe.backbone")
