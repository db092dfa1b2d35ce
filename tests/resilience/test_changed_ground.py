"""If images, labels, weights or the space changed since the study began, `run` says exactly what differs and refuses, or forks."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image

pytestmark = pytest.mark.slow

IMAGES = """
study: images
data: {source: 'folder:images', split: {train: 3, val: 2, test: 1, seed: 0}, image_size: 32}
recipe:
  backbone: torchvision/resnet18
  weights: none
  unfrozen: head
  lr: [1e-3, 3e-3]
  epochs: 1
  precision: fp32
search: {trials: 2}
"""


def paint(path, *color):
    Image.new("RGB", (40, 40), color).save(path)


def swap_two_labels(images):
    (images / "ant" / "0.png").rename(images / "bee" / "zero.png")
    (images / "bee" / "5.png").rename(images / "ant" / "five.png")  # counts stay as they were


CHANGES = (
    (lambda images: paint(images / "bee" / "3.png", 1, 2, 3), ["1 images show other pixels", "3.png"]),
    (swap_two_labels, ["0.png", "zero.png"]),
    (lambda images: paint(images / "cat" / "9.png", 9, 9, 9), ["1 images are new", "9.png"]),
    (lambda images: (images / "cat").rename(images / "dog"), ["classes", "gone: cat; new: dog"]),
)
"""Something that happens to the images, and words of what is said then."""


def test_changed_images_and_labels_are_named_and_refused(program):
    here = program(text=IMAGES, epoch_ms=0)
    images, kept = here.folder / "images", here.folder / "kept"
    for place, name in enumerate(("ant", "bee", "cat")):
        (images / name).mkdir(parents=True)
        for i in range(6):
            paint(images / name / f"{i}.png", place * 80, i * 30, 100)
    here.finish()
    before = here.numbers()
    shutil.copytree(images, kept)
    for change, words in CHANGES:
        shutil.rmtree(images)
        shutil.copytree(kept, images)
        change(images)
        ended = here.run("", "--set", "search.trials=3")
        assert ended.code == 2 and all(word in ended.err for word in [*words, "--fresh"]), ended.err
        assert here.numbers() == before
    here.finish("", "--fresh")
    (aside,) = here.study.parent.glob("images.before-*")
    assert (aside / "study.db").is_file()


def test_changed_weights_are_named_and_refused(program, harness):
    import torch
    import torchvision

    here = program(text=harness.REAL.replace("weights: none", "weights: 'file:own.pt'"), epoch_ms=0)
    torch.manual_seed(1)
    model = torchvision.models.resnet18(weights=None)
    torch.save(model.state_dict(), here.folder / "own.pt")
    here.finish("", "--set", "search.trials=1")
    with torch.no_grad():
        model.conv1.weight.add_(0.1)
    torch.save(model.state_dict(), here.folder / "own.pt")
    ended = here.run("", "--set", "search.trials=2")
    assert ended.code == 2 and "the weights of torchvision/resnet18 were" in ended.err and "own.pt" in ended.err, ended.err


def test_a_changed_space_is_named_and_gained_choices_fork_even_when_killed(finished):
    """The fork has the finished trials."""
    here = finished
    before = here.numbers()
    here.space.write_text(here.text.replace("epochs: 4", "epochs: 5"))
    refused = here.run()
    assert refused.code == 2 and "recipe.epochs was 4 and is 5" in refused.err and here.numbers() == before
    here.space.write_text(here.text.replace("trials: 16", "trials: 18"))
    here.finish()  # a larger budget goes on
    assert here.numbers()[: len(before)] == before
    before = here.numbers()
    here.space.write_text(here.text.replace("[0.0, 0.5]", "[0.0, 0.5, 0.75]").replace("trials: 16", "trials: 22"))
    refused = here.run()
    assert refused.code == 2 and "recipe.dropout gained 0.75" in refused.err and "--extend" in refused.err
    for fault in ("study.pinned", "driver.reported:3"):  # in the middle of the copy, and of the forked search
        assert here.run(fault, "--extend").code == -9
    here.finish("", "--extend")
    assert sorted(p.name for p in here.study.parent.iterdir()) == ["analytic", "analytic@2"]
    assert here.numbers() == before
    here.name = "analytic@2"
    records = here.records()
    own = [r for r in records if r.answered_from is None]
    assert len(own) == 22 and all(r.finished for r in records)
    adopted = [r.extra["adopted_from"]["number"] for r in own if "adopted_from" in r.extra]
    assert adopted == [row[0] for row in before if row[7] is None]


def test_a_study_without_networks_is_not_gone_on_with_in_earnest(finished):
    finished.epoch_ms = 0
    ended = finished.run("", "--set", "search.trials=18")
    assert ended.code == 2 and "analytic" in ended.err, ended.err
