"""`searchft.fit` is the study's trial: the same key, the same numbers. And a study keeps its numerics on another processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import searchft
from searchft.errors import InputError
from searchft.machine import Processor
from searchft.recipe import Numerics, rule_for
from searchft.train.checkpoints import TrialFolder

SPACE = """
study: twice
data: {source: orl_faces, split: {train: 2, val: 1, test: 1}, image_size: 32}
recipe:
  backbone: torchvision/mobilenet_v2
  weights: none
  unfrozen: features.17
  head_widths: [[16]]
  dropout: 0.3
  batch_size: 16
  epochs: 2
  precision: auto
search: {trials: 1, sampler: random, pruner: none}
"""


@pytest.fixture(scope="module")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("space") / "space.yaml"
    file.write_text(SPACE)
    return file


@pytest.fixture(scope="module")
def study(space_file: Path, shared_cache: Path) -> searchft.FinishedStudy:
    return searchft.run(space_file, studies=space_file.parent / "studies", devices="cpu")


def test_fit_gives_the_very_numbers_and_the_key_of_the_studys_trial(
    space_file: Path, study: searchft.FinishedStudy, tmp_path: Path
) -> None:
    (record,) = study.records
    results = list(searchft.fit(space_file, folder=tmp_path))
    assert tuple(result.val_accuracy for result in results) == record.curve
    for name in ("train_loss", "train_accuracy", "val_loss"):
        assert [getattr(result, name) for result in results] == record.extra["curves"][name]
    assert rule_for(record.recipe, study.facts).numerics != Numerics(), "not exact float32: `auto` has chosen"
    progress = TrialFolder(tmp_path, record.key).load()
    assert progress is not None and len(progress.results) == 2


def test_going_on_on_another_processor_keeps_the_numerics_and_says_so(
    space_file: Path, study: searchft.FinishedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Processor("cpu", "another processor", not study.facts.processor.native_bf16)
    monkeypatch.setattr("searchft.facts.find_processor", lambda kind: other)
    events: list[Any] = []
    again = searchft.run(space_file, studies=space_file.parent / "studies", devices="cpu", on_event=events.append)
    assert again.facts.processor == study.facts.processor
    assert again.records == study.records
    (note,) = [event.text for event in events if "this study was created on" in getattr(event, "text", "")]
    assert str(study.facts.processor) in note and "goes on on cpu (another processor" in note


def test_an_unknown_choice_or_row_is_refused(space_file: Path) -> None:
    for chosen, row, words in (
        ({"dropout": 0.4}, "", "dimensions: "),
        ({"rate": 0.1}, "", "dimensions: "),
        (None, "No", "row"),
    ):
        with pytest.raises(InputError, match=words):
            next(searchft.fit(space_file, chosen, row=row))
