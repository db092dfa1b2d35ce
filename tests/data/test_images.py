"""What is said about the images as a whole: counts, leaks, quarantine, fingerprint."""

from __future__ import annotations

import shutil

import pytest

from searchft.data import open_images, reopen_images
from searchft.errors import InputError
from searchft.recipe import DataSettings


def settings(source, **more) -> DataSettings:
    more = {"image_size": 8, **more}
    return DataSettings(str(source), **more)


def refused(cache, source, **more) -> InputError:
    with pytest.raises(InputError) as caught:
        open_images(settings(source, **more), cache)
    return caught.value


def test_a_few_unreadable_images_are_quarantined_and_listed(cache, tree):
    root = tree("photos", cat=60, dog=60)
    broken = root / "dog" / "7.png"
    broken.write_bytes(broken.read_bytes()[:80])
    images = open_images(settings(f"folder:{root}"), cache)
    assert len(images.facts.unreadable) == 1 and images.facts.unreadable[0].startswith(f"{broken}: is damaged or cut short")
    assert sum(map(sum, dict(images.facts.counts).values())) == 119
    names = [n for s in ("train", "val", "test") for n in images.split(s).names]
    assert "dog/7.png" not in names and len(names) == 119


def test_rows_stay_in_step_when_an_image_is_quarantined(cache, tree):
    from searchft.data import decode_image

    root = tree("photos", cat=10, dog=10)
    (root / "cat" / "0.png").write_bytes(b"\x89PNG broken")
    images = open_images(settings(f"folder:{root}", max_unreadable=0.1), cache)
    for name in ("train", "val", "test"):
        split = images.split(name)
        assert len(split.images) == len(split.labels) == len(split.names) == len(split)
        for pixels, label, path in zip(split.images, split.labels, split.names, strict=True):
            assert path.startswith(images.classes[label])
            assert (pixels == decode_image(root / path, 8, "squash", "bilinear")).all()


def test_too_many_unreadable_images_stop_with_the_first_ten(cache, tree):
    root = tree("photos", cat=20, dog=20)
    for i in range(12):
        (root / "cat" / f"{i}.png").write_bytes(b"")
    error = refused(cache, f"folder:{root}")
    assert "12 of 40 images cannot be read" in str(error) and "data.max_unreadable (0.01)" in str(error)
    assert len(error.problems) == 11 and str(error).count("is an empty file") == 10


def test_a_class_whose_only_train_images_are_unreadable_stops(cache, tree):
    tree("photos/train", cat=1, dog=3)
    root = tree("photos/val", cat=1, dog=3).parent
    (root / "train" / "cat" / "0.png").write_bytes(b"")
    assert "'cat' has none (but 1 in val)" in str(refused(cache, f"folder:{root}", max_unreadable=0.5))


def test_the_same_image_in_two_splits_is_a_leak(cache, tree):
    tree("photos/train", cat=3, dog=3)
    root = tree("photos/val", cat=2, dog=2).parent
    shutil.copy(root / "train" / "cat" / "0.png", root / "val" / "cat" / "again.png")
    shutil.copy(root / "train" / "dog" / "0.png", root / "train" / "cat" / "wrong.png")
    facts = open_images(settings(f"folder:{root}"), cache).facts
    assert facts.leaks == (("train: train/cat/0.png", "val: val/cat/again.png"),)
    assert any("more than one class" in note and "wrong.png" in note for note in facts.notes)


def test_the_fingerprint_follows_content_and_nothing_else(cache, tree, tmp_path, picture):
    root = tree("photos", cat=6, dog=6)

    def fingerprint(folder=root, **more):
        return open_images(settings(f"folder:{folder}", **more), cache).facts.fingerprint

    first = fingerprint()
    assert fingerprint() == first
    shutil.copytree(root, tmp_path / "moved")
    assert fingerprint(tmp_path / "moved") == first
    others = [fingerprint(split_seed=1), fingerprint(image_size=9), fingerprint(resize="pad"), fingerprint(store_size=9)]
    others.append(fingerprint(interpolation="nearest"))
    picture(999).save(root / "cat" / "0.png")
    others.append(fingerprint())
    assert len({first, *others}) == 7


def test_images_travel_to_another_process_by_folder(cache, tree):
    images = open_images(settings(f"folder:{tree('photos', cat=6, dog=6)}"), cache)
    again = reopen_images(images.folder)
    assert again.facts == images.facts and again.size == images.size == 8 and again.classes == ("cat", "dog")
    for name in ("train", "val", "test"):
        one, two = images.split(name), again.split(name)
        assert (one.images == two.images).all() and (one.labels == two.labels).all() and one.names == two.names
    with pytest.raises(KeyError):
        again.split("dev")
