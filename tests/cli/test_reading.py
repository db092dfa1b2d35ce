"""list, show, report, models, cache: what is there, said truly, in words and in JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from searchft.cache import Cache, Opened
from searchft.recipe import Recipe

Run = Callable[..., object]


def test_list_names_every_study_with_its_counts_or_its_problem(study_copy, searchft: Run) -> None:
    (study_copy.studies / "torn").mkdir()
    (study_copy.studies / "torn" / "study.db").write_bytes(b"not a database, not at all")
    good, torn = searchft("list", "--studies", study_copy.studies, "--json").json["studies"]
    assert (good["name"], good["best"], good["problem"]) == ("faces", 0.5, None)
    assert good["counts"]["complete"] == 2 and good["counts"]["answered"] == 1
    assert torn["name"] == "torn" and torn["problem"]
    out = searchft("list", "--studies", study_copy.studies).out
    assert "faces" in out and "torn cannot be read" in out


def test_list_of_nothing_says_what_to_do(tmp_path: Path, searchft: Run) -> None:
    result = searchft("list", "--studies", tmp_path / "none")
    assert result.code == 0 and "searchft run" in result.out
    assert searchft("list", "--studies", tmp_path / "none", "--json").json["studies"] == []


def test_show_json_is_the_study(small_study, searchft: Run) -> None:
    answer = searchft("show", "faces", "--studies", small_study.studies, "--json").json
    assert list(answer) == ["schema_version", "study", "storage", "counts", "best", "trials"]
    assert answer["counts"] == {"complete": 2, "pruned": 1, "failed": 1, "running": 1, "waiting": 4, "answered": 1}
    assert answer["best"]["number"] == 1
    assert Recipe.from_json(answer["best"]["recipe"]).head_widths == (256,)
    states = [(t["state"], t["epochs"], t["answered_from"]) for t in answer["trials"]]
    assert states[:4] == [("complete", 2, None), ("complete", 2, None), ("pruned", 1, None), ("complete", 0, 1)]


def test_show_says_the_best_first_and_takes_a_path(small_study, searchft: Run) -> None:
    out = searchft("show", small_study.folder).out
    assert "best #1, validation accuracy 0.5000: last stage open, head 256 with dropout 0.5, batch 16, lr 1e-3" in out
    assert out.index("best #1") < out.index("val acc")
    assert "the training loss became nan" in " ".join(out.split())


@pytest.mark.parametrize("verb", ["show", "report", "rm", "dashboard"])
def test_an_unknown_study_is_answered_with_the_near_one(verb: str, small_study, searchft: Run) -> None:
    result = searchft(verb, "fcaes", "--studies", small_study.studies)
    assert result.code == 2 and "did you mean 'faces'?" in result.err
    nowhere = searchft(verb, "faces", "--studies", small_study.studies / "none")
    assert nowhere.code == 2 and "searchft run SPACE" in nowhere.err
    assert not (small_study.studies / "none").exists()


@pytest.mark.slow
def test_report_writes_a_page_its_twin_figures_and_data(study_copy, searchft: Run) -> None:
    answer = searchft("report", "faces", "--studies", study_copy.studies, "--json").json
    folder = study_copy.folder / "report"
    assert Path(answer["report"]) == folder / "report.html" and Path(answer["markdown"]) == folder / "report.md"
    text = (folder / "report.md").read_text()
    assert "**Best: last stage open" in text and "Against “Baseline” on the same validation images" in text
    assert "layer4.0.conv1" in (folder / "data" / "drift.csv").read_text()
    assert (folder / "figures" / "mistakes.png").is_file() and (folder / "figures" / "confusion.png").is_file()


def test_a_report_whose_images_are_gone_goes_without_mistakes(study_copy, searchft: Run, monkeypatch) -> None:
    monkeypatch.setattr("searchft.cli.gather.images_of_study", lambda facts, settings: None)
    out = study_copy.folder.parent / "elsewhere"
    assert searchft("report", "faces", "--studies", study_copy.studies, "--out", out).code == 0
    assert "## Mistakes" not in (out / "report.md").read_text() and "## Results" in (out / "report.md").read_text()


def test_models_are_found_by_pattern(searchft: Run) -> None:
    listed = [m["name"] for m in searchft("models", "*/resnet1*", "--json").json["models"]]
    assert "torchvision/resnet18" in listed and "timm/resnet18" in listed
    unknown = searchft("models", "torchvision/resnt18")
    assert unknown.code == 2 and "did you mean 'torchvision/resnet18'?" in unknown.err


def test_a_model_is_shown_with_stages_that_unfrozen_takes(searchft: Run) -> None:
    answer = searchft("models", "torchvision/resnet18", "--check", "--json").json
    assert answer["num_features"] == 512 and answer["head"] == "fc"
    assert answer["parameters"] == 11_176_512
    assert [stage["name"] for stage in answer["stages"]][-2:] == ["layer3", "layer4"]
    assert answer["stages"][-1]["parameters_from_here"] == answer["stages"][-1]["parameters"] == 8_393_728
    assert answer["stages"][0]["parameters_from_here"] == answer["parameters"]
    assert answer["check"] == {"splits": True, "reason": ""}
    shown = searchft("models", "resnet18").out
    assert shown.startswith("torchvision/resnet18: ") and "layer4" in shown, "without a library torchvision's is meant"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with an entry of 1,000 bytes, and somebody's thesis beside and between ours."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SEARCHFT_CACHE", str(folder))
    add_entry(folder, "ab")
    ours = (f"images/hashes/{'0' * 24}.json", f"calibrations/{'0' * 32}.json")
    theirs = (
        "images/hashes/mine.json",
        "thesis/chapter.tex",
        "features/notes/a.txt",
        "torchvision/fer2013.csv",
        "../keep/image",
    )
    for name in (*ours, *theirs):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}" if name in ours else "mine")
    (folder / "images" / ("f" * 32)).symlink_to(tmp_path / "keep")
    (folder / "logs").symlink_to(tmp_path / "keep")
    return folder


def add_entry(folder: Path, key: str) -> Opened | None:
    def build(reserve: Callable[[int], Path]) -> dict[str, Any]:
        (reserve(1000) / "0.bin").write_bytes(bytes(1000))
        return {"files": [{"name": "0.bin", "dtype": "uint8", "shape": [1000], "layout": "contiguous"}]}

    return Cache(folder / "features").open(key, build)


def test_the_cache_is_measured(cache: Path, searchft: Run) -> None:
    answer = searchft("cache", "--json").json
    assert answer["parts"] == {"images": 2, "features": 1000, "calibrations": 2} and answer["size_bytes"] == 1004
    assert answer["foreign"] == ["thesis", "torchvision"]
    assert "1.0 kB  features" in searchft("cache").out


def test_clearing_the_cache_removes_only_what_is_ours_and_not_in_use(cache: Path, tmp_path: Path, searchft: Run) -> None:
    refused = searchft("cache", "--clear")
    assert refused.code == 2 and "--yes" in refused.err and (cache / "features" / "ab").exists(), "it asks first"
    reader = add_entry(cache, "cd")
    theirs = [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"mine"]
    assert len(theirs) == 5
    answer = searchft("cache", "--clear", "--yes", "--json").json
    assert answer["cleared"] is True and answer["freed_bytes"] == 1004 and answer["size_bytes"] == 2004
    assert all(path.read_bytes() == b"mine" for path in theirs)
    assert not (cache / "features" / "ab").exists() and not list(cache.rglob("0*.json"))
    assert reader is not None and (cache / "features" / "cd" / "0.bin").exists(), "a reader has it mapped"
    del reader
    assert "removed" in searchft("cache", "--clear", "--yes").out and not (cache / "features" / "cd").exists()
