"""init looks at photos, asks nothing, and writes a space that loads; run FOLDER does both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from searchft.cli.init import space_of_folder, study_name
from searchft.errors import InputError
from searchft.space import load_space

Run = Callable[..., object]


@pytest.fixture
def photos(tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two uneven classes of 200×150 photos; the current folder is its parent."""
    monkeypatch.chdir(tmp_path)
    for name, count in (("cat", 12), ("dog & co", 40)):
        folder = tmp_path / "my photos" / name
        folder.mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (200, 150), (i * 5, count, 255 - i)).save(folder / f"{i}.jpg")
    return tmp_path / "my photos"


def test_a_folder_becomes_a_space_that_loads(photos: Path, searchft: Run) -> None:
    result = searchft("init", "my photos")
    assert result.code == 0
    assert "52 images in 2 classes" in result.out and "dog & co 40, cat 12" in result.out
    assert "shorter side 150 px at least" in result.out and "searchft run my_photos.yaml" in result.out
    space = load_space("my_photos.yaml")
    assert space.data.source == "folder:my photos", "relative, so that both may move"
    assert space.data.image_size == 128 and space.data.resize == "squash"
    assert dict(space.data.split) == {"train": 0.6, "val": 0.2, "test": 0.2}, "12 photos in the smallest class"
    assert space.by_name["batch_size"].choices == (8, 16)
    assert space.by_name["class_weights"].choices == ("none", "balanced"), "because the classes are uneven"
    assert [row.name for row in space.enqueue] == ["linear probe", "last stage"]


def test_unreadable_files_and_leaks_are_named(photos: Path, searchft: Run) -> None:
    for split in ("train", "val"):
        (photos / split).mkdir()
    for name in ("cat", "dog & co"):
        (photos / name).rename(photos / "train" / name)
        (photos / "val" / name).mkdir()
        for i in range(3):
            content = (photos / "train" / name / f"{i}.jpg").read_bytes()
            (photos / "val" / name / f"copy{i}.jpg").write_bytes(content)
    for i in range(60):
        Image.new("RGB", (200, 150), (i, i, i)).save(photos / "train" / "cat" / f"more{i}.jpg")
    (photos / "train" / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    result = searchft("init", photos, "--out", "split.yaml")
    assert result.code == 0, result.err
    assert "LEAKS     6 images" in result.out and "UNREADABLE 1 file is left out" in result.out and "broken.jpg" in result.out
    assert "split:" not in Path("split.yaml").read_text().split("recipe:")[0], "the split is the folders' own"
    answer = searchft("init", photos, "--out", "again.yaml", "--json").json
    assert len(answer["leaks"]) == 6 and answer["images"] == {"train": 112, "val": 6}


def test_a_few_unreadable_photos_are_left_out_and_the_space_allows_them(photos: Path, searchft: Run) -> None:
    for name in ("one.jpg", "two.jpg"):
        (photos / "cat" / name).write_bytes(b"")
    (photos / "cat" / "phone.heic").write_bytes(b"")
    result = searchft("init", photos)
    assert result.code == 0 and "UNREADABLE 3 files are left out" in result.out, result.err
    assert load_space("my_photos.yaml").data.max_unreadable == 0.06, "3 of 55"


def test_many_unreadable_photos_stop_it(photos: Path, searchft: Run) -> None:
    for i in range(7):
        (photos / "cat" / f"{i}.heic").write_bytes(b"")
    result = searchft("init", photos)
    assert result.code == 2 and "7 of 59 images cannot be read (7 .heic)" in result.err and "convert it to JPEG" in result.err
    assert list(photos.parent.glob("*.yaml")) == []


def test_one_photo_a_class_is_too_few_and_why_is_said(tmp_path: Path, shared_cache: Path, searchft: Run, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / "one each" / name).mkdir(parents=True)
        Image.new("RGB", (64, 64), (ord(name), 0, 0)).save(tmp_path / "one each" / name / "1.png")
    result = searchft("init", "one each")
    assert result.code == 2 and "every class has a single image, and needs two at least" in result.err


def test_an_existing_space_is_not_overwritten(photos: Path, searchft: Run) -> None:
    Path("my_photos.yaml").write_text("mine")
    result = searchft("init", photos)
    assert result.code == 2 and "--force" in result.err and Path("my_photos.yaml").read_text() == "mine"
    assert searchft("init", photos, "--force").code == 0


@pytest.mark.parametrize(
    ("what", "words"),
    [("nowhere", "there is nothing here"), ("one", "at least two classes"), ("note.txt", "a table ending in .csv")],
)
def test_what_cannot_be_searched_is_refused_and_nothing_is_written(what: str, words: str, photos: Path, searchft: Run) -> None:
    (photos.parent / "one" / "cat").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(photos.parent / "one" / "cat" / "1.jpg")
    (photos.parent / "note.txt").write_text("hello")
    result = searchft("init", what)
    assert result.code == 2 and words in result.err
    assert list(photos.parent.glob("*.yaml")) == []


def test_a_table_becomes_a_space(photos: Path, searchft: Run) -> None:
    rows = [f"my photos/{p.parent.name}/{p.name},{p.parent.name}" for p in sorted(photos.rglob("*.jpg"))]
    Path("labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    assert searchft("init", "labels.csv").code == 0
    assert load_space("labels.yaml").data.source == "csv:labels.csv"


def test_few_photos_give_up_the_test_split_first(tmp_path: Path, shared_cache: Path, searchft: Run, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / "few" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (40, 400), (i * 90, ord(name), 0)).save(tmp_path / "few" / name / f"{i}.png")
    assert searchft("init", "few").code == 0
    space = load_space("few.yaml")
    assert dict(space.data.split) == {"train": 0.5, "val": 0.5}
    assert space.data.image_size == 64 and space.data.resize == "pad", "long strips"


def test_run_folder_writes_the_space_once_and_then_uses_it(photos: Path) -> None:
    path = space_of_folder(Path("my photos"))
    assert path == Path("my_photos.yaml")
    path.write_text(path.read_text().replace("trials: 24", "trials: 7"))
    assert load_space(space_of_folder(photos)).search.trials == 7, "what a person changed stays"
    (photos.parent / "other").mkdir()
    path.write_text(path.read_text().replace("folder:my photos", "folder:other"))
    with pytest.raises(InputError, match="other data"):
        space_of_folder(photos)


def test_a_studys_folder_is_no_folder_of_photos(small_study, searchft: Run) -> None:  # type: ignore[no-untyped-def]
    result = searchft("run", small_study.folder)
    assert result.code == 2 and "is a study, not images" in result.err


@pytest.mark.parametrize(
    ("text", "name"), [("Häuser & Co", "H_user_Co"), ("..", "images"), ("a b", "a_b"), ("x" * 99, "x" * 60)]
)
def test_study_names_are_made_of_folders(text: str, name: str) -> None:
    assert study_name(text) == name
