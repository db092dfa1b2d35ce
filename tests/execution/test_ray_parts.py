"""The parts of the Ray executor that need no Ray: shares, addresses, files that travel."""

from __future__ import annotations

import dataclasses
import os
import queue
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from searchft.errors import InputError, StorageError
from searchft.execution import ray_files
from searchft.execution.protocol import EpochDone, Job, JobDone, WorkerSetup
from searchft.execution.ray_cluster import Share, connect, plan_shares
from searchft.execution.ray_files import BigFile, NodeSetup, QueueChannel, WithFiles, make_own_folder, write_checkpoint
from searchft.files import sha256_of
from searchft.recipe import DataFacts, DataSettings, Recipe, SpaceFacts


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus_per_worker", "share"),
    [
        ([{"CPU": 4}], None, None, Share(1, 4, 0)),
        ([{"CPU": 4}], 2, None, Share(2, 2, 0)),
        ([{"CPU": 4}], 9, None, Share(9, 1, 0)),
        ([{"CPU": 4}, {"CPU": 2}], 2, None, Share(2, 2, 0)),  # three each would leave the second without a place
        ([{"CPU": 4}, {"CPU": 4}], None, None, Share(2, 4, 0)),
        ([{}, {"CPU": 2}], None, None, Share(1, 2, 0)),  # a head that takes no work
        ([{"CPU": 8, "GPU": 2}], None, None, Share(2, 1, 1)),
        ([{"CPU": 8, "GPU": 2}, {"CPU": 8}], None, 0.5, Share(4, 1, 0.5)),
        ([{"CPU": 8, "GPU": 4}], None, 2, Share(2, 1, 2)),
        ([{"CPU": 8, "GPU": 2}], 2, 0, Share(2, 4, 0)),
        ([{"CPU": 8}], 2, 1, Share(2, 1, 1)),  # nodes with GPUs may join
        ([], 2, None, Share(2, 1, 0)),
    ],
)
def test_the_cluster_is_shared_among_the_workers(nodes, workers, gpus_per_worker, share: Share) -> None:
    assert plan_shares(nodes, workers, gpus_per_worker) == share


@pytest.mark.parametrize(
    ("nodes", "gpus_per_worker", "words"),
    [([{"CPU": 8}], 1, "no GPU yet"), ([], None, "no node with a CPU yet"), ([{"GPU": 4}], 1.5, "whole number")],
)
def test_what_cannot_be_shared_is_said(nodes, gpus_per_worker, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan_shares(nodes, None, gpus_per_worker)


@pytest.mark.parametrize(
    ("address", "words"), [("ray://head:10001", "no Ray Client"), ("space.yaml", "must be HOST:PORT"), ("head:x", "HOST:PORT")]
)
def test_addresses_that_are_none(address: str, words: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match=words):
        connect(address)


@pytest.mark.ray
def test_nobody_or_somebody_else_at_the_address() -> None:
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(100)
            connection.sendall(b"HTTP/1.0 400 Bad request\r\n\r\n")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(InputError, match="is not Ray"):
            connect(address)
    started = time.monotonic()
    with pytest.raises(InputError, match=f"nobody answers at {address}"):
        connect(address)
    assert time.monotonic() - started < 20


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'searchft\[ray\]'"):
        connect("auto")


# A trial's folder -----------------------------------------------------------------------------------------------------


def test_a_job_brings_its_files_and_an_epoch_takes_along_what_changed(tmp_path: Path) -> None:
    inbox: queue.SimpleQueue = queue.SimpleQueue()
    outbox: queue.SimpleQueue = queue.SimpleQueue()
    channel = QueueChannel(inbox, outbox, tmp_path)
    inbox.put(WithFiles(Job(7, Recipe("x"), "ab", "/the/drivers/folder"), {"last.ckpt": b"epoch 1", "other": b"never"}))
    folder = Path(channel.recv().folder)
    assert folder.is_relative_to(tmp_path) and [(p.name, p.read_bytes()) for p in folder.iterdir()] == [
        ("last.ckpt", b"epoch 1")
    ]

    def sent(message: EpochDone | JobDone) -> dict[str, bytes]:
        channel.send(message)
        return outbox.get().files

    assert sent(EpochDone(7, {})) == {}
    write_checkpoint(folder, {"last.ckpt": b"epoch 2"})  # same size, perhaps the same time: it is another file all the same
    assert sent(EpochDone(7, {})) == {"last.ckpt": b"epoch 2"}
    write_checkpoint(folder, {"best.safetensors": b"weights"})
    assert sent(EpochDone(7, {})) == {"best.safetensors": b"weights"}
    assert ray_files.read_checkpoint(folder) == {"last.ckpt": b"epoch 2", "best.safetensors": b"weights"}
    assert sent(JobDone(7)) == {} and not folder.exists()


def test_folders_of_dead_workers_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCHFT_CACHE", str(tmp_path))
    (tmp_path / "ray" / "worker-dead" / "0007").mkdir(parents=True)
    mine = make_own_folder()
    another = make_own_folder()  # a second worker of the same node does not take the first one's
    assert {p.name for p in (tmp_path / "ray").iterdir() if p.is_dir()} == {mine.name, another.name}


# What a study stands on -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoded store in a driver's cache folder."""
    from searchft.data import open_images

    settings = DataSettings(source="orl_faces", split=(("train", 1), ("val", 1), ("test", 1)), image_size=16)
    return open_images(settings, tmp_path_factory.mktemp("drivers-cache")).folder


@pytest.fixture
def here(images: Path) -> NodeSetup:
    """What a node that sees the driver's files needs."""
    facts = SpaceFacts(DataFacts("x", "y", (), ()), {})
    return ray_files.find_needs(WorkerSetup(facts.to_json(), str(images), 16, store="somewhere"))


@pytest.fixture
def elsewhere(here: NodeSetup) -> NodeSetup:
    """What a node that sees none of them needs."""
    theirs = Path("/nowhere", *Path(here.setup.images).parts[-2:])
    return dataclasses.replace(here, setup=dataclasses.replace(here.setup, images=str(theirs)))


def test_images_that_a_node_lacks_are_fetched_once(images: Path, here: NodeSetup, elsewhere: NodeSetup, tmp_path: Path) -> None:
    from searchft.data import reopen_images

    asked = []

    def fetch(needed: BigFile):
        asked.append(needed.sha256)
        content = Path(needed.path).read_bytes()
        for start in range(0, len(content), 10_000):
            yield content[start : start + 10_000]

    first = ray_files.settle_images(elsewhere, tmp_path, fetch)
    assert first.is_relative_to(tmp_path) and len(asked) == 1
    mine, theirs = reopen_images(first), reopen_images(images)
    assert mine.facts == theirs.facts
    assert (mine.split("train").images == theirs.split("train").images).all()
    assert ray_files.settle_images(elsewhere, tmp_path, fetch) == first and len(asked) == 1
    assert ray_files.settle_images(here, tmp_path, fetch) == images  # the path that all nodes have

    store = first.parent / "pixels.bin"  # damaged on this node: nobody else would notice
    content = bytearray(store.read_bytes())
    content[-1] ^= 1
    store.write_bytes(content)
    again = ray_files.settle_images(elsewhere, tmp_path, fetch)
    assert len(asked) == 2 and (reopen_images(again).split("train").images == theirs.split("train").images).all()
    assert not [p for p in (tmp_path / "images").glob(".*")]


def test_what_arrives_damaged_is_refused(elsewhere: NodeSetup, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        ray_files.settle_images(elsewhere, tmp_path, lambda needed: iter([b"something else"]))
    assert not (tmp_path / "images" / Path(elsewhere.setup.images).parent.name).exists()


def test_weights_of_a_path_that_a_node_lacks(tmp_path: Path, here: NodeSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep their name, which is part of every key, and are read from a place of the node's own."""
    from searchft.models import weights
    from searchft.models.backbones import parse_backbone

    monkeypatch.setattr(weights, "RELOCATED", {})
    there = tmp_path / "mine.pth"
    there.write_bytes(os.urandom(30_000))
    needed = BigFile("/nowhere/mine.pth", 30_000, sha256_of(there))
    asked: list[str] = []

    def fetch(one: BigFile):
        asked.append(one.path)
        yield there.read_bytes()

    for _ in range(2):
        setup = ray_files.settle(dataclasses.replace(here, files=(*here.files, needed)), tmp_path / "cache", fetch)
    assert asked == ["/nowhere/mine.pth"]
    assert setup.store == str(tmp_path / "cache" / "features")  # the node's own, not the driver's
    found = weights.find_weights(parse_backbone("torchvision/resnet18"), "file:/nowhere/mine.pth", 0)
    assert found.weights == "file:/nowhere/mine.pth" and found.sha256 == needed.sha256
