"""init looks at images, asks nothing, and writes a space that loads; run FOLDER does both."""

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
def here(tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_images(folder: Path, count: int, size: tuple[int, int] = (200, 150)) -> None:
    """Images that all differ, also from those of other folders."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", size, (i * 5, sum(folder.name.encode()) % 256, 255 - i)).save(folder / f"{i}.png")


@pytest.fixture
def images(here: Path) -> Path:
    """A folder with two uneven classes of 200×150 images; the current folder is its parent."""
    write_images(here / "my images" / "cat", 12)
    write_images(here / "my images" / "dog & co", 40)
    return here / "my images"


def test_a_folder_becomes_a_space_that_loads(images: Path, searchft: Run) -> None:
    result = searchft("init", "my images")
    assert result.code == 0
    assert "52 images in 2 classes" in result.out and "dog & co 40, cat 12" in result.out
    assert "shorter side 150 px at least" in result.out and "searchft run my_images.yaml" in result.out
    space = load_space("my_images.yaml")
    assert space.data.source == "folder:my images", "relative, so that both may move"
    assert space.data.image_size == 128 and space.data.resize == "squash"
    assert dict(space.data.split) == {"train": 0.6, "val": 0.2, "test": 0.2}, "12 images in the smallest class"
    assert space.by_name["batch_size"].choices == (8, 16)
    assert space.by_name["class_weights"].choices == ("none", "balanced"), "because the classes are uneven"
    assert [row.name for row in space.enqueue] == ["linear probe", "last stage"]


def test_unreadable_files_and_leaks_are_named(images: Path, searchft: Run) -> None:
    for split in ("train", "val"):
        (images / split).mkdir()
    for name in ("cat", "dog & co"):
        (images / name).rename(images / "train" / name)
        (images / "val" / name).mkdir()
        for i in range(3):
            content = (images / "train" / name / f"{i}.png").read_bytes()
            (images / "val" / name / f"copy{i}.png").write_bytes(content)
    write_images(images / "train" / "cat" / "more", 60, (210, 150))
    (images / "train" / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    result = searchft("init", images, "--out", "split.yaml")
    assert result.code == 0, result.err
    assert "LEAKS     6 images" in result.out and "UNREADABLE 1 file is left out" in result.out and "broken.jpg" in result.out
    assert "split:" not in Path("split.yaml").read_text().split("recipe:")[0], "the split is the folders' own"
    answer = searchft("init", images, "--out", "again.yaml", "--json").json
    assert len(answer["leaks"]) == 6 and answer["images"] == {"train": 112, "val": 6}


def test_a_few_unreadable_images_are_left_out_and_many_stop_it(images: Path, searchft: Run) -> None:
    for name in ("one.jpg", "two.jpg", "phone.heic"):
        (images / "cat" / name).write_bytes(b"")
    result = searchft("init", images)
    assert result.code == 0 and "UNREADABLE 3 files are left out" in result.out, result.err
    assert load_space("my_images.yaml").data.max_unreadable == 0.06, "3 of 55"
    for i in range(7):
        (images / "cat" / f"{i}.heic").write_bytes(b"")
    result = searchft("init", images, "--out", "many.yaml")
    assert result.code == 2 and "8 of 62 images cannot be read (8 .heic)" in result.err and "convert it to JPEG" in result.err
    assert not Path("many.yaml").exists()


def test_an_existing_space_is_not_overwritten(images: Path, searchft: Run) -> None:
    Path("my_images.yaml").write_text("mine")
    result = searchft("init", images)
    assert result.code == 2 and "--force" in result.err and Path("my_images.yaml").read_text() == "mine"
    assert searchft("init", images, "--force").code == 0


@pytest.mark.parametrize(
    ("what", "words"),
    [
        *(("nowhere", "there is nothing here"), ("one class", "at least two classes"), ("note.txt", "a table ending in .csv")),
        ("one each", "every class has a single image, and needs two at least"),
    ],
)
def test_what_cannot_be_searched_is_refused_and_nothing_is_written(what: str, words: str, here: Path, searchft: Run) -> None:
    for folder in ("one class/cat", "one each/a", "one each/b"):
        write_images(here / folder, 1)
    Path("note.txt").write_text("hello")
    result = searchft("init", what)
    assert result.code == 2 and words in result.err
    assert list(here.glob("*.yaml")) == []


def test_a_table_becomes_a_space(images: Path, searchft: Run) -> None:
    rows = [f"my images/{p.parent.name}/{p.name},{p.parent.name}" for p in sorted(images.rglob("*.png"))]
    Path("labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    assert searchft("init", "labels.csv").code == 0
    assert load_space("labels.yaml").data.source == "csv:labels.csv"


def test_few_images_give_up_the_test_split_first(here: Path, searchft: Run) -> None:
    for name in "ab":
        write_images(here / "few" / name, 2, (40, 400))
    assert searchft("init", "few").code == 0
    space = load_space("few.yaml")
    assert dict(space.data.split) == {"train": 0.5, "val": 0.5}
    assert space.data.image_size == 64 and space.data.resize == "pad", "long strips"


def test_run_folder_writes_the_space_once_and_then_uses_it(images: Path) -> None:
    path = space_of_folder(Path("my images"))
    assert path == Path("my_images.yaml")
    path.write_text(path.read_text().replace("trials: 24", "trials: 7"))
    assert load_space(space_of_folder(images)).search.trials == 7, "what a person changed stays"
    (images.parent / "other").mkdir()
    path.write_text(path.read_text().replace("folder:my images", "folder:other"))
    with pytest.raises(InputError, match="other data"):
        space_of_folder(images)


def test_a_studys_folder_is_no_folder_of_images(small_study, searchft: Run) -> None:
    result = searchft("run", small_study.folder)
    assert result.code == 2 and "is a study, not images" in result.err


@pytest.mark.parametrize(
    ("text", "name"), [("Häuser & Co", "H_user_Co"), ("..", "images"), ("a b", "a_b"), ("x" * 99, "x" * 60)]
)
def test_study_names_are_made_of_folders(text: str, name: str) -> None:
    assert study_name(text) == name
