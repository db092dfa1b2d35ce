"""What the driver's side and a node's side say to each other on Ray, around the words of `execution.protocol`.

A node shares no file system with the driver. So a trial's files travel: with its job to the node, and with every epoch back.
The executor puts them into the trial's folder before the driver hears of the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from searchft.execution.protocol import Job, WorkerSetup


@dataclass(frozen=True)
class Placed:
    """Ray has started the worker: the first thing it says, before it imports anything slow."""

    host: str
    """Its machine's name."""
    device: str
    """A torch device name there: `cuda:0` (the share of a GPU that Ray gave it) or `cpu`."""
    gpu: str
    """Ray's name of that GPU on its machine; empty on a processor."""
    version: str
    """Of searchft there."""


@dataclass(frozen=True)
class BigFile:
    """A file of the driver's machine that a node may lack. Sent in pieces, once, through Ray's object store."""

    path: str
    """On the driver's machine."""
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class ImagesNeeded:
    """The decoded images of a study: a store (`data.store`) and one view of it, as files."""

    store: str
    """Name of the store's folder: what determines its pixels."""
    view: str
    """Name of the view's folder in it."""
    manifest: Mapping[str, Any]
    """What the driver's cache says of the store."""
    rows: bytes
    """Content of `view.sealed`."""
    pixels: BigFile


@dataclass(frozen=True)
class WeightsNeeded:
    """The pretrained weights of one architecture of the study."""

    file: BigFile
    hub: bool
    """Whether the library looks for them by name in torch's hub folder; else the space names their path."""


@dataclass(frozen=True)
class Outset:
    """The WorkerSetup as the driver knows it, and what a node needs to make it its own."""

    setup: WorkerSetup
    images: ImagesNeeded | None
    """None: nothing is trained (the analytic worker)."""
    weights: tuple[WeightsNeeded, ...] = ()


@dataclass(frozen=True)
class Ask:
    """A node lacks a file and asks for one piece of it (0-based); the answer is the piece's bytes."""

    sha256: str
    piece: int


@dataclass(frozen=True)
class Delivery:
    """A job, and what its folder holds so far."""

    job: Job
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Parcel:
    """A word of `execution.protocol` (or Placed, or Ask), and the trial's files that changed since the last one."""

    message: Any
    files: Mapping[str, bytes]
