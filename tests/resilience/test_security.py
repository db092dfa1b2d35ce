"""Nobody is let in: the promises of SECURITY.md that have no test nearer to their code."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import searchft
from searchft.errors import InputError
from searchft.search.ledger import Ledger
from searchft.space import parse_space

PACKAGE = Path(searchft.__file__).parent
SECRET = "hunter2-s3cret"


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


@pytest.mark.parametrize("name", ["../out", "..", "/tmp/out", "a/b", ".hidden", "a\\b/../c", "x" * 101, "a\nb", "-x", "~", ""])
def test_a_study_cannot_be_named_out_of_its_folder(name, harness):
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
        assert here.run("", study, "--yes", verb="rm").code == code
        assert (precious / "image").read_text() == "x"
    assert not here.study.exists()


@pytest.mark.slow
@pytest.mark.postgres
def test_a_password_is_nowhere_to_be_seen(on_postgres, postgres_server):
    """Not in the output, JSON, the study's files, the pinned environment, `ps`, nor in what a failure says."""
    here, password = on_postgres(epoch_ms=40), postgres_server.password
    process = here.start("", "--json")
    here.wait_for("driver.reported", 3)
    running = here.processes()
    seen = " ".join(word for one in running for word in one.cmdline())
    assert not [one for one in running if one.pid != process.pid and password in " ".join(one.environ().values())]
    whole = here.end_of(process)
    show = here.run("", here.name, "--json", verb="show")
    report = here.run("", here.name, verb="report")
    with Ledger.open(here.environment["SEARCHFT_STORAGE"], here.name, here.study, create=False, exclusive=False) as ledger:
        seen += json.dumps(ledger.environment())
    files = [p for p in here.folder.rglob("*") if p.is_file() and p.parent != here.marks]
    seen += "".join(p.read_bytes().decode(errors="replace") for p in files)
    here.environment["SEARCHFT_STORAGE"] = here.environment["SEARCHFT_STORAGE"].replace("127.0.0.1", "127.0.0.1:1/x?", 1)
    broken = here.run("", "--json")
    assert broken.code in (2, 4)
    for ended in (whole, show, report, broken):
        seen += ended.out + ended.err
    assert password not in seen
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
    except InputError:
        print("refused")
    assert time.monotonic() - started < 2, "too slow"
"""


def test_hostile_yaml_costs_neither_time_nor_memory(tmp_path):
    for name, text in HOSTILE.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-c", READ_SPACES, *HOSTILE]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and ended.stdout.count("refused") == len(HOSTILE), ended.stderr[-500:]
