"""What the search tests share: a real space over invented facts, an analytic score, a PostgreSQL server of their own."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from searchft.recipe import Recipe, SpaceFacts
from searchft.search.records import TrialRecord, Trials
from searchft.search.suggest import Suggestion, suggest
from searchft.space import Space, parse_space
from tests.analytic import invented_facts

SPACE = """
study: analytic
data: {source: orl_faces, image_size: 64}
recipe:
  backbone: torchvision/resnet18
  weights: none
  unfrozen: [head, layer4, layer3, layer2, all]
  head_widths: [[], [256, 128], [1024, 512], [2048, 1024]]
  dropout: [0.0, 0.25, 0.5, 0.75]
  batch_size: [32, 64, 128]
  lr: [1e-2, 3e-3, 1e-3, 3e-4, 1e-4]
  weight_decay: [0.0, 1e-4, 1e-3, 1e-2]
  epochs: 9
"""
"""5 · 4 · 4 · 3 · 5 · 4 = 4,800 points, of which dropout has no say in 900 groups of four."""

SMALL = """
study: small
data: {source: orl_faces, image_size: 64}
recipe:
  backbone: torchvision/resnet18
  weights: none
  unfrozen: [head, layer4]
  head_widths: [[], [256, 128]]
  dropout: [0.0, 0.5]
  epochs: 3
search:
  enqueue:
    - {name: Baseline, unfrozen: head, head_widths: []}
    - {name: ModelA, unfrozen: layer4, head_widths: [256, 128], dropout: 0.5}
"""
"""2 openings · (one linear head, or an MLP with two dropouts) = 6 different configurations."""


@pytest.fixture(scope="session")
def facts() -> SpaceFacts:
    return invented_facts(parse_space(SPACE))


@pytest.fixture
def space_of() -> Callable[..., Space]:
    """`space_of("search.sampler=grid", text=…)`: a real space with overrides."""
    return lambda *overrides, text=SPACE: parse_space(text, overrides=overrides)


@pytest.fixture
def small() -> Space:
    return parse_space(SMALL)


def analytic_score(recipe: Recipe) -> float:
    """A smooth score in [0, 1] with one best point, in which every dimension matters: layer3, 1024+512, 0.5, 64, 3e-4, 1e-3."""
    places = (
        (("head", "layer4", "layer3", "layer2", "all").index(recipe.unfrozen), 2, 0.06),
        (((), (256, 128), (1024, 512), (2048, 1024)).index(recipe.head_widths), 2, 0.03),
        ((0.0, 0.25, 0.5, 0.75).index(recipe.dropout), 2, 0.03),
        ((32, 64, 128).index(recipe.batch_size), 1, 0.02),
        ((1e-2, 3e-3, 1e-3, 3e-4, 1e-4).index(recipe.lr), 3, 0.05),
        ((0.0, 1e-4, 1e-3, 1e-2).index(recipe.weight_decay), 2, 0.02),
    )
    return 1.0 - sum(cost * (place - top) ** 2 for place, top, cost in places)


def make_record(
    space: Space, suggestion: Suggestion, number: int, state: str, value: float | None = None, **more: Any
) -> TrialRecord:
    """What came of a suggestion."""
    params = space.labels_of(suggestion.chosen)
    return TrialRecord(number, suggestion.name, state, params, suggestion.recipe, suggestion.key, value, **more)


@pytest.fixture
def record_of() -> Callable[..., TrialRecord]:
    return make_record


@pytest.fixture
def run(facts: SpaceFacts) -> Callable[..., list[TrialRecord]]:
    """`run(space, trials, records, score)`: what the driver does with one worker, over analytic scores: it goes on with `records`
    until so many trials have really run."""

    def go_on(
        space: Space, trials: int, records: Iterable[TrialRecord] = (), score: Callable[[Recipe], float] = analytic_score
    ) -> list[TrialRecord]:
        records = list(records)
        while sum(r.answered_from is None for r in records) < trials:
            number = len(records)
            if (suggestion := suggest(space, facts, records, number)) is None:
                break
            known = Trials(records).answer_to(suggestion.key)
            value = known.value if known else score(suggestion.recipe)
            more = {"answered_from": known.number} if known else {"curve": (value / 2, value)}
            records.append(make_record(space, suggestion, number, "complete", value, **more))
        return records

    return go_on


@pytest.fixture
def suggestion_of(facts: SpaceFacts) -> Callable[..., Suggestion]:
    def make(space: Space, name: str = "", **chosen: object) -> Suggestion:
        recipe = space.resolve(chosen)
        return Suggestion(chosen, recipe, recipe.key(facts), name)

    return make


@pytest.fixture
def child(tmp_path: Path, facts: SpaceFacts) -> Callable[..., subprocess.Popen[str]]:
    """`child(code, *arguments)`: a Python process of its own that knows `SMALL`, `space`, `facts`; arguments are in `sys.argv`."""
    (tmp_path / "facts.json").write_text(json.dumps(facts.to_json()))
    (tmp_path / "small.yaml").write_text(SMALL)
    head = (
        "import json, sys, time, os, signal\nfrom pathlib import Path\n"
        "from searchft.recipe import SpaceFacts\nfrom searchft.space import load_space\n"
        "from searchft.search.ledger import Ledger, environment\nfrom searchft.search.suggest import suggest\n"
        "from searchft.search.claims import identity\n"
        "from searchft.errors import StorageError\n"
        f"facts = SpaceFacts.from_json(json.loads(Path({str(tmp_path / 'facts.json')!r}).read_text()))\n"
        f"space = load_space(Path({str(tmp_path / 'small.yaml')!r}))\n"
    )

    def start(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", head + code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            cwd=Path(__file__).parents[2],
        )

    return start


class PostgresServer:
    """A PostgreSQL server in a temporary folder, on TCP with a password, that tests may stop and start.

    PostgreSQL refuses to run as root: there its programs run as the user `postgres` (or `nobody`), which pytest-postgresql cannot.
    """

    user, password = "searcher", "s3cr3t-w0rd"

    def __init__(self, programs: Path) -> None:
        self.programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="searchft-pg-"))
        self.data = str(self.folder / "data")
        secret = self.folder / "password"
        secret.write_text(self.password)
        self.account: str | None = None
        if os.geteuid() == 0:
            known = {entry.pw_name for entry in pwd.getpwall()}
            self.account = next(name for name in ("postgres", "nobody") if name in known)
            for path in (self.folder, secret):
                shutil.chown(path, self.account)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-U", self.user, "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync")

    def url(self, database: str = "postgres", password: str = password) -> str:
        return f"postgresql://{self.user}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.folder} -c fsync=off"
        self._run("pg_ctl", "-w", "-t", "60", "-o", options, "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def fresh_database(self) -> str:
        """The URL of a new empty database."""
        import psycopg

        name = f"d{secrets.token_hex(6)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), "-D", self.data, *arguments]
        # A pipe would be held open by the server itself.
        done = subprocess.run(
            command, user=self.account, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, timeout=120
        )
        assert done.returncode == 0, f"{program} failed"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb")) or [p for p in [shutil.which("initdb")] if p]
    if not found:
        pytest.skip("PostgreSQL's server programs are not installed")
    pytest.importorskip("psycopg")
    server = PostgresServer(Path(found[-1]).parent)
    try:
        server.start()
        yield server
    finally:
        with contextlib.suppress(AssertionError):  # a test may have stopped it
            server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    """Of a new empty PostgreSQL database."""
    return postgres_server.fresh_database()
