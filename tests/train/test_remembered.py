"""A measurement is made once on a machine, and again only where it might turn out otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from searchft.data.images import Images
from searchft.recipe import SpaceFacts
from searchft.space import parse_space
from searchft.train import numerics
from searchft.train.numerics import Measured, measure

SPACE = """
study: remembered
data: {source: orl_faces, image_size: 32, split: {train: 2, val: 1, test: 1}}
recipe: {backbone: torchvision/resnet18, weights: none, unfrozen: [head, layer4], epochs: 2}
"""

Measure = Callable[..., tuple[Measured, int, list[str]]]


@pytest.fixture
def measured(faces: Images, facts: SpaceFacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measure:
    """`measured("recipe.epochs=3")`: what was found, how many openings were really measured, and what was said."""
    really: list[str] = []
    before = numerics.remember  # called with every measurement
    monkeypatch.setattr(numerics, "remember", lambda *given: really.append("") or before(*given))  # type: ignore[func-returns-value]

    def again(*overrides: str) -> tuple[Measured, int, list[str]]:
        count, said = len(really), list[str]()
        found = measure(parse_space(SPACE, overrides=list(overrides)), facts, faces, tmp_path / "features", said.append)
        return found, len(really) - count, said

    return again


def test_a_later_study_takes_over_what_was_measured(measured: Measure) -> None:
    first, count, said = measured()
    assert count == 2 and said == ["measuring what is fastest here: 2 ways to open a network, a few seconds each"]
    second, count, said = measured()
    assert count == 0 and not said
    assert second == first


def test_one_opening_more_is_measured_alone_and_its_frozen_part_runs_as_the_others(measured: Measure) -> None:
    first, _, _ = measured()
    more, count, said = measured("recipe.unfrozen=[head, layer4, layer3]")
    assert count == 1 and said == ["measuring what is fastest here: a few seconds"]
    assert {n: more.numerics[n] for n in first.numerics} == first.numerics
    assert len({(n.prefix_dtype, n.fold) for n in more.numerics.values()}) == 1


@pytest.mark.parametrize("change", ["recipe.epochs=3", "recipe.batch_size=8", "recipe.head_widths=[64]"])
def test_another_question_is_measured_again(measured: Measure, change: str) -> None:
    measured()
    assert measured(change)[1] == 2


@pytest.mark.parametrize("times, count", [(0.4, 2), (0.6, 0), (1.9, 0), (2.1, 2)])
def test_much_other_room_is_measured_again(
    measured: Measure, monkeypatch: pytest.MonkeyPatch, times: float, count: int
) -> None:
    """No edges: free memory and disk differ a little each time they are looked at."""
    monkeypatch.setattr(numerics, "store_budget_bytes", lambda folder: 10**9)
    measured()
    monkeypatch.setattr(numerics, "store_budget_bytes", lambda folder: int(times * 10**9))
    assert measured()[1] == count
    assert measured()[1] == 0


def test_another_machine_is_measured_again(measured: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    measured()
    monkeypatch.setattr("searchft.train.remembered.processor_name", lambda: "another processor")
    assert measured()[1] == 2
    assert measured()[1] == 0


def test_a_damaged_file_is_measured_again_and_replaced(measured: Measure, tmp_path: Path) -> None:
    first, _, _ = measured()
    for file, text in zip(
        sorted((tmp_path / "calibrations").iterdir()), ['{"numerics": {"colour": 1}}', '{"numer'], strict=True
    ):
        file.write_text(text)
    second, count, _ = measured()
    assert count == 2 and second.keeping.keys() == first.keeping.keys()
    assert measured()[1] == 0


def test_a_disk_that_refuses_is_no_reason_to_stop(measured: Measure, tmp_path: Path) -> None:
    (tmp_path / "calibrations").write_text("in the way")
    assert measured()[1] == 2
    assert measured()[1] == 2
