"""A full disk ends the run with 4 and leaves what was there; a damaged file is built again or refused by name."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess

import pytest

from searchft.search.records import best

pytestmark = pytest.mark.slow


def fill(filler):
    """Takes all the space there is, but for what small files already have."""
    with open(filler, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def test_a_disk_that_fills_in_mid_study(program, small_disk, whole):
    """Checkpoint and database share it. For a database alone see tests/search."""
    here = program(epoch_ms=10)
    disk = small_disk("3m")
    (here.folder / "studies").symlink_to(disk, target_is_directory=True)
    process = here.start()
    here.wait_for("driver.reported", 12)
    os.kill(process.pid, signal.SIGSTOP)
    fill(filler := disk / "filler")
    os.kill(process.pid, signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    assert "Free some space and run again" in err and "Traceback" not in err
    here.assert_no_orphan()
    refused = here.run()  # still full
    assert refused.code == 4 and "Traceback" not in refused.err, refused.err
    filler.unlink()
    done = [row for row in here.numbers() if row[2] in ("complete", "pruned")]
    assert done == [row for row in whole if row[0] in {row[0] for row in done}]  # what was there is intact
    here.finish()
    here.kills = 3
    here.assert_equals(whole)


def test_a_store_of_images_that_does_not_fit_its_disk(program, harness, small_disk, real_whole):
    """The frozen layers' values are not tried at all where they do not fit."""
    here = program(text=harness.REAL, epoch_ms=0)
    disk = small_disk("64k")
    here.environment = {"SEARCHFT_CACHE": str(disk)}
    ended = here.run()
    assert ended.code == 4, ended.err
    assert str(disk / "images") in ended.err and "Free some space" in ended.err and "Traceback" not in ended.err
    assert not here.study.exists()
    here.environment = {}
    here.finish()
    assert here.lost(real_whole.numbers()) == 0


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_damaged_checkpoint_is_computed_again(damage, program, whole):
    """Files of the study cut by a byte as well. Stock Optuna: a journal cut 20 bytes short opens once, then never again."""
    here = program()
    assert here.run("driver.reported:9").code == -9
    (last,) = here.study.glob("trials/*/last.ckpt")
    damage(last)
    if damage is cut:
        for path in [here.study / "space.yaml", here.study / "driver.json", *here.study.glob("study.db-wal")]:
            os.truncate(path, path.stat().st_size - 1)
        assert here.run("driver.reported:3").code == -9  # reopened once
    here.finish()  # and again
    assert here.lost(whole) == 0


def test_damaged_stores_and_weights_are_built_again_or_refused(program, harness, real_whole):
    here = program(text=harness.REAL, epoch_ms=0)
    shutil.copytree(real_whole.study.parent, here.folder / "studies")
    shutil.copytree(real_whole.folder / "cache", here.folder / "cache")
    stored = sorted(here.folder.glob("cache/features/*/*.bin"))
    (pixels,) = here.folder.glob("cache/images/*/pixels.bin")
    assert stored
    for i, path in enumerate([pixels, *stored]):
        (flip, cut)[i % 2](path)
    more = ("--set", "search.trials=8")
    here.finish("", *more)
    fresh = program("fresh", text=harness.REAL, epoch_ms=0)
    fresh.finish("", *more)
    assert here.lost(fresh.numbers()) == 0
    winner, out = best(here.records()), here.folder / "out"
    weights = here.study / "trials" / f"{winner.number:04d}" / "best.safetensors"
    for damage in (flip, cut):
        damage(weights)
        refused = here.run("", here.name, "--out", str(out), verb="export")
        assert refused.code in (2, 4) and f"{winner.number:04d}" in refused.err and not out.exists(), refused.err
        assert "Traceback" not in refused.err
    fresh.finish("", fresh.name, "--out", str(out), verb="export")
    for damage in (flip, cut):
        damage(out / "model.safetensors")
        command = [*harness.PROGRAM, "predict", str(out), str(out / "labels.txt")]
        wrong = subprocess.run(command, capture_output=True, text=True, check=False)
        assert wrong.returncode in (2, 4) and "model.safetensors" in wrong.stderr, wrong.stderr
