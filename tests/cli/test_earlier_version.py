"""A study that an earlier searchft made (KEY_VERSION 1, `normalisation`): it can be read, and nothing is added to it.

The database is one that `SEARCHFT_ANALYTIC=1 searchft run` wrote at commit bdf46a6, six trials.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from searchft.recipe import KEY_VERSION
from searchft.search.ledger import Ledger

Run = Callable[..., Any]
SPACE = """\
study: old
data: {source: orl_faces, image_size: 64}
recipe:
  backbone: torchvision/resnet18
  weights: none
  normalization: [weights, none]
  unfrozen: [head, layer4, layer3]
  lr: [1e-2, 1e-3]
  epochs: 3
search: {trials: 7, sampler: random, enqueue: [{name: plain pixels, normalization: none}]}
"""


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder holds `studies/old` and a space of that name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEARCHFT_ANALYTIC", "tests.analytic")
    monkeypatch.setenv("SEARCHFT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "studies" / "old").mkdir(parents=True)
    database = tmp_path / "studies" / "old" / "study.db"
    database.write_bytes(gzip.decompress(Path(__file__).with_name("study_of_key_version_1.db.gz").read_bytes()))
    (tmp_path / "old.yaml").write_text(SPACE)
    return database


def test_it_is_shown_and_reported_with_a_sentence(old: Path, searchft: Run) -> None:
    shown = searchft("show", "old")
    assert shown.code == 0 and "made by another version of searchft" in shown.err
    assert "last 2 stages open, linear head, pixels as they are" in shown.out and "0.5239" in shown.out
    answer = searchft("show", "old", "--json").json
    assert answer["counts"]["complete"] == 6 and answer["best"]["recipe"]["normalization"] == "none"
    assert searchft("report", "old").code == 0 and (old.parent / "report" / "report.html").is_file()
    with Ledger.open("", "old", old.parent, create=False, exclusive=False) as ledger:
        facts = ledger.facts()
        assert all(record.recipe.canonical(facts) for record in ledger.records()), "its facts know its networks"
        assert ledger.space().by_name["normalization"].choices == ("weights", "none")


def test_a_run_goes_not_on_with_it_and_says_what_to_do(old: Path, searchft: Run) -> None:
    before = old.read_bytes()
    for more in ((), ("--extend",)):
        refused = searchft("run", "old.yaml", *more)
        assert refused.code == 2 and "old.yaml:1: study: old was made by another version" in refused.err
        assert "--fresh" in refused.err and "new name" in refused.err
    assert old.read_bytes() == before


def test_a_study_made_now_says_its_version_and_is_gone_on_with(old: Path, searchft: Run) -> None:
    assert searchft("run", "old.yaml", "--fresh", "--set", "search.trials=2").code == 0
    with Ledger.open("", "old", old.parent, create=False, exclusive=False) as ledger:
        assert ledger.environment()["key_version"] == KEY_VERSION
    assert searchft("run", "old.yaml", "--set", "search.trials=3").code == 0
    assert len(list(old.parents[1].glob("old.before-*"))) == 1, "the old one is kept aside"
