"""The store: built once, shared, checked, rebuilt."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from searchft.data import hashes, open_images, reopen_images, store
from searchft.errors import InputError, StorageError
from searchft.recipe import DataSettings


@pytest.fixture
def photos(tree):
    return DataSettings(f"folder:{tree('photos', cat=8, dog=8)}", image_size=8)


@pytest.fixture
def decoded(monkeypatch):
    """Counts decoded images."""
    calls = []
    real = store.decode_image
    monkeypatch.setattr(store, "decode_image", lambda *args: (calls.append(1), real(*args))[1])
    return calls


def test_images_are_decoded_once(photos, cache, decoded):
    first = open_images(photos, cache)
    assert len(decoded) == 16
    second = open_images(photos, cache)
    assert len(decoded) == 16 and second.folder == first.folder


def test_a_copy_elsewhere_uses_the_same_store(photos, cache, tree, tmp_path, decoded):
    import shutil

    shutil.copytree(tmp_path / "photos", tmp_path / "copy")
    first = open_images(photos, cache)
    second = open_images(DataSettings(f"folder:{tmp_path / 'copy'}", image_size=8), cache)
    assert len(decoded) == 16 and second.folder.parent == first.folder.parent
    assert second.facts.source.endswith("copy") and first.facts.source.endswith("photos")


def age(folder, seconds=10):
    """Makes files look as if they had not been touched lately (their change time cannot be set, so the clock moves)."""
    for path in folder.rglob("*.png"):
        os.utime(path, (time.time() - 100, time.time() - 100))


def test_a_second_start_does_not_read_files_again_but_content_decides(photos, cache, tmp_path, monkeypatch):
    read = []
    real = hashes.sha256_of
    monkeypatch.setattr(hashes, "sha256_of", lambda path: (read.append(path), real(path))[1])
    monkeypatch.setattr(hashes, "SETTLED_NS", -1)
    first = open_images(photos, cache)
    assert len(read) == 16
    open_images(photos, cache)
    assert len(read) == 16
    age(tmp_path / "photos")
    assert open_images(photos, cache).facts == first.facts and len(read) == 32


def test_a_file_changed_just_now_is_not_trusted(photos, cache, monkeypatch):
    monkeypatch.setattr(hashes, "SETTLED_NS", 10**15)
    read = []
    real = hashes.sha256_of
    monkeypatch.setattr(hashes, "sha256_of", lambda path: (read.append(path), real(path))[1])
    open_images(photos, cache)
    open_images(photos, cache)
    assert len(read) == 32


def test_a_file_that_changes_while_it_is_read_stops(photos, cache, tmp_path, monkeypatch):
    real = hashes.sha256_of
    monkeypatch.setattr(hashes, "sha256_of", lambda path: real(path)[::-1])
    with pytest.raises(InputError, match="changed while it was read"):
        open_images(photos, cache)
    assert not list((cache / "images").glob("*/pixels.npy")) and not list((cache / "images").glob(".*.*"))


def flip(path, position):
    with open(path, "r+b") as file:
        file.seek(position, 2 if position < 0 else 0)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(folder.parent / "pixels.npy", -100),
        lambda folder: flip(folder.parent / "pixels.npy", 20),
        lambda folder: os.truncate(folder.parent / "pixels.npy", 1000),
        lambda folder: (folder.parent / "pixels.npy").unlink(),
        lambda folder: flip(folder.parent / "index.sealed", 30),
        lambda folder: (folder.parent / "index.sealed").unlink(),
        lambda folder: flip(folder / "view.sealed", 30),
        lambda folder: os.truncate(folder / "view.sealed", 40),
    ],
    ids=["pixel", "header", "cut", "gone", "index", "no index", "view", "cut view"],
)
def test_damage_is_noticed_and_repaired(photos, cache, damage):
    images = open_images(photos, cache)
    pixels, facts, folder = images.split("train").images.copy(), images.facts, images.folder
    damage(folder)
    with pytest.raises(StorageError, match="run again"):
        reopen_images(folder)
    again = open_images(photos, cache)
    assert again.facts == facts and (again.split("train").images == pixels).all()
    assert (reopen_images(folder).split("train").images == pixels).all()


def test_writing_to_the_images_does_not_reach_the_store(photos, cache):
    images = open_images(photos, cache)
    before = images.split("train").images.copy()
    images.split("train").images[:] = 0
    assert (reopen_images(images.folder).split("train").images == before).all()


def test_what_a_killed_builder_left_is_cleared(photos, cache, decoded):
    images = open_images(photos, cache)
    left = cache / "images" / f".{images.folder.parent.name}.abcd"
    left.mkdir()
    (images.folder.parent / "pixels.npy").unlink()
    open_images(photos, cache)
    assert not left.exists() and len(decoded) == 32


def test_a_full_disk_is_a_storage_error(photos, cache, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(StorageError, match="Free some space"):
        open_images(photos, cache)
    assert not list((cache / "images").glob(".*.*"))


def test_two_processes_that_build_at_once_share_one_store(photos, cache):
    code = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from searchft.data import open_images, store\n"
        "from searchft.recipe import DataSettings\n"
        "calls = []\n"
        "build = store._build\n"
        "store._build = lambda *a: (calls.append(1), build(*a))\n"
        "images = open_images(DataSettings.from_json(json.loads(sys.argv[1])), Path(sys.argv[2]))\n"
        "print(len(calls), images.folder, int(images.split('train').images.sum()))\n"
    )
    import json

    command = [sys.executable, "-c", code, json.dumps(photos.to_json()), str(cache)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=60)[0].split() for process in running]
    assert sorted(line[0] for line in said) == ["0", "0", "1"]
    assert len({tuple(line[1:]) for line in said}) == 1


def test_progress_is_told(photos, cache):
    told = []
    open_images(photos, cache, lambda done, total: told.append((done, total)))
    assert told[-1] == (16, 16)


def test_finding_images_needs_no_torch():
    code = "import sys, searchft.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_ten_thousand_files_are_listed_quickly_the_second_time(cache, tmp_path, monkeypatch, picture):
    monkeypatch.setattr(hashes, "SETTLED_NS", -1)
    for name in ("cat", "dog"):
        (tmp_path / "many" / name).mkdir(parents=True)
        for i in range(5000):
            picture(i + 5000 * (name == "dog"), (4, 4)).save(tmp_path / "many" / name / f"{i}.png", compress_level=0)
    many = DataSettings(f"folder:{tmp_path / 'many'}", image_size=8)
    open_images(many, cache)
    start = time.perf_counter()
    open_images(many, cache)
    assert time.perf_counter() - start < 3
