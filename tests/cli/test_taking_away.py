"""export, predict, evaluate, rm, dashboard: from a study to a checkpoint, and the study's end."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from searchft.data.packaged import read_orl_faces
from searchft.recipe import DataSettings
from searchft.search.claims import DriverLock

Run = Callable[..., object]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """As while a driver runs the study."""
    lock = DriverLock(folder)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


@pytest.fixture(scope="module")
def exported(small_study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict]:
    """(study's folder of studies, the exported folder, the JSON answer), of a copy of the study. Read only."""
    folder = tmp_path_factory.mktemp("taken")
    shutil.copytree(small_study.studies, folder / "studies")
    command = [sys.executable, "-m", "searchft", "export", "faces", "--studies", folder / "studies", "--out", folder / "winner"]
    done = subprocess.run([*map(str, command), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "studies", folder / "winner", json.loads(done.stdout)


def test_export_scores_the_folder_that_it_wrote(exported) -> None:
    _, out, answer = exported
    config = json.loads((out / "config.json").read_text())
    assert answer["trial"] == 1 and answer["study"] == "faces"
    assert config["metrics"]["test"] == answer["metrics"]["test"] and answer["metrics"]["test"]["n"] == 200
    assert config["metrics"]["search_val_accuracy"] == 0.5 and answer["metrics"]["val"]["n"] == 120
    low, high = answer["metrics"]["test"]["interval_95"]
    assert low < answer["metrics"]["test"]["accuracy"] < high


@pytest.mark.slow
def test_the_reported_test_accuracy_is_what_the_snippet_scores(exported, tmp_path: Path) -> None:
    """In a process without searchft, image by image. The split is read from the study's own names."""
    from searchft.data import open_images
    from searchft.export.card import snippet_text
    from searchft.export.load import read_config
    from searchft.files import cache_folder

    _, out, answer = exported
    settings = DataSettings.from_json(json.loads((out / "config.json").read_text())["data"]["settings"])
    images = open_images(settings, cache_folder())
    test = images.split("test")
    where = {record.name: str(record.content) for record in read_orl_faces(DataSettings("orl_faces"), "").records}
    files = [(where[name], images.classes[label]) for name, label in zip(test.names, test.labels, strict=True)]
    lines = snippet_text(read_config(out), str(out)).replace("'photo.jpg'", "file").splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("image ="))
    loop = "\n".join(f"    {line}" for line in lines[first:-1])
    program = "\n".join(lines[:first])
    program += f"\nright = 0\nfor file, truth in json.load(open('files.json')):\n{loop}\n"
    program += "    right += config['classes'][logits.argmax()] == truth\nprint(right)"
    (tmp_path / "files.json").write_text(json.dumps(files))
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert int(done.stdout) / len(files) == answer["metrics"]["test"]["accuracy"]
    assert int(done.stdout) > 200 / 40 * 2, "far above chance, or equality would prove little"


@pytest.mark.slow
def test_export_scores_the_enqueued_rows_too_and_the_report_shows_it(exported, searchft: Run) -> None:
    studies, _, answer = exported
    report = Path(searchft("report", "faces", "--studies", studies, "--json").json["markdown"]).read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in report.splitlines() if line.startswith("|")]
    header = next(row for row in rows if "architecture" in row and "test" in row)
    table = [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header) and row != header]
    (winner,) = [row for row in table if row["architecture"].startswith("last stage open, head 256")]
    (baseline,) = [row for row in table if row["architecture"].startswith("Baseline")]
    assert winner["test"].startswith(f"{answer['metrics']['test']['accuracy']:.4f}")
    assert baseline["test"][:1].isdigit()


@pytest.mark.slow
def test_export_again_replaces_but_never_a_strangers_folder(study_copy, searchft: Run, tmp_path: Path) -> None:
    at = ["--studies", study_copy.studies, "--no-rows"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    refused = searchft("export", "faces", "--out", tmp_path / "thesis", *at)
    assert refused.code == 2 and "not empty" in refused.err
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter1.txt"]
    assert searchft("export", "faces", "--trial", 0, "--out", tmp_path / "out", *at).code == 0
    again = searchft("export", "faces", "--trial", 3, "--out", tmp_path / "out", *at)
    assert again.code == 0 and "trial 1 of faces" in again.out, "trial 3 was answered from trial 1"
    assert "the search measured 0.5000" in again.err


@pytest.mark.parametrize(("trial", "message"), [(99, "must be a trial of faces"), (2, "are not kept")])
def test_a_trial_without_weights_cannot_be_exported(trial: int, message: str, small_study, searchft: Run, tmp_path) -> None:
    result = searchft("export", "faces", "--trial", trial, "--out", tmp_path / "out", "--studies", small_study.studies)
    assert result.code == 2 and message in result.err and not (tmp_path / "out").exists()


def test_predict_names_classes_and_says_what_it_cannot_read(exported, searchft: Run, tmp_path: Path) -> None:
    _, out, _ = exported
    image = read_orl_faces(DataSettings("orl_faces"), "").records[0].content
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    both = searchft("predict", out, image, tmp_path / "broken.jpg", "--top-k", 3, "--json")
    assert both.code == 2
    good, bad = both.json["predictions"]
    assert len(good["classes"]) == 3 and set(good["classes"][0]) == {"class", "probability"} and "error" in bad
    alone = searchft("predict", out, image)
    assert alone.code == 0 and alone.out == f"{image}: {good['classes'][0]['class']} {good['classes'][0]['probability']:.3f}\n"
    none = searchft("predict", out, tmp_path / "broken.jpg", tmp_path / "missing.jpg", "--json")
    assert none.code == 2 and none.json["error"]["kind"] == "input" and "missing.jpg" in none.json["error"]["message"]


def test_evaluate_on_the_studys_data_takes_its_test_split(exported, searchft: Run) -> None:
    _, out, answer = exported
    score = searchft("evaluate", out, "orl_faces", "--json").json
    assert score["split"] == "test" and score["accuracy"] == answer["metrics"]["test"]["accuracy"]
    assert "trained on" in searchft("evaluate", out, "orl_faces", "--split", "all").err


def test_evaluate_matches_the_classes_of_a_folder_by_name(exported, searchft: Run, tmp_path: Path) -> None:
    """A folder with three of the forty people: their positions there are other ones than in the checkpoint."""
    _, out, _ = exported
    classes = (out / "labels.txt").read_text().split()
    chosen = [classes[i] for i in (5, 17, 39)]
    found = read_orl_faces(DataSettings("orl_faces"), "")
    truth = {}
    for record in found.records:
        if (name := found.classes[record.label]) in chosen:
            path = tmp_path / "images" / name / f"{record.name.replace('/', '-')}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.open(record.content).save(path)
            truth[str(path)] = name
    predictions = searchft("predict", out, *truth, "--json").json["predictions"]
    right = sum(truth[p["image"]] == p["classes"][0]["class"] for p in predictions)
    score = searchft("evaluate", out, tmp_path / "images", "--json").json
    assert score["n"] == 30 and score["split"] == "all" and score["accuracy"] == right / 30 > 0
    assert [classes[i] for i, row in enumerate(score["confusion"]) if sum(row)] == chosen
    (tmp_path / "images" / chosen[0]).rename(tmp_path / "images" / "somebody")
    unknown = searchft("evaluate", out, tmp_path / "images")
    assert unknown.code == 2 and "'somebody'" in unknown.err


def test_the_data_it_was_made_from_is_known_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from searchft.cli.evaluate import _is_its_own

    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for data in ("images", "images/", "./images", str(tmp_path / "images"), "folder:images"):
        assert _is_its_own(data, "folder:images"), data
    assert _is_its_own("orl_faces", "orl_faces") and not _is_its_own("images", "orl_faces")
    assert not _is_its_own("nowhere", "folder:images")


def test_what_is_not_there_is_named(exported, searchft: Run, tmp_path: Path) -> None:
    result = searchft("evaluate", exported[1], "nowhere")
    assert result.code == 2 and "there is nothing here" in result.err
    result = searchft("predict", tmp_path, "image.jpg")
    assert result.code == 2 and "searchft export" in result.err


def test_rm_asks_and_removes_the_whole_study(study_copy, searchft: Run) -> None:
    refused = searchft("rm", "faces", "--studies", study_copy.studies, "--json")
    assert refused.code == 2 and "--yes" in refused.json["error"]["message"] and (study_copy.folder / "study.db").exists()
    result = searchft("rm", "faces", "--yes", "--studies", study_copy.studies, "--json")
    assert result.code == 0 and result.json["trials"] == 6
    assert list(study_copy.studies.iterdir()) == []


def test_rm_refuses_while_a_driver_runs(study_copy, searchft: Run) -> None:
    with running(study_copy.folder):
        result = searchft("rm", "faces", "--yes", "--studies", study_copy.studies)
    assert result.code == 4 and "is being run by process" in result.err and (study_copy.folder / "study.db").exists()


def test_rm_with_a_database_leaves_folders_that_no_search_has_made(tmp_path: Path, searchft: Run) -> None:
    images = tmp_path / "pets"
    (images / "cat").mkdir(parents=True)
    (images / "cat" / "1.jpg").write_bytes(b"the only copy")
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    for study, words in ((f"{images}/", "must be a study's name"), ("pets", "is no study's folder")):
        refused = searchft("rm", study, "--yes", "--studies", tmp_path, "--storage", url)
        assert refused.code == 2 and words in refused.err
    assert (images / "cat" / "1.jpg").exists()


def test_rm_of_a_linked_study_removes_the_link(study_copy, searchft: Run, tmp_path: Path) -> None:
    study_copy.folder.rename(tmp_path / "on_another_disk")
    study_copy.folder.symlink_to(tmp_path / "on_another_disk")
    result = searchft("rm", "faces", "--yes", "--studies", study_copy.studies)
    assert result.code == 0 and "is a link" in result.err and not study_copy.folder.is_symlink()
    assert (tmp_path / "on_another_disk" / "study.db").exists()


def test_studies_put_aside_within_a_second_keep_their_whole_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from searchft.search import session

    monkeypatch.setattr(session.time, "strftime", lambda form: "now")
    for _ in range(3):
        (tmp_path / "my_faces").mkdir()
        session._put_aside(tmp_path / "my_faces", "", "my_faces")
    aside = ["my_faces.before-now", "my_faces.before-now_2", "my_faces.before-now_3"]
    assert sorted(p.name for p in tmp_path.iterdir()) == aside
    assert not list(tmp_path.glob("*/driver.json"))


@pytest.mark.slow
def test_the_dashboard_serves_the_study_on_this_machine_only(study_copy) -> None:
    command = [sys.executable, "-m", "searchft", "dashboard", "faces", "--port", "0", "--studies", str(study_copy.studies)]
    with running(study_copy.folder), subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            link = server.stderr.readline().strip()
            assert link.startswith("http://127.0.0.1:") and "/dashboard/studies/" in link
            server.stderr.readline()
            sockets = psutil.Process(server.pid).net_connections("tcp")
            assert [one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN] == ["127.0.0.1"]
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(link.partition("?")[0], timeout=10)
            page = _fetch(link)  # its cookie is kept
            studies = json.loads(_fetch(link.partition("/dashboard")[0] + "/api/studies"))
            assert page.count("overflow-wrap:anywhere") == 1, "long lines must not make the page wide"
            assert "<html" in page.lower() and [s["study_name"] for s in studies["study_summaries"]] == ["faces"]
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=20) == 0, "Ctrl-C is how it ends"
        finally:
            server.kill()


def test_a_taken_port_is_said_to_be_so(study_copy, searchft: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = searchft("dashboard", "faces", "--port", port, "--studies", study_copy.studies)
    assert result.code == 2 and f"port {port} is taken" in result.err


_BROWSER = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())


def _fetch(link: str) -> str:
    with _BROWSER.open(link, timeout=10) as response:
        return str(response.read().decode())
