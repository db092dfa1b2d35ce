"""Nobody is let in: the promises of SECURITY.md that have no test nearer to their code."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

import searchft

PACKAGE = Path(searchft.__file__).parent
SECRET = "hunter2-s3cret"


# What the code may contain --------------------------------------------------------------------------------------------


def test_weights_are_read_as_data_only():
    """torch.load with weights_only=True and nothing else; numpy without pickles; no unpickler, no archive, no eval, no shell."""
    forbidden = (
        r"((pickle|cPickle|dill|cloudpickle|joblib|marshal|shelve)\..*|eval|exec|os\.system|compile|__import__"
        r"|(.*\.)?(extractall|unpack_archive|unsafe_load|full_load)|yaml\.(safe_)?load|yaml\.load_all"
        r"|(.*\.)?load_state_dict_from_url|torch\.hub\.load)"
    )
    torch_loads = 0
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        # CmaEsSampler and the journals unpickle what the storage holds
        assert not re.search(r"CmaEs|JournalRedis|JournalStorage|RedisStorage", text), path
        for call in ast.walk(ast.parse(text)):
            if isinstance(call, ast.Call):
                name, given = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
                where = f"{path}:{call.lineno}: {ast.unparse(call)}"
                assert not re.fullmatch(forbidden, name), where
                assert given.get("shell", "False") == given.get("allow_pickle", "False") == "False", where
                if name == "torch.load":
                    torch_loads += 1
                    assert given.get("weights_only") == "True", where
    assert torch_loads


# Names and paths ------------------------------------------------------------------------------------------------------


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
    (trial,) = here.study.glob("trials/*")
    shutil.rmtree(trial)
    elsewhere.mkdir()
    others = {"last.ckpt": "somebody's", "best.safetensors": "somebody's"}
    for name, text in others.items():
        (elsewhere / name).write_text(text)
    trial.symlink_to(elsewhere, target_is_directory=True)
    ended = here.run()
    assert ended.code == 4 and str(trial) in ended.err and "link" in ended.err
    assert {p.name: p.read_text() for p in elsewhere.iterdir()} == others


@pytest.mark.slow
def test_rm_removes_studies_only_and_follows_no_link_out_of_one(finished):
    here = finished
    precious = here.folder / "precious"
    precious.mkdir()
    (precious / "image").write_text("x")
    (here.study / "trials" / "link").symlink_to(precious, target_is_directory=True)
    (here.study / "link").symlink_to(precious / "image")
    for study, code in (("../precious", 2), ("..", 2), (".", 2), (here.name, 0)):
        assert here.study.exists()
        ended = here.run("", study, "--yes", verb="rm")
        assert ended.code == code, ended.err
        assert (precious / "image").read_text() == "x"
    assert not here.study.exists()


# Secrets --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.postgres
def test_a_password_is_nowhere_to_be_seen(on_postgres, postgres_server):
    """Not in the output, JSON, the study's files, the pinned environment, `ps`, nor in what a failure says."""
    here, password = on_postgres(epoch_ms=40), postgres_server.password
    process = here.start("", "--json")
    here.wait_for("driver.reported", 3)
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


# The dashboard --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_dashboard_answers_this_machine_only(finished):
    """On the loopback interface alone, and not to a page of another name that points here (DNS rebinding)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = finished.start("", finished.name, "--port", str(port), verb="dashboard")
    assert process.stderr is not None
    token = process.stderr.readline().strip().partition("?token=")[2]

    def ask(headers, data=None):
        """Status and text of an answer to somebody who has the token."""
        known = {"Cookie": f"searchft-{port}={token}"} | headers
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/studies", data, known)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""

    status, text = ask({})
    assert status == 200 and finished.name in text
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    mine = [fields[1] for fields in listening if fields[1].endswith(f":{port:04X}") and fields[3] == "0A"]
    assert mine == [f"0100007F:{port:04X}"]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "10.0.0.1", ""):
        assert ask({"Host": host})[0] == 403, host
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", "localhost"):
        assert ask({"Host": host})[0] == 200, host
    assert ask({"Origin": "http://evil.example"}, b"{}")[0] == 403


# Untrusted input ------------------------------------------------------------------------------------------------------

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n"
for name, before in zip("bcdefghij", "abcdefghi", strict=True):
    LAUGHS += f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"

HOSTILE = {
    "laughs": LAUGHS,
    "object": "study: !!python/object/apply:os.system ['touch /tmp/owned']\n",
    "depth": "[" * 300_000,
    "size": "study: x\nrecipe: {lr: [" + "1," * 2_000_000 + "1]}\n",
}

READ_SPACES = """
import resource, sys, time
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (500 << 20, 500 << 20))
from searchft.errors import InputError
from searchft.space import load_space
for path in sys.argv[1:]:
    started = time.monotonic()
    try:
        load_space(Path(path))
    except InputError as error:
        print("refused", str(error)[:200].splitlines()[0])
    assert time.monotonic() - started < 2, "too slow"
"""

READ_IMAGES = """
import resource, sys
from pathlib import Path
from searchft.data import UnreadableImage, decode_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        decode_image(Path(path), 32, "squash", "bilinear")
    except UnreadableImage as error:
        print("refused", error)
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
"""


def refusals(program, *paths):
    """The lines that a process prints which reads the paths; it must end in order."""
    ended = subprocess.run([sys.executable, "-c", program, *map(str, paths)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr[-500:]
    return [line for line in ended.stdout.splitlines() if line.startswith("refused")]


def test_hostile_yaml_costs_neither_time_nor_memory(tmp_path):
    for name, text in HOSTILE.items():
        (tmp_path / name).write_text(text)
    assert len(refusals(READ_SPACES, *(tmp_path / name for name in HOSTILE))) == len(HOSTILE)


def test_a_pixel_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """20,000 × 20,000 pixels in 50 kB; and a format outside the list."""
    bomb, eps = tmp_path / "bomb.png", tmp_path / "image.png"
    Image.new("1", (20_000, 20_000)).save(bomb)
    assert bomb.stat().st_size < 200_000
    eps.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    assert len(refusals(READ_IMAGES, bomb, eps)) == 2


@pytest.mark.slow
def test_class_and_file_names_are_escaped_in_pages_and_notes(study_copy):
    """A class called `<script>` reaches neither the report's HTML nor its Markdown as a tag."""
    from searchft.search.ledger import Ledger

    evil = "<script>alert(1)</script>"
    with Ledger.open("", "faces", study_copy.folder, create=False) as ledger:
        facts = ledger.facts()
        notes = (*facts.data.notes, f"{evil}.pgm could not be read")
        classes = (evil, *facts.data.classes[1:])
        data = dataclasses.replace(facts.data, classes=classes, notes=notes, unreadable=(f"{evil}/a.png: broken",))
        ledger.pin(ledger.space(), dataclasses.replace(facts, data=data), {})
    command = [sys.executable, "-m", "searchft", "report", "faces", "--studies", str(study_copy.studies)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    pages = [p for p in (study_copy.folder / "report").rglob("*") if p.suffix in (".html", ".md", ".svg")]
    assert pages and [p for p in pages if "<script>alert(1)" in p.read_text()] == []
