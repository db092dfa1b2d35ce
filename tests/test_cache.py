"""Entries are built once whoever asks, come back as they were, survive damage and kills, and make room for one another."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchft import cache as cache_module
from searchft.cache import MANIFEST, Cache, CacheRefusal, Opened
from searchft.errors import StorageError
from searchft.files import write_sealed

KEY = "ab" * 16
PROJECT = Path(__file__).resolve().parents[1]
CONTENT = bytes(range(250)) * 4


def writer(content: bytes = CONTENT) -> Callable[[Callable[[int], Path]], dict[str, Any]]:
    def build(reserve: Callable[[int], Path]) -> dict[str, Any]:
        folder = reserve(len(content))
        (folder / "0.bin").write_bytes(content)
        files = [{"name": "0.bin", "dtype": "uint8", "shape": [len(content)], "layout": "contiguous"}]
        return {"files": files, "note": "from the builder"}

    return build


def never(reserve: Callable[[int], Path]) -> dict[str, Any]:
    raise AssertionError("built again")


def flip(path: Path, place: int = 100) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_an_entry_comes_back_as_it_was_and_is_built_once(tmp_path: Path) -> None:
    opened = Cache(tmp_path).open(KEY, writer())
    assert opened is not None and opened.arrays[0].tobytes() == CONTENT and opened.manifest["note"] == "from the builder"
    opened.arrays[0][:] = 0  # a write by mistake does not reach the file
    again = Cache(tmp_path).open(KEY, never)
    assert again is not None and again.arrays[0].tobytes() == CONTENT
    modes = {oct(path.stat().st_mode & 0o777) for path in (tmp_path / KEY).iterdir()}
    umask = os.umask(0)
    os.umask(umask)
    assert modes == {oct(0o666 & ~umask)}, "others may read it where the user lets them"
    assert not list(tmp_path.glob(".*"))


def test_nothing_there_and_no_builder_gives_none(tmp_path: Path) -> None:
    assert Cache(tmp_path / "no").open(KEY) is None
    assert not (tmp_path / "no").exists() and Cache(tmp_path / "no").clear() == 0


def test_an_empty_file_is_an_entry_too(tmp_path: Path) -> None:
    for _ in range(2):
        opened = Cache(tmp_path).open(KEY, writer(b""))
        assert opened is not None and opened.arrays[0].shape == (0,)


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: os.truncate(folder / "0.bin", 999),
        lambda folder: flip(folder / "0.bin"),
        lambda folder: (folder / "0.bin").unlink(),
        lambda folder: flip(folder / MANIFEST),
        lambda folder: os.truncate(folder / MANIFEST, 20),
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: write_sealed(folder / MANIFEST, {"format": 0, "files": []}),
        lambda folder: (folder / "held").unlink(),
        empty,
    ],
    ids=["cut", "flipped", "gone", "manifest", "cut manifest", "no manifest", "another format", "no lock", "empty"],
)
@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
def test_damage_is_noticed_and_repaired(tmp_path: Path, damage: Callable[[Path], None], held: bool) -> None:
    reader = Cache(tmp_path).open(KEY, writer())
    if not held:
        del reader
        gc.collect()
    damage(tmp_path / KEY)
    assert Cache(tmp_path).open(KEY) is None
    opened = Cache(tmp_path).open(KEY, writer())
    assert opened is not None and opened.arrays[0].tobytes() == CONTENT
    assert not list(tmp_path.glob(".*"))


def test_damage_under_an_open_cache_is_noticed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.open(KEY, writer())
    path = tmp_path / KEY / "0.bin"
    flip(path)
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns + 1))
    assert cache.open(KEY) is None


def test_large_files_are_hashed_only_if_their_time_is_not_the_builders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "FULL_CHECK_BYTES", 10)
    Cache(tmp_path).open(KEY, writer())
    path = tmp_path / KEY / "0.bin"
    before = path.stat().st_mtime_ns
    flip(path)
    os.utime(path, ns=(before, before))
    assert Cache(tmp_path).open(KEY) is not None
    os.utime(path, ns=(before, before + 1))
    assert Cache(tmp_path).open(KEY) is None


def test_a_failure_while_building_leaves_nothing(tmp_path: Path) -> None:
    def fails(reserve: Callable[[int], Path]) -> dict[str, Any]:
        (reserve(10) / "0.bin").write_bytes(b"half")
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        Cache(tmp_path).open(KEY, fails)
    assert Cache(tmp_path).entries() == [] and not list(tmp_path.glob(".*"))
    assert Cache(tmp_path).open(KEY, writer()) is not None


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Lets this process write no file beyond so many bytes: a real refusal of the system."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("limit", [0, 500], ids=["reserving", "writing"])
def test_a_full_disk_is_a_refusal_and_loses_nothing(tmp_path: Path, small_files: Callable[[int], None], limit: int) -> None:
    Cache(tmp_path).open("cd", writer())
    small_files(limit)
    with pytest.raises(CacheRefusal, match=r"the disk is full .*Free some space") as caught:
        Cache(tmp_path).open(KEY, writer())
    assert isinstance(caught.value, StorageError) and not list(tmp_path.glob(".*"))
    assert Cache(tmp_path).open("cd", never) is not None
    small_files(1 << 20)
    assert Cache(tmp_path).open(KEY, writer()) is not None


def test_bad_keys_are_refused(tmp_path: Path) -> None:
    for key in ("", "../x", "XY", "ab\n"):
        with pytest.raises(ValueError, match="hex"):
            Cache(tmp_path).open(key, writer())


# Budget


def key_of(number: int) -> str:
    return f"{number:032x}"


def fill(cache: Cache, number: int) -> Opened | None:
    """1,000 bytes."""
    return cache.open(key_of(number), writer())


def test_least_recently_used_goes_first_and_what_is_held_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3500)
    for number in range(3):
        fill(cache, number)
        os.utime(tmp_path / key_of(number) / "held", (number, number))
    held = fill(cache, 0)
    os.utime(tmp_path / key_of(0) / "held", (0, 0))
    fill(cache, 3)
    assert {entry.key for entry in cache.entries()} == {key_of(0), key_of(2), key_of(3)}
    assert held is not None and held.arrays[0].tobytes() == CONTENT
    view = np.asarray(held.arrays[0].reshape(2, 5, 100)[1:, 2:])[0]
    del held
    gc.collect()
    assert next(e for e in cache.entries() if e.key == key_of(0)).held, "a view of a view still lives"
    del view
    gc.collect()
    assert not next(e for e in cache.entries() if e.key == key_of(0)).held


def test_what_does_not_fit_the_budget_is_refused_with_a_reason(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2500)
    holds = [fill(cache, 0), fill(cache, 1)]
    with pytest.raises(CacheRefusal) as caught:
        fill(cache, 2)
    assert caught.value.reason == "needs 1000 bytes, the budget is 2500, of which others hold 2000"
    del holds
    gc.collect()
    assert fill(cache, 2) is not None
    with pytest.raises(CacheRefusal, match="the budget is 999"):
        fill(Cache(tmp_path / "small", 999), 0)


def test_clear_frees_what_nobody_holds_and_touches_nothing_else(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    held = fill(cache, 0)
    fill(cache, 1)
    (tmp_path / key_of(2)).mkdir()
    (tmp_path / key_of(2) / "index.sealed").write_bytes(b"of an earlier version")
    for name in ("thesis", key_of(3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "chapter").write_bytes(b"mine")
    assert cache.clear() == 1021
    assert [entry.key for entry in cache.entries()] == [key_of(0)] and held is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == [key_of(0), key_of(3), "locks", "thesis"]


# Several processes

PROCESS = """
import sys, time
from pathlib import Path
from searchft.cache import Cache

root, mode, key = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def slow(reserve):
    with open(root / "built", "a") as file:
        file.write("once\\n")
    path = reserve(1000) / "0.bin"
    path.write_bytes(bytes(500))
    with open(root / "half", "w"):
        time.sleep(600 if mode == "for_ever" else 0.3)
    path.write_bytes(bytes(1000))
    return {"files": [{"name": "0.bin", "dtype": "uint8", "shape": [1000], "layout": "contiguous"}]}

print("ready", flush=True)
sys.stdin.readline()
opened = Cache(root / "cache", 2000).open(key, slow)
print(opened is not None and opened.arrays[0].sum() == 0, flush=True)
sys.stdin.readline()
"""


def start(root: Path, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, str(root), mode, KEY]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.timeout(120)
def test_two_processes_build_once_and_hold_what_they_read(tmp_path: Path) -> None:
    processes = [start(tmp_path, "once") for _ in range(2)]
    for process in processes:
        go(process)
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
    assert (tmp_path / "built").read_text().split() == ["once"]
    cache = Cache(tmp_path / "cache", 1500)
    assert cache.clear() == 0
    with pytest.raises(CacheRefusal, match="others hold 1000"):
        fill(cache, 1)
    for process in processes:
        process.communicate("end\n", timeout=60)
    assert fill(cache, 1) is not None and len(cache.entries()) == 1


@pytest.mark.timeout(120)
def test_a_killed_builder_is_replaced_and_its_reservation_forgotten(tmp_path: Path) -> None:
    process = start(tmp_path, "for_ever")
    go(process)
    while not (tmp_path / "half").exists():
        time.sleep(0.02)
    assert list((tmp_path / "cache").glob(".building-*"))
    with pytest.raises(CacheRefusal, match="others hold 1000"):
        fill(Cache(tmp_path / "cache", 1500), 1)
    process.kill()
    process.communicate()
    assert fill(Cache(tmp_path / "cache", 1500), 1) is not None
    opened = Cache(tmp_path / "cache").open(KEY, writer())
    assert opened is not None and opened.arrays[0].tobytes() == CONTENT
    assert not list((tmp_path / "cache").glob(".building-*"))
