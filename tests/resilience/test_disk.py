"""A full disk ends the run with 4 and leaves what was there; a damaged file is built again or refused by name."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest

from searchft.search.records import best


def fill(folder):
    """Takes all the space there is, but for what small files already have; returns the file to remove."""
    filler = folder / "filler"
    with open(filler, "wb") as file:
        size = 1 << 20
        while size >= 1:
            try:
                os.write(file.fileno(), bytes(size))
            except OSError:
                size //= 4
    return filler


@pytest.mark.slow
@pytest.mark.parametrize("where", ["studies", "database"])
def test_a_disk_that_fills_in_mid_study(where, program, small_disk, whole):
    """`studies`: checkpoint and database share the full disk. `database`: it alone is there, checkpoints are elsewhere."""
    here = program(epoch_ms=10)
    disk = small_disk("disk", "3m")
    if where == "studies":
        (here.folder / "studies").symlink_to(disk, target_is_directory=True)
    else:
        here.environment = {"SEARCHFT_STORAGE": f"sqlite:///{disk / 'elsewhere.db'}"}
    process = here.start()
    while not (here.marks / "passed").exists() or len(here.epochs("driver.reported")) < 12:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGSTOP)
    filler = fill(disk)
    os.kill(process.pid, signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    assert "Free some space and run again" in err and "Traceback" not in err
    here.assert_no_orphan()
    refused = here.run()  # still full
    assert refused.code == 4 and "Traceback" not in refused.err, refused.err
    filler.unlink()
    before = here.numbers()
    done = [row for row in before if row[2] in ("complete", "pruned")]
    assert done == [row for row in whole if row[0] in {row[0] for row in done}]  # what was there is intact
    here.finish()
    here.kills = 3
    here.assert_equals(whole)


@pytest.mark.slow
def test_a_store_of_pictures_that_does_not_fit_its_disk(program, harness, small_disk, real_whole):
    """The frozen part's values are not tried at all where they do not fit: see tests/train for a disk that fills later."""
    here = program(text=harness.REAL, epoch_ms=0)
    disk = small_disk("disk", "64k")
    here.environment = {"SEARCHFT_CACHE": str(disk)}
    ended = here.run()
    assert ended.code == 4, ended.err
    assert str(disk / "images") in ended.err and "Free some space" in ended.err and "Traceback" not in ended.err
    assert not here.study.exists()
    here.environment = {}
    here.finish()
    assert here.lost(real_whole.numbers()) == 0


def flip(path, at=0.5):
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 0x40
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, cut])
def test_a_damaged_checkpoint_is_computed_again(damage, program, whole):
    here = program()
    assert here.run("driver.reported:7").code == -9
    (last,) = here.study.glob("trials/*/last.ckpt")
    damage(last)
    here.finish()
    assert here.lost(whole) == 0


@pytest.mark.slow
def test_a_damaged_database_is_refused_by_name(program):
    here = program()
    here.finish()
    database = here.study / "study.db"
    cut(database)
    ended = here.run()
    assert ended.code == 4 and str(database) in ended.err and "--fresh" in ended.err, ended.err
    assert here.run("", "--fresh").code == 0
    assert [p.name.partition(".before-")[0] for p in here.study.parent.glob("*.before-*")] == [here.name]


@pytest.mark.slow
def test_a_flipped_value_in_the_database_is_said_to_be_damaged_and_left_out(program):
    """SQLite has no checksums of its own: a finished trial's seal tells. The others, and the study, go on."""
    here = program()
    here.finish()
    before = here.numbers()
    with sqlite3.connect(here.study / "study.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("UPDATE trial_values SET value = value + 0.25 WHERE trial_value_id = 3")
    connection.close()
    ended = here.run("", "--set", "search.trials=17")
    assert ended.code == 0 and "is damaged" in ended.err, ended.err
    (damaged,) = [r for r in here.records() if r.reason.startswith("damaged")]
    assert damaged.state == "failed" and damaged.value is None and len(here.records()) > len(before)
    assert [row for row in here.numbers() if row[0] != damaged.number][: len(before) - 1] == [
        row for row in before if row[0] != damaged.number
    ]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, cut])
def test_damaged_stores_and_weights_are_built_again_or_refused(damage, program, harness, real_whole, tmp_path):
    here = program(text=harness.REAL, epoch_ms=0)
    shutil.copytree(real_whole.study.parent, here.folder / "studies")
    shutil.copytree(real_whole.folder / "cache", here.folder / "cache")
    for path in [*here.folder.glob("cache/images/*/pixels.bin"), *here.folder.glob("cache/features/*/*.bin")]:
        damage(path)
    more = ("--set", "search.trials=8")
    ended = here.run("", *more)
    assert ended.code == 0, ended.err
    assert here.numbers()[: len(real_whole.numbers())] == real_whole.numbers()
    fresh = program("fresh", text=harness.REAL, epoch_ms=0)
    assert fresh.run("", *more).code == 0
    assert here.lost(fresh.numbers()) == 0
    # the best trial's weights
    winner = best(here.records())
    out = here.folder / "out"
    for path in here.study.glob("trials/*/best.safetensors"):
        damage(path)
    refused = here.run("", here.name, "--out", str(out), verb="export")
    assert refused.code in (2, 4) and f"{winner.number:04d}" in refused.err and not out.exists(), refused.err
    assert "Traceback" not in refused.err
    # an exported model
    done = fresh.run("", fresh.name, "--out", str(out), verb="export")
    assert done.code == 0, done.err
    damage(out / "model.safetensors")
    wrong = subprocess.run(
        [*harness.PROGRAM, "predict", str(out), str(out / "labels.txt")], capture_output=True, text=True, check=False
    )
    assert wrong.returncode in (2, 4) and "model.safetensors" in wrong.stderr, wrong.stderr
