"""Files that travel between the driver and the nodes of a Ray cluster: checkpoints, decoded images, pretrained weights.

A checkpoint is small (only what trains) and travels whole with each epoch. Images and weights stay where they are if the
node has the same ones, under the driver's path or in its own cache folder; else it asks for them once, piece by piece, and
keeps them there for all its workers and for later studies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from searchft.cache import MANIFEST, Cache
from searchft.data.images import VIEW
from searchft.data.store import PIXELS
from searchft.errors import InputError, StorageError
from searchft.execution.protocol import WorkerSetup
from searchft.execution.ray_words import BigFile, ImagesNeeded, Outset, WeightsNeeded
from searchft.files import BEST_WEIGHTS, LAST_CHECKPOINT, lock_file, read_sealed, replacing, sha256_of, write_atomic
from searchft.recipe import SpaceFacts

CHECKPOINT = (BEST_WEIGHTS, LAST_CHECKPOINT)
"""A trial's files, in the order in which they must be replaced: a checkpoint may lack behind its best weights, not lead."""

PIECE_BYTES = 32 << 20
"""Of a large file that is sent at once: enough to fill a network, little beside a node's memory."""

Fetch = Callable[[BigFile], Iterator[bytes]]
"""Asks the driver for a file, piece by piece."""


# A trial's folder -----------------------------------------------------------------------------------------------------


def read_checkpoint(folder: Path) -> dict[str, bytes]:
    """The files of a trial's folder by name; those that are not there are left out."""
    found = {}
    for name in CHECKPOINT:
        with contextlib.suppress(FileNotFoundError):
            found[name] = (folder / name).read_bytes()
    return found


def write_checkpoint(folder: Path, files: Mapping[str, bytes]) -> None:
    """Puts files into a trial's folder, each whole or not at all. Raises StorageError where the disk refuses."""
    for name in CHECKPOINT:
        if name in files:
            with replacing(folder / name, sync=False) as file:  # as train.checkpoints: a kill cannot undo a rename
                file.write(files[name])


class ChangedFiles:
    """Which files of a trial's folder changed since they were last looked at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen = {name: self._stamp(name) for name in CHECKPOINT}

    def take(self) -> dict[str, bytes]:
        """Their content."""
        now = {name: self._stamp(name) for name in CHECKPOINT}
        changed = [name for name in CHECKPOINT if now[name] is not None and now[name] != self._seen[name]]
        self._seen = now
        return {name: (self.folder / name).read_bytes() for name in changed}

    def _stamp(self, name: str) -> tuple[int, int, int] | None:
        try:
            state = (self.folder / name).stat()
        except FileNotFoundError:
            return None
        return state.st_ino, state.st_mtime_ns, state.st_size  # replaced by a rename: another inode


# What a study stands on -----------------------------------------------------------------------------------------------


def what_it_needs(setup: WorkerSetup) -> Outset:
    """The driver's part: which images and weights a node must have. Raises StorageError where the images are gone."""
    folder = Path(setup.images)
    try:
        manifest = read_sealed(folder.parent / MANIFEST)
        (pixels,) = manifest["files"]
        images = ImagesNeeded(
            store=folder.parent.name,
            view=folder.name,
            manifest=manifest,
            rows=(folder / VIEW).read_bytes(),
            pixels=BigFile(str(folder.parent / PIXELS), pixels["bytes"], pixels["sha256"]),
        )
    except FileNotFoundError as error:
        raise StorageError(f"{folder} is gone: run again and it is built anew", str(folder)) from error
    return Outset(setup, images, tuple(_weights_of(SpaceFacts.from_json(setup.facts))))


def _weights_of(facts: SpaceFacts) -> Iterator[WeightsNeeded]:
    """Weights that lie in a file whose place a node can be given: named by the space, or in torch's hub folder."""
    from searchft.models.weights import hub_folder

    for backbone in facts.backbones.values():
        named = backbone.weights.startswith("file:")
        path = Path(backbone.weights.removeprefix("file:") if named else backbone.weights_source)
        if path.is_file() and (named or path.parent == hub_folder()):
            sha256 = backbone.weights_sha256.partition("@")[0]
            yield WeightsNeeded(BigFile(str(path), path.stat().st_size, sha256), hub=not named)


def settle(outset: Outset, cache: Path, fetch: Fetch) -> WorkerSetup:
    """The node's part: the setup with this machine's paths, once everything is there.

    Raises InputError where code or weights that must be here are not, StorageError where the disk refuses.
    """
    setup = outset.setup
    if outset.images is not None:
        _check_code(SpaceFacts.from_json(setup.facts))
        _settle_weights(outset.weights, cache, fetch)
        images = settle_images(outset.images, Path(setup.images), cache, fetch)
        setup = dataclasses.replace(setup, images=str(images))
    if setup.store:
        setup = dataclasses.replace(setup, store=str(cache / "features"))
    return setup


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
    try:
        return (view / VIEW).read_bytes() == needed.rows
    except OSError:
        return False


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
        file, hub = one.file, one.hub
        theirs = Path(file.path)
        own = hub_folder() / theirs.name if hub else cache / "weights" / file.sha256[:16] / theirs.name
        if not hub and _is(theirs, file):
            continue
        with lock_file(cache / "weights" / "locks" / f"{file.sha256[:16]}.lock"):
            # Another file in the hub folder is the user's, and named when it is read
            if not (own.is_file() if hub else _is(own, file)):
                write_fetched(own, file, fetch)
        if not hub:
            RELOCATED[theirs] = own


def _is(path: Path, wanted: BigFile) -> bool:
    try:
        return path.stat().st_size == wanted.size_bytes and sha256_of(path) == wanted.sha256
    except OSError:
        return False


def _check_code(facts: SpaceFacts) -> None:
    """A user's own network is code: it is not sent, but must be on every node, the same text under the same path."""
    from searchft.models.code import digest_of

    for backbone in facts.backbones.values():
        if not backbone.backbone.startswith("python:"):
            continue
        here = digest_of(backbone.backbone)
        there = backbone.weights_sha256.rpartition("@")[2]
        if here != there:
            rule = f"must be the same file on every node but the text of {backbone.backbone} differs from the driver's"
            raise InputError(rule, "recipe.backbone")
