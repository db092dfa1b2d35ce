"""The report's forms: complete in themselves, and deaf to what hostile names would have them do."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.style
import numpy as np
import pytest
from matplotlib import pyplot

from searchft.recipe import DataFacts, SpaceFacts
from searchft.report.content import Change, ReportInput, Table, answer_of, sections_of
from searchft.report.figures import confusion_figure, mistakes_figure, plain, png
from searchft.report.predictions import Predictions
from searchft.report.write import csv_text, write_report
from searchft.search.records import TrialRecord
from searchft.space import Space

Make = Callable[..., TrialRecord]

HOSTILE = (
    '<script src="http://evil.example/x.js"></script>',
    "<img src=x onerror=alert(1)>",
    "a|b`c`*d*[e](javascript:alert(1))",
    "$\\frac{1}$",
    "=cmd|'/c calc'!A1",
    "line\nbreak & \x1b[31m",
)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


@pytest.fixture
def given(space: Space, facts: SpaceFacts, make_record: Make) -> ReportInput:
    data = DataFacts(
        "folder:/photos/" + HOSTILE[0],
        "abc",
        HOSTILE,
        (("train", (2,) * 6), ("val", (2,) * 6)),
        unreadable=(HOSTILE[1],),
        leaks=((HOSTILE[0], HOSTILE[1]),),
        notes=(HOSTILE[2],),
    )
    backbone = next(iter(facts.backbones.values()))
    backbone = dataclasses.replace(backbone, weights_source=HOSTILE[0], fell_back=HOSTILE[1])
    facts = SpaceFacts(data, dict.fromkeys(facts.backbones, backbone))
    records = [
        make_record(0, value=0.5, curve=[0.2, 0.5], name=HOSTILE[0], seconds=2.0, unfrozen="head"),
        make_record(1, value=0.75, curve=[0.3, 0.75], seconds=90.0, unfrozen="layer4"),
        make_record(2, "pruned", value=0.1, curve=[0.1], seconds=1.0, unfrozen="all"),
        make_record(3, "failed", reason=HOSTILE[1], unfrozen="all"),
        make_record(4, "running", curve=[0.4], unfrozen="layer3"),
    ]
    for number, opened in enumerate(("head", "layer4", "all", "layer3"), start=5):
        records.append(make_record(number, "pruned", value=0.1 + number / 50, curve=[0.1 + number / 50], unfrozen=opened))
    records = [dataclasses.replace(r, params={"unfrozen": r.recipe.unfrozen}) for r in records]
    truth = np.arange(12) % 6
    names = tuple(f"{i}/{HOSTILE[i % 6]}" for i in range(12))
    predictions = {
        0: {"val": Predictions("val", truth, np.zeros(12, int), np.full(12, 0.9), names)},
        1: {"val": Predictions("val", truth, np.where(truth < 4, truth, 0), np.full(12, 0.8), names)},
    }
    return ReportInput(
        space=dataclasses.replace(space, source=HOSTILE[2]),
        facts=facts,
        records=records,
        storage="postgresql://ann:***@db.example.org/x",
        environment={"versions": {"torch": HOSTILE[0]}, "cpu": HOSTILE[1]},
        predictions=predictions,
        images={"val": np.full((12, 16, 16, 3), 100, np.uint8)},
        changes=[Change("layer4.conv.weight", 0.25, 100), Change("layer4.bn.weight", float("inf"), 4)],
        interval=lambda right, n: (right / n - 0.1, right / n + 0.1),
    )


def test_the_page_needs_nothing_from_anywhere_and_runs_nothing(given: ReportInput, tmp_path: Path) -> None:
    text = write_report(given, tmp_path).read_text()
    tags = Tags()
    tags.feed(text)
    kinds = {tag for tag, _ in tags.seen}
    assert kinds.isdisjoint({"script", "link", "iframe", "object", "embed", "form", "base"})
    for tag, attributes in tags.seen:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href", "srcset", "action"):
            assert (attributes.get(name) or "data:").startswith("data:image/png;base64,") or name not in attributes, attributes
    images = [a for tag, a in tags.seen if tag == "img"]
    assert len(images) == 7, "all figures are inside"
    policies = [a["content"] for tag, a in tags.seen if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?https?:""", text)
    assert "&lt;script src=&#34;http://evil.example/x.js&#34;&gt;" in text, "shown as it is written"


def test_a_report_of_ordinary_names_holds_no_address_at_all(
    space: Space, facts: SpaceFacts, make_record: Make, tmp_path: Path
) -> None:
    records = [make_record(n, value=0.5 + n / 100, curve=[0.4, 0.5 + n / 100], seconds=1.0) for n in range(3)]
    write_report(ReportInput(space, facts, records, "sqlite:///study.db"), tmp_path)
    for name in ("report.html", "report.md"):
        assert not re.search("https?://", (tmp_path / name).read_text())


def test_the_twin_says_the_same_and_its_table_stays_whole(given: ReportInput, tmp_path: Path) -> None:
    write_report(given, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "<" not in text.replace("&lt;", "") and not re.search(r"(?<!\\)\]\(javascript", text)
    results_only = text.split("## Results")[1].split("\n## ")[0]
    rows = [line for line in results_only.splitlines() if line.startswith("| ")]
    results = [line for line in rows if re.match(r"\| \d", line)]
    assert len(results) == 9 and all(len(re.findall(r"(?<!\\)\|", line)) == 9 for line in results)
    for figure in re.findall(r"\]\((figures/\w+\.png)\)", text):
        assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")
    assert text.count("figures/") == 7


def test_the_answer_comes_first_with_its_interval_and_the_rows(given: ReportInput) -> None:
    answer = answer_of(given)
    assert answer.number == 1 and answer.words.startswith("last stage open")
    assert answer.figures[0][:2] == ("validation accuracy", "0.7500") and "12 images" in answer.figures[0][2]
    assert any("+0.5000 (95 % interval" in s and "clearly better" in s for s in answer.sentences)
    assert any("flatter" in s for s in answer.sentences)
    assert any("FALLBACK" in w for w in answer.warnings) and any("more than one split" in w for w in answer.warnings)


def test_the_report_is_the_same_every_time_and_leaves_matplotlib_as_it_was(given: ReportInput, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams), dict(matplotlib.style.library["ggplot"])
    first, second = (write_report(given, tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert (dict(matplotlib.rcParams), dict(matplotlib.style.library["ggplot"])) == before
    assert not pyplot.get_fignums()


def test_a_study_without_a_result_has_a_report_too(space: Space, facts: SpaceFacts, make_record: Make, tmp_path: Path) -> None:
    for records in ([], [make_record(0, "failed", reason="boom")], [make_record(0, "running")]):
        page = write_report(ReportInput(space, facts, records, "x"), tmp_path)
        assert "No trial has completed yet." in page.read_text()


def test_the_data_are_there_as_csv_and_no_formula(given: ReportInput, tmp_path: Path) -> None:
    write_report(given, tmp_path)
    names = {path.stem for path in (tmp_path / "data").glob("*.csv")}
    assert names == {
        *("results", "curves", "importances", "effects", "cost", "mistakes", "drift", "time_by_opening"),
    }
    curves = list(csv.reader((tmp_path / "data" / "curves.csv").open()))
    assert ["1", "complete", "2", "0.75"] in curves
    cells = next(csv.reader(io.StringIO(csv_text(Table("t", ("a",), (("=1+1",),))).split("\n", 1)[1])))
    assert cells == ["'=1+1"]


def test_sections_stand_in_reading_order(given: ReportInput) -> None:
    titles = [section.title for section in sections_of(given)]
    assert titles[0] == "Results" and titles[-2:] == ["Time", "Ground"]
    assert titles.index("Mistakes") < titles.index("What training changed")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_can_be_drawn(name: str) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    assert png(lambda: confusion_figure(np.eye(2, dtype=np.int64), [name, name], name)).startswith(b"\x89PNG")
    assert png(lambda: mistakes_figure([image], [(name, name, 0.5)], name)).startswith(b"\x89PNG")
    assert "\n" not in plain(name) and len(plain(name)) <= 30
