"""Nobody is let in: each promise of SECURITY.md that has no test nearer to its code."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import searchft

PACKAGE = Path(searchft.__file__).parent
SECRET = "hunter2-s3cret"


# ---- what the code may contain ----


def calls():
    """(file, line, dotted name of what is called, the call) of every call in the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path.relative_to(PACKAGE), node.lineno, ast.unparse(node.func), node


def test_weights_are_read_as_data_only():
    """torch.load with weights_only=True and nothing else; numpy without pickles; no unpickler, no archive, no eval."""
    loads = [call for _, _, name, call in calls() if name == "torch.load"]
    assert loads
    for call in loads:
        given = {k.arg: ast.unparse(k.value) for k in call.keywords}
        assert given.get("weights_only") == "True", ast.unparse(call)
    for path, line, name, call in calls():
        where = f"{path}:{line}: {ast.unparse(call)}"
        last = name.rpartition(".")[2]
        assert not re.fullmatch(r"(pickle|cPickle|dill|cloudpickle|joblib|marshal|shelve)\..*", name), where
        assert name not in ("eval", "exec", "os.system", "compile", "__import__"), where
        assert last not in ("extractall", "unpack_archive", "unsafe_load", "full_load"), where
        assert name not in ("yaml.load", "yaml.load_all", "yaml.safe_load", "load_state_dict_from_url", "torch.hub.load"), where
        assert not any(k.arg == "shell" and ast.unparse(k.value) != "False" for k in call.keywords), where
        if name in ("np.load", "numpy.load"):
            assert not any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in call.keywords), where


def test_no_storage_that_unpickles_is_offered():
    """CmaEsSampler and the Redis journal unpickle what the storage holds."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"CmaEs|JournalRedis|JournalStorage|RedisStorage", text), path


# ---- names and paths ----


@pytest.mark.parametrize("name", ["../out", "..", "/tmp/out", "a/b", ".hidden", "a\\b/../c", "x" * 101, "a\nb", "-x", "~", ""])
def test_a_study_cannot_be_named_out_of_its_folder(name, harness):
    from searchft.errors import InputError
    from searchft.space import parse_space

    text = harness.ANALYTIC.replace("study: analytic", f"study: {json.dumps(name)}")
    with pytest.raises(InputError, match=r"x\.yaml:2: study: must"):
        parse_space(text, "x.yaml")
    with pytest.raises(InputError, match="study"):
        parse_space(harness.ANALYTIC, "x.yaml", [f"study={json.dumps(name)}"])


@pytest.mark.slow
def test_a_trial_folder_that_is_a_link_is_not_followed(program):
    """Neither written to nor cleaned: what lies behind it is not the study's."""
    here = program()
    assert here.run("driver.reported:3").code == -9
    elsewhere = here.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "last.ckpt").write_text("somebody's")
    (elsewhere / "best.safetensors").write_text("somebody's")
    (trial,) = here.study.glob("trials/*")
    for path in trial.iterdir():
        path.unlink()
    trial.rmdir()
    trial.symlink_to(elsewhere, target_is_directory=True)
    ended = here.run()
    assert ended.code == 4 and str(trial) in ended.err and "link" in ended.err
    assert {p.name: p.read_text() for p in elsewhere.iterdir()} == {"last.ckpt": "somebody's", "best.safetensors": "somebody's"}


@pytest.mark.slow
def test_rm_does_not_follow_links_out_of_the_study(program):
    here = program()
    here.finish()
    precious = here.folder / "precious"
    precious.mkdir()
    (precious / "photo").write_text("x")
    (here.study / "trials" / "link").symlink_to(precious, target_is_directory=True)
    (here.study / "link").symlink_to(precious / "photo")
    ended = here.run("", here.name, "--yes", verb="rm")
    assert ended.code == 0, ended.err
    assert (precious / "photo").read_text() == "x" and not here.study.exists()


@pytest.mark.slow
@pytest.mark.parametrize("study", ["../precious", "..", "."])
def test_rm_removes_studies_only(study, program):
    here = program()
    here.finish()
    precious = here.folder / "precious"
    precious.mkdir()
    (precious / "photo").write_text("x")
    ended = here.run("", study, "--yes", verb="rm")
    assert ended.code == 2, ended.err
    assert (precious / "photo").exists() and here.study.is_dir()


# ---- secrets ----


@pytest.mark.slow
@pytest.mark.postgres
def test_a_password_is_nowhere_to_be_seen(program, postgres_server):
    """Not in the output, JSON, the study's files, the pinned environment, `ps`, nor in what a failure says."""
    here = program(epoch_ms=40)
    here.environment = {"SEARCHFT_STORAGE": postgres_server.fresh_database()}
    password = postgres_server.password
    process = here.start("", "--json")
    while not (here.marks / "passed").exists() or len(here.epochs("driver.reported")) < 3:
        time.sleep(0.05)
    seen = ""
    for running in here.processes():
        seen += " ".join(running.cmdline())
        if running.pid != process.pid:
            assert password not in " ".join(running.environ().values())
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    show = here.run("", here.name, "--json", verb="show")
    report = here.run("", here.name, verb="report")
    from searchft.search.ledger import Ledger

    with Ledger.open(here.environment["SEARCHFT_STORAGE"], here.name, here.study, create=False, exclusive=False) as ledger:
        seen += json.dumps(ledger.environment())
    files = [p for p in here.folder.rglob("*") if p.is_file() and p.parent != here.marks]
    seen += "".join(p.read_bytes().decode(errors="replace") for p in files)
    here.environment["SEARCHFT_STORAGE"] = here.environment["SEARCHFT_STORAGE"].replace("127.0.0.1", "127.0.0.1:1/x?", 1)
    broken = here.run("", "--json")
    assert broken.code in (2, 4)
    for text in (seen, out, err, show.out, show.err, report.out, report.err, broken.out, broken.err):
        assert password not in text
    assert "***" in show.out


def test_a_password_on_the_command_line_is_warned_of_and_masked(program):
    here = program()
    url = f"postgresql://me:{SECRET}@127.0.0.1:1/none"
    ended = here.run("", "--storage", url)
    assert ended.code == 4
    assert SECRET not in ended.out + ended.err
    assert "SEARCHFT_STORAGE" in ended.err
    as_json = here.run("", "--storage", url, "--json")
    assert SECRET not in as_json.out + as_json.err and json.loads(as_json.out)["error"]["kind"] == "storage"


# ---- the dashboard ----


@pytest.mark.slow
def test_the_dashboard_answers_this_machine_only(program):
    """On the loopback interface alone, and not to a page of another name that points here (DNS rebinding)."""
    here = program()
    here.finish()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = here.start("", here.name, "--port", str(port), verb="dashboard")
    try:
        assert process.stderr is not None
        token = process.stderr.readline().strip().partition("?token=")[2]
        cookie = {"Cookie": f"searchft-{port}={token}"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/studies", headers=cookie)
        assert here.name in urllib.request.urlopen(request, timeout=60).read().decode()
        listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        mine = [fields[1] for fields in listening if fields[1].endswith(f":{port:04X}") and fields[3] == "0A"]
        assert mine == [f"0100007F:{port:04X}"]
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "10.0.0.1", ""):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/api/studies", headers=cookie | {"Host": host})
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, timeout=5)
            assert refused.value.code == 403
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", "localhost"):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/api/studies", headers=cookie | {"Host": host})
            assert urllib.request.urlopen(request, timeout=5).status == 200
        crossing = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/studies",
            data=b"{}",
            headers=cookie | {"Origin": "http://evil.example"},
            method="POST",
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(crossing, timeout=5)
        assert refused.value.code == 403
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


# ---- untrusted input ----

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n"
for name, before in zip("bcdefghij", "abcdefghi", strict=True):
    LAUGHS += f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"

LIMITED = """
import resource, sys, time
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (500 << 20, 500 << 20))
from searchft.errors import InputError
from searchft.space import load_space
started = time.monotonic()
try:
    load_space(Path(sys.argv[1]))
except InputError as error:
    print("refused", str(error)[:200])
assert time.monotonic() - started < 2, "too slow"
"""


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        "study: !!python/object/apply:os.system ['touch /tmp/owned']\n",
        "[" * 300_000,
        "study: x\nrecipe: {lr: [" + "1," * 2_000_000 + "1]}\n",
    ],
    ids=["billion laughs", "python object", "depth", "size"],
)  # fmt: skip
def test_hostile_yaml_costs_neither_time_nor_memory(text, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    ended = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0 and ended.stdout.startswith("refused"), ended.stderr[-500:]


@pytest.mark.slow
def test_code_runs_only_with_permission(program, harness):
    """A space that names a Python file is refused before the file is read."""
    here = program(text=harness.REAL.replace("torchvision/resnet18", "'python:own.py:net'"), epoch_ms=0)
    (here.folder / "own.py").write_text(f"open({str(here.folder / 'owned')!r}, 'w')\n")
    ended = here.run()
    assert ended.code == 2 and "--allow-code" in ended.err, ended.err
    assert not (here.folder / "owned").exists() and not here.study.exists()


BOMB = """
import resource, sys, time
from pathlib import Path
from searchft.data import UnreadableImage, decode_image
resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_image(Path(sys.argv[1]), 32, "squash", "bilinear")
except UnreadableImage as error:
    print("refused", error)
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
"""


def test_a_pixel_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """20,000 × 20,000 pixels in 50 kB; and a format outside the list."""
    from PIL import Image

    bomb = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(bomb)
    assert bomb.stat().st_size < 200_000
    eps = tmp_path / "picture.png"
    eps.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    for path in (bomb, eps):
        ended = subprocess.run([sys.executable, "-c", BOMB, str(path)], capture_output=True, text=True, check=False)
        assert ended.returncode == 0 and ended.stdout.startswith("refused"), ended.stderr[-500:]


@pytest.mark.slow
def test_class_and_file_names_are_escaped_in_pages_and_notes(study_copy):
    """A class called `<script>` reaches neither the report's HTML nor its Markdown as a tag."""
    from searchft.search.ledger import Ledger

    with Ledger.open("", "faces", study_copy.folder, create=False) as ledger:
        facts, space = ledger.facts(), ledger.space()
        evil = "<script>alert(1)</script>"
        import dataclasses

        classes = (evil, *facts.data.classes[1:])
        notes = (*facts.data.notes, f"{evil}.pgm could not be read")
        data = dataclasses.replace(facts.data, classes=classes, notes=notes, unreadable=(f"{evil}/a.png: broken",))
        ledger.pin(space, dataclasses.replace(facts, data=data), {})
    ended = subprocess.run(
        [sys.executable, "-m", "searchft", "report", "faces", "--studies", str(study_copy.studies)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    pages = [p for p in (study_copy.folder / "report").rglob("*") if p.suffix in (".html", ".md", ".svg")]
    assert pages
    for page in pages:
        assert "<script>alert(1)" not in page.read_text(), page
