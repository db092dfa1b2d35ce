"""Files that travel between the driver and the nodes of a Ray cluster: checkpoints, decoded images, pretrained weights.

A node shares no file system with the driver. A checkpoint is small (only what trains) and travels whole with its job and with
each epoch. Images and weights stay where they are if the node has the same ones, under the driver's path or in its own cache
folder; else it asks for them once, piece by piece, and keeps them there for all its workers and for later studies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import queue
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from searchft.cache import MANIFEST, Cache
from searchft.data.images import VIEW
from searchft.data.store import PIXELS
from searchft.errors import InputError, StorageError
from searchft.execution.protocol import EpochDone, Job, JobDone, JobFailed, WorkerSetup
from searchft.execution.worker import STAND_IN
from searchft.files import (
    BEST_WEIGHTS,
    LAST_CHECKPOINT,
    cache_folder,
    lock_file,
    read_sealed,
    replacing,
    sha256_of,
    store_budget_bytes,
    write_atomic,
)
from searchft.recipe import SpaceFacts

_TRAVELLING = (BEST_WEIGHTS, LAST_CHECKPOINT)  # the order matters: a checkpoint may lag behind its best weights, not lead
PIECE_BYTES = 32 << 20  # of a large file that is sent at once: enough to fill a network, little beside a node's memory


@dataclass(frozen=True)
class WithFiles:
    """A job, or a worker's message, and the trial's files that the other side does not have yet, by name."""

    message: Any
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class BigFile:
    """A file of the driver's machine that a node may lack. Sent in pieces, once, through Ray's object store."""

    path: str
    size_bytes: int
    sha256: str
    hub: bool = False
    """Weights that the library looks for by name in torch's hub folder; others lie where the space says."""


@dataclass(frozen=True)
class PieceRequest:
    """A node asks for one piece (0-based) of a file; the answer is the piece's bytes."""

    sha256: str
    piece: int


@dataclass(frozen=True)
class NodeSetup:
    """The WorkerSetup as the driver knows it, and what a node needs to make it its own."""

    setup: WorkerSetup
    files: tuple[BigFile, ...] = ()
    """The decoded images' pixels (`data.store`), then pretrained weights; empty: nothing is trained."""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    """Of the images' store."""
    rows: bytes = b""
    """Content of the view's file in `setup.images`."""


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


class QueueChannel:
    """What `worker.serve` speaks into: unpacks jobs into folders below `folder`, and sends the files that changed there along."""

    def __init__(self, inbox: queue.SimpleQueue[Any], outbox: queue.SimpleQueue[Any], folder: Path) -> None:
        self._inbox, self._outbox, self._folder = inbox, outbox, folder
        self._job_folder: Path | None = None
        self._known: dict[str, tuple[int, ...]] = {}

    def recv(self) -> Any:
        message = self._inbox.get()
        return self._unpack(message) if isinstance(message, WithFiles) else message

    def send(self, message: Any, /) -> None:
        files: Mapping[str, bytes] = {}
        if self._job_folder is not None and isinstance(message, EpochDone | JobDone | JobFailed):
            with contextlib.suppress(OSError):  # a disk that fails is reported by whoever wrote there
                files = self._read_changed(self._job_folder)
            if not isinstance(message, EpochDone):
                shutil.rmtree(self._job_folder, ignore_errors=True)
                self._job_folder = None
        self._outbox.put(WithFiles(message, files))

    def fetch(self, needed: BigFile) -> Iterator[bytes]:
        """A file of the driver's, piece by piece."""
        for piece in range(-(-needed.size_bytes // PIECE_BYTES)):
            self.send(PieceRequest(needed.sha256, piece))
            yield self.recv()

    def _unpack(self, given: WithFiles) -> Job:
        job: Job = given.message
        self._job_folder = folder = self._folder / f"{job.number:04d}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True)
            write_checkpoint(folder, given.files)
        except Exception:  # then it begins again, and the first checkpoint that cannot be written says why
            shutil.rmtree(folder, ignore_errors=True)
        self._read_changed(folder)
        return dataclasses.replace(job, folder=str(folder))

    def _read_changed(self, folder: Path) -> dict[str, bytes]:
        """The files that changed since the last call. They are replaced by a rename, so each change is another inode."""
        before, states = self._known, {name: (folder / name).stat() for name in _TRAVELLING if (folder / name).exists()}
        self._known = {name: (state.st_ino, state.st_mtime_ns, state.st_size) for name, state in states.items()}
        return {name: (folder / name).read_bytes() for name, stamp in self._known.items() if before.get(name) != stamp}


def make_own_folder() -> Path:
    """A folder of this process below the node's cache folder. Those that killed workers left are removed first."""
    root = cache_folder() / "ray"
    with lock_file(root / "making.lock"):
        for left in (entry for entry in root.iterdir() if entry.is_dir()):
            with contextlib.suppress(TimeoutError), lock_file(left / "alive.lock").acquire(blocking=False):
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=root, prefix="worker-"))
        _held.append(lock_file(folder / "alive.lock"))
        _held[-1].acquire()
    return folder


_held: list[Any] = []
"""Locks that last as long as this process."""


# What a study stands on: the driver's part ----------------------------------------------------------------------------


def find_needs(setup: WorkerSetup) -> NodeSetup:
    """Which images and weights a node must have. Raises StorageError where the images are gone."""
    if os.environ.get(STAND_IN):
        return NodeSetup(setup)
    view = Path(setup.images)
    try:
        manifest, rows = read_sealed(view.parent / MANIFEST), (view / VIEW).read_bytes()
    except FileNotFoundError as error:
        raise StorageError(f"{view} is gone: run again and it is built anew", str(view)) from error
    (pixels,) = manifest["files"]
    file = BigFile(str(view.parent / PIXELS), pixels["bytes"], pixels["sha256"])
    return NodeSetup(setup, (file, *_find_weights(SpaceFacts.from_json(setup.facts))), manifest, rows)


def _find_weights(facts: SpaceFacts) -> Iterator[BigFile]:
    """Weights that lie in a file whose place a node can be given: named by the space, or in torch's hub folder."""
    from searchft.models.weights import hub_folder

    for backbone in facts.backbones.values():
        named = backbone.weights.startswith("file:")
        path = Path(backbone.weights.removeprefix("file:") if named else backbone.weights_source)
        if path.is_file() and (named or path.parent == hub_folder()):
            yield BigFile(str(path), path.stat().st_size, backbone.weights_sha256.partition("@")[0], hub=not named)


# The node's part ------------------------------------------------------------------------------------------------------


def settle(needs: NodeSetup, cache: Path, fetch: Fetch) -> WorkerSetup:
    """The setup with this machine's paths, once everything is there.

    Raises InputError where code or weights that must be here are not, StorageError where the disk refuses.
    """
    setup = needs.setup
    if needs.files:
        _check_code(SpaceFacts.from_json(setup.facts))
        for file in needs.files[1:]:
            _settle_weights(file, cache, fetch)
        setup = dataclasses.replace(setup, images=str(settle_images(needs, cache, fetch)))
    if not setup.store:
        return setup
    store = cache / "features"
    return dataclasses.replace(setup, store=str(store), store_budget_bytes=store_budget_bytes(store))


def settle_images(needs: NodeSetup, cache: Path, fetch: Fetch) -> Path:
    """The folder of the images on this machine: the driver's if it is here too, else one below `cache`, filled if need be."""
    pixels, theirs = needs.files[0], Path(needs.setup.images)

    def fits(manifest: Mapping[str, Any]) -> bool:
        return bool(manifest["files"][0]["sha256"] == pixels.sha256)

    def build(reserve: Callable[[int], Path]) -> dict[str, Any]:
        write_fetched(reserve(pixels.size_bytes) / PIXELS, pixels, fetch)
        return dict(needs.manifest)

    def has_rows(view: Path) -> bool:
        return (view / VIEW).is_file() and (view / VIEW).read_bytes() == needs.rows

    store = theirs.parent.name
    if Cache(theirs.parent.parent).open(store, fits=fits) is not None and has_rows(theirs):
        return theirs
    images = Cache(cache / "images")  # one worker of the machine fetches, the others wait
    here = images.open(store)
    decoded_otherwise = here is not None and not fits(here.manifest)
    opened = images.open(store + pixels.sha256[:8] if decoded_otherwise else store, build, fits)
    assert opened is not None  # it was fetched, or something was raised
    view = opened.folder / theirs.name
    if not has_rows(view):
        write_atomic(view / VIEW, needs.rows)
    return view


def write_fetched(path: Path, needed: BigFile, fetch: Fetch) -> None:
    """Writes a file of the driver's here, whole or not at all. Raises StorageError where the disk refuses."""
    digest = hashlib.sha256()
    with replacing(path) as file:
        for piece in fetch(needed):
            digest.update(piece)
            file.write(piece)
        if digest.hexdigest() != needed.sha256:
            raise OSError(errno.EIO, f"what came of {needed.path} is not what its SHA-256 says")


def _settle_weights(file: BigFile, cache: Path, fetch: Fetch) -> None:
    """Puts weights that this machine lacks into torch's hub folder, or below `cache`, where `models.weights` is pointed to."""
    from searchft.models.weights import RELOCATED, hub_folder

    theirs, name = Path(file.path), file.sha256[:16]
    if not file.hub and _has_content(theirs, file):
        return
    own = hub_folder() / theirs.name if file.hub else cache / "weights" / name / theirs.name
    with lock_file(cache / "weights" / "locks" / f"{name}.lock"):
        # Another file in the hub folder is the user's, and named when it is read
        if not (own.is_file() if file.hub else _has_content(own, file)):
            write_fetched(own, file, fetch)
    if not file.hub:
        RELOCATED[theirs] = own


def _has_content(path: Path, wanted: BigFile) -> bool:
    return path.is_file() and path.stat().st_size == wanted.size_bytes and sha256_of(path) == wanted.sha256


def _check_code(facts: SpaceFacts) -> None:
    """A user's own network is code: it is not sent, but must be on every node, the same text under the same path."""
    from searchft.models.backbones import digest_of

    for backbone in facts.backbones.values():
        name, theirs = backbone.backbone, backbone.weights_sha256.rpartition("@")[2]
        if name.startswith("python:") and digest_of(name) != theirs:
            rule = f"must be the same file on every node but the text of {name} differs from the driver's"
            raise InputError(rule, "recipe.backbone")
