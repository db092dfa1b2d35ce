"""Values are built once whoever asks, come back as they were, survive damage, and make room for one another."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from searchft.errors import StorageError
from searchft.features import FeatureStore

KEY = "ab" * 16
PROJECT = Path(__file__).resolve().parents[2]


def rows(start: int, stop: int) -> tuple[Tensor, ...]:
    """A different value in every place."""
    place = torch.arange(start, stop, dtype=torch.float32)
    maps = (place[:, None] + torch.arange(24) / 100).view(-1, 2, 3, 4)
    return (place[:, None].expand(-1, 3).contiguous(), maps.to(torch.bfloat16).contiguous(memory_format=torch.channels_last))


def file_of(root: Path, key: str = KEY, value: int = 0) -> Path:
    return root / key / f"{value}.bin"


def test_values_come_back_as_they_were(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 10**9)
    values = store.values(KEY, 600, rows)
    assert values is not None
    for got, wanted in zip(values, rows(0, 600), strict=True):
        assert got.dtype == wanted.dtype
        assert got.stride() == wanted.stride()
        assert torch.equal(got, wanted)
    assert not values[0].is_inference()


def test_a_second_asker_computes_nothing(tmp_path: Path) -> None:
    FeatureStore(tmp_path, 10**9).values(KEY, 10, rows)

    def never(start: int, stop: int) -> tuple[Tensor, ...]:
        raise AssertionError("computed again")

    assert FeatureStore(tmp_path, 10**9).values(KEY, 10, never) is not None


def test_a_write_by_mistake_does_not_reach_the_file(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 10**9)
    values = store.values(KEY, 10, rows)
    assert values is not None
    values[0].add_(1.0)
    again = FeatureStore(tmp_path, 10**9).values(KEY, 10, None)
    assert again is not None
    assert torch.equal(again[0], rows(0, 10)[0])


@pytest.mark.parametrize("damage", ["short", "flipped", "gone", "manifest", "count", "empty"])
def test_damage_is_noticed_and_repaired(tmp_path: Path, damage: str) -> None:
    count = 300
    FeatureStore(tmp_path, 10**9).values(KEY, count, rows)
    gc.collect()
    path = file_of(tmp_path)
    if damage == "short":
        os.truncate(path, path.stat().st_size - 1)
    elif damage == "flipped":
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.write_bytes(content)
    elif damage == "gone":
        path.unlink()
    elif damage == "manifest":
        (tmp_path / KEY / "manifest.json").write_text('{"format": 1, "count": 300')
    elif damage == "empty":
        for file in (tmp_path / KEY).iterdir():
            file.unlink()
    else:
        count = 299
    values = FeatureStore(tmp_path, 10**9).values(KEY, count, rows)
    assert values is not None
    assert all(map(torch.equal, values, rows(0, count)))


def test_damage_under_an_open_store_is_noticed(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 10**9)
    store.values(KEY, 300, rows)
    gc.collect()
    path = file_of(tmp_path)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns + 1))
    values = store.values(KEY, 300, rows)
    assert values is not None
    assert all(map(torch.equal, values, rows(0, 300)))


def test_a_failure_while_computing_leaves_nothing(tmp_path: Path) -> None:
    def fails(start: int, stop: int) -> tuple[Tensor, ...]:
        if start:
            raise RuntimeError("broken")
        return rows(start, stop)

    store = FeatureStore(tmp_path, 10**9)
    with pytest.raises(RuntimeError, match="broken"):
        store.values(KEY, 600, fails)
    assert store.entries() == []
    assert not list(tmp_path.glob(".building-*"))
    assert store.values(KEY, 600, rows) is not None


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another shape"):
        FeatureStore(tmp_path, 10**9).values(KEY, 600, lambda a, b: (torch.zeros(b - a, 3 if a else 2),))
    with pytest.raises(ValueError, match="another shape"):
        FeatureStore(tmp_path, 10**9).values(KEY, 600, lambda a, b: (torch.zeros(5, 2),))


def key_of(number: int) -> str:
    return f"{number:032x}"


def fill(store: FeatureStore, number: int) -> list[Tensor] | None:
    """1,000 bytes."""
    return store.values(key_of(number), 250, lambda a, b: (torch.full((b - a, 1), float(number)),))


def test_least_recently_used_goes_first_and_what_is_held_stays(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 3500)
    for number in range(3):
        assert fill(store, number) is not None
        os.utime(tmp_path / key_of(number) / "held", (number, number))
    held = fill(store, 0)
    os.utime(tmp_path / key_of(0) / "held", (0, 0))
    gc.collect()
    assert fill(store, 3) is not None
    assert {entry.key for entry in store.entries()} == {key_of(0), key_of(2), key_of(3)}
    assert held is not None
    assert held[0][0, 0] == 0.0
    view = held[0][10:20]
    del held
    gc.collect()
    assert next(e for e in store.entries() if e.key == key_of(0)).held, "a view of the values still lives"
    del view
    gc.collect()
    assert not next(e for e in store.entries() if e.key == key_of(0)).held


def test_what_does_not_fit_is_refused_with_a_reason(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 2500)
    holds = [fill(store, 0), fill(store, 1)]
    assert fill(store, 2) is None
    assert "others hold 2000" in store.refusal
    del holds
    gc.collect()
    assert fill(store, 2) is not None
    assert store.refusal == ""
    assert FeatureStore(tmp_path / "small", 999).values(KEY, 250, lambda a, b: (torch.zeros(b - a, 1),)) is None


def test_clear_frees_what_nobody_holds(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 10**6)
    held = fill(store, 0)
    fill(store, 1)
    gc.collect()
    assert store.clear() == 1000
    assert [entry.key for entry in store.entries()] == [key_of(0)]
    assert held is not None


@pytest.mark.parametrize("where", ["write_json", "_write"])
def test_a_full_disk_is_a_refusal_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_json(*args: object) -> None:
        try:
            full()
        except OSError as error:
            raise StorageError("cannot write") from error

    store = FeatureStore(tmp_path, 10**9)
    if where == "_write":
        monkeypatch.setattr(FeatureStore, "_write", staticmethod(full))
    else:
        monkeypatch.setattr("searchft.features.store.write_json", full_json)
    assert store.values(KEY, 10, rows) is None
    assert "disk is full" in store.refusal
    assert not list(tmp_path.glob(".building-*"))
    monkeypatch.undo()
    assert store.values(KEY, 10, rows) is not None


def test_bad_keys_are_refused(tmp_path: Path) -> None:
    for key in ("", "../x", "XY"):
        with pytest.raises(ValueError, match="hex"):
            FeatureStore(tmp_path, 1000).values(key, 1, rows)


PROCESS = """
import sys, time
from pathlib import Path
import torch
from searchft.features.store import FeatureStore

root, mode, key = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def slow(start, stop):
    with open(root / "computed", "a") as file:
        file.write(f"{start}\\n")
    if mode == "for_ever" and start:
        time.sleep(600)
    time.sleep(0.05)
    return (torch.arange(start, stop, dtype=torch.float32),)

store = FeatureStore(root / "store", 10**9)
print("ready", flush=True)
sys.stdin.readline()
values = store.values(key, 1000, slow)
print(values is not None and torch.equal(values[0], torch.arange(1000, dtype=torch.float32)), flush=True)
"""


def start(root: Path, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, str(root), mode, KEY]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_two_processes_build_once(tmp_path: Path) -> None:
    processes = [start(tmp_path, "once") for _ in range(2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[0] for process in processes] == ["True\n", "True\n"]
    assert (tmp_path / "computed").read_text().split() == ["0", "256", "512", "768"]


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_a_killed_builder_is_replaced(tmp_path: Path) -> None:
    process = start(tmp_path, "for_ever")
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    while not (tmp_path / "computed").exists() or "256" not in (tmp_path / "computed").read_text():
        time.sleep(0.02)
    assert list((tmp_path / "store").glob(".building-*"))
    process.kill()
    process.wait()
    values = FeatureStore(tmp_path / "store", 10**9).values(KEY, 1000, rows)
    assert values is not None
    assert all(map(torch.equal, values, rows(0, 1000)))
    assert not list((tmp_path / "store").glob(".building-*"))
