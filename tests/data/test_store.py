"""The image store: decoded once, shared, checked, rebuilt. What the cache promises is in tests/test_cache.py."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time

import pytest

from searchft.cache import MANIFEST, Cache
from searchft.data import open_images, reopen_images, store
from searchft.errors import InputError, StorageError
from searchft.recipe import DataSettings


@pytest.fixture
def settings(tree):
    return DataSettings(f"folder:{tree('animals', cat=8, dog=8)}", image_size=8)


@pytest.fixture
def calls(monkeypatch):
    """Names of the store's functions that were called."""
    calls = []

    def counted(name, real):
        return lambda *args: (calls.append(name), real(*args))[1]

    for name in ("decode_image", "sha256_of"):
        monkeypatch.setattr(store, name, counted(name, getattr(store, name)))
    return calls


def test_images_are_decoded_once_wherever_they_lie(settings, cache, tmp_path, calls):
    progress = []
    first = open_images(settings, cache, lambda done, total: progress.append((done, total)))
    assert calls.count("decode_image") == 16 and progress[-1] == (16, 16)
    assert open_images(settings, cache).folder == first.folder
    shutil.copytree(tmp_path / "animals", tmp_path / "copy")
    copy = open_images(DataSettings(f"folder:{tmp_path / 'copy'}", image_size=8), cache)
    assert calls.count("decode_image") == 16 and copy.folder.parent == first.folder.parent
    assert copy.facts.source.endswith("copy") and first.facts.source.endswith("animals")


def test_a_second_start_does_not_read_files_again_but_content_decides(settings, cache, tmp_path, monkeypatch, calls):
    monkeypatch.setattr(store, "SETTLED_NS", -1)
    first = open_images(settings, cache)
    open_images(settings, cache)
    assert calls.count("sha256_of") == 16
    for path in (tmp_path / "animals").rglob("*.png"):
        os.utime(path, (time.time() - 100, time.time() - 100))
    assert open_images(settings, cache).facts == first.facts and calls.count("sha256_of") == 32
    for path in (cache / "images" / "hashes").iterdir():
        path.write_text('{"x": 1}')
    assert open_images(settings, cache).facts == first.facts and calls.count("sha256_of") == 48, "a damaged memory is none"


def test_a_file_changed_just_now_is_not_trusted(settings, cache, monkeypatch, calls):
    monkeypatch.setattr(store, "SETTLED_NS", 10**15)
    open_images(settings, cache)
    open_images(settings, cache)
    assert calls.count("sha256_of") == 32


def test_a_file_that_changes_while_it_is_read_stops(settings, cache, monkeypatch):
    real = store.sha256_of
    monkeypatch.setattr(store, "sha256_of", lambda path: real(path)[::-1])
    with pytest.raises(InputError, match="changed while it was read"):
        open_images(settings, cache)
    assert not Cache(cache / "images").entries() and not list((cache / "images").glob(".*"))


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(folder.parent / store.PIXELS, -100),
        lambda folder: flip(folder.parent / MANIFEST, 30),
        lambda folder: flip(folder / "view.sealed", 30),
        lambda folder: os.truncate(folder / "view.sealed", 40),
        lambda folder: shutil.rmtree(folder),
        lambda folder: shutil.rmtree(folder.parent),
    ],
    ids=["pixel", "manifest", "view", "cut view", "no view", "nothing"],
)
def test_damage_is_noticed_and_repaired(settings, cache, damage):
    images = open_images(settings, cache)
    pixels, facts, folder = images.split("train").images.copy(), images.facts, images.folder
    damage(folder)
    with pytest.raises(StorageError, match="run again"):
        reopen_images(folder)
    again = open_images(settings, cache)
    assert again.facts == facts and (again.split("train").images == pixels).all()
    assert (reopen_images(folder).split("train").images == pixels).all()


def test_images_in_use_are_not_removed_and_not_written_to(settings, cache):
    train = open_images(settings, cache).split("train").images
    before = train.copy()
    train[:] = 0
    assert Cache(cache / "images").clear() == 0
    (folder,) = (entry.key for entry in Cache(cache / "images").entries())
    again = open_images(settings, cache)
    assert again.folder.parent.name == folder and (again.split("train").images == before).all()
    del train, again
    assert Cache(cache / "images").clear() == 16 * 8 * 8 * 3


def test_a_full_disk_is_a_storage_error(settings, cache):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError, match="Free some space"):
            open_images(settings, cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((cache / "images").glob(".*"))


def test_finding_images_needs_no_torch():
    code = "import sys, searchft.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_ten_thousand_files_are_listed_quickly_the_second_time(cache, tmp_path, monkeypatch, image):
    monkeypatch.setattr(store, "SETTLED_NS", -1)
    for name in ("cat", "dog"):
        (tmp_path / "many" / name).mkdir(parents=True)
        for i in range(5000):
            image(i + 5000 * (name == "dog"), (4, 4)).save(tmp_path / "many" / name / f"{i}.png", compress_level=0)
    many = DataSettings(f"folder:{tmp_path / 'many'}", image_size=8)
    open_images(many, cache)
    start = time.perf_counter()
    open_images(many, cache)
    assert time.perf_counter() - start < 3
