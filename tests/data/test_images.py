"""What is said about the images as a whole: counts, leaks, quarantine, fingerprint."""

from __future__ import annotations

import shutil

import pytest

from searchft.data import decode_image, reopen_images


def test_a_few_unreadable_images_are_quarantined_and_rows_stay_in_step(opened, tree):
    root = tree("animals", cat=60, dog=60)
    broken = root / "dog" / "7.png"
    broken.write_bytes(broken.read_bytes()[:80])
    images = opened(root)
    assert len(images.facts.unreadable) == 1 and images.facts.unreadable[0].startswith(f"{broken}: is damaged or cut short")
    assert sum(map(sum, dict(images.facts.counts).values())) == 119
    for name in ("train", "val", "test"):
        split = images.split(name)
        assert len(split.images) == len(split.labels) == len(split.names) == len(split) and "dog/7.png" not in split.names
        for pixels, label, path in zip(split.images, split.labels, split.names, strict=True):
            assert path.startswith(images.classes[label])
            assert (pixels == decode_image(root / path, 8, "squash", "bilinear")).all()


def test_too_many_unreadable_images_stop_with_the_first_ten(refused, tree):
    root = tree("animals", cat=20, dog=20)
    for i in range(12):
        (root / "cat" / f"{i}.png").write_bytes(b"")
    message = refused(root)
    assert "12 of 40 images cannot be read" in message and "data.max_unreadable (0.01)" in message
    assert len(message.splitlines()) == 11 and message.count("is an empty file") == 10


def test_a_class_whose_only_train_images_are_unreadable_stops(refused, tree):
    tree("animals/train", cat=1, dog=3)
    root = tree("animals/val", cat=1, dog=3).parent
    (root / "train" / "cat" / "0.png").write_bytes(b"")
    assert "'cat' has none (but 1 in val)" in refused(root, max_unreadable=0.5)


def test_the_same_image_in_two_splits_is_a_leak(opened, tree):
    tree("animals/train", cat=3, dog=3)
    root = tree("animals/val", cat=2, dog=2).parent
    shutil.copy(root / "train" / "cat" / "0.png", root / "val" / "cat" / "again.png")
    shutil.copy(root / "train" / "dog" / "0.png", root / "train" / "cat" / "wrong.png")
    facts = opened(root).facts
    assert facts.leaks == (("train: train/cat/0.png", "val: val/cat/again.png"),)
    assert any("more than one class" in note and "wrong.png" in note for note in facts.notes)


def test_the_fingerprint_follows_content_and_nothing_else(opened, tree, tmp_path, image):
    root = tree("animals", cat=6, dog=6)

    def fingerprint(folder=root, **more):
        return opened(folder, **more).facts.fingerprint

    first = fingerprint()
    assert fingerprint() == first
    shutil.copytree(root, tmp_path / "moved")
    assert fingerprint(tmp_path / "moved") == first
    others = [fingerprint(split_seed=1), fingerprint(image_size=9), fingerprint(resize="pad"), fingerprint(store_size=9)]
    others.append(fingerprint(interpolation="nearest"))
    image(999).save(root / "cat" / "0.png")
    others.append(fingerprint())
    assert len({first, *others}) == 7


def test_images_travel_to_another_process_by_folder(opened, tree):
    images = opened(tree("animals", cat=6, dog=6))
    again = reopen_images(images.folder)
    assert again.facts == images.facts and again.size == images.size == 8 and again.classes == ("cat", "dog")
    for name in ("train", "val", "test"):
        one, two = images.split(name), again.split(name)
        assert (one.images == two.images).all() and (one.labels == two.labels).all() and one.names == two.names
    with pytest.raises(KeyError):
        again.split("dev")
