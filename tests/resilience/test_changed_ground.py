"""If images, labels, weights or the space changed since the study began, `run` says exactly what differs and refuses, or forks."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image

PHOTOS = """
study: photos
data: {source: 'folder:photos', split: {train: 3, val: 2, test: 1, seed: 0}, image_size: 32}
recipe:
  backbone: torchvision/resnet18
  weights: none
  unfrozen: head
  lr: [1e-3, 3e-3]
  epochs: 1
  precision: fp32
search: {trials: 2}
"""


def paint(folder, per_class=6):
    """Three classes of six small pictures; every picture is its own."""
    for place, name in enumerate(("ant", "bee", "cat")):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            Image.new("RGB", (40, 40), (place * 80, i * 30, 100)).save(folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def begun(tmp_path_factory, harness):
    """A finished study on a folder of pictures; copied by each test."""
    here = harness.Program(tmp_path_factory.mktemp("photos"), text=PHOTOS, epoch_ms=0)
    paint(here.folder / "photos")
    ended = here.run()
    assert ended.code == 0, ended.err
    return here


@pytest.fixture
def here(begun, program, tmp_path):
    copy = program("copy", text=PHOTOS, epoch_ms=0)
    for name in ("photos", "studies", "cache"):
        shutil.copytree(begun.folder / name, copy.folder / name)
    return copy


def new_pixels(photos):
    Image.new("RGB", (40, 40), (1, 2, 3)).save(photos / "bee" / "3.png")


def another_label(photos):
    (photos / "ant" / "0.png").rename(photos / "bee" / "zero.png")
    (photos / "bee" / "5.png").rename(photos / "ant" / "five.png")  # counts stay as they were


def one_more(photos):
    Image.new("RGB", (40, 40), (9, 9, 9)).save(photos / "cat" / "9.png")


def another_class(photos):
    (photos / "cat").rename(photos / "dog")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (new_pixels, ["1 images show other pixels", "3.png"]),
        (another_label, ["0.png", "zero.png"]),
        (one_more, ["1 images are new", "9.png"]),
        (another_class, ["classes", "gone: cat; new: dog"]),
    ],
    ids=lambda c: getattr(c, "__name__", None),
)
def test_changed_images_and_labels_are_named_and_refused(change, words, here):
    before = here.numbers()
    change(here.folder / "photos")
    ended = here.run("", "--set", "search.trials=3")
    assert ended.code == 2, ended.err
    for word in words:
        assert word in ended.err, ended.err
    assert "--fresh" in ended.err and here.numbers() == before
    again = here.run("", "--fresh")
    assert again.code == 0, again.err
    (aside,) = here.study.parent.glob("photos.before-*")
    assert (aside / "study.db").is_file()


@pytest.mark.slow
def test_changed_weights_are_named_and_refused(program, harness, real_whole):
    import torch

    here = program(text=harness.REAL.replace("weights: none", "weights: 'file:own.pt'"), epoch_ms=0)
    import torchvision

    torch.manual_seed(1)
    model = torchvision.models.resnet18(weights=None)
    torch.save(model.state_dict(), here.folder / "own.pt")
    first = here.run("", "--set", "search.trials=1")
    assert first.code == 0, first.err
    with torch.no_grad():
        model.conv1.weight.add_(0.1)
    torch.save(model.state_dict(), here.folder / "own.pt")
    ended = here.run("", "--set", "search.trials=2")
    assert ended.code == 2 and "the weights of torchvision/resnet18 were" in ended.err and "own.pt" in ended.err, ended.err


@pytest.mark.slow
def test_a_changed_space_is_named_and_refused(program):
    here = program()
    here.finish()
    before = here.numbers()
    here.space.write_text(here.text.replace("epochs: 4", "epochs: 5"))
    ended = here.run()
    assert ended.code == 2 and "recipe.epochs was 4 and is 5" in ended.err and here.numbers() == before
    here.space.write_text(here.text.replace("trials: 16", "trials: 18"))
    assert here.run().code == 0  # a larger budget goes on
    assert here.numbers()[: len(before)] == before


@pytest.mark.slow
def test_gained_choices_fork_with_the_finished_trials_and_a_killed_fork_goes_on(program):
    here = program()
    here.finish()
    before = here.numbers()
    here.space.write_text(
        here.text.replace("dropout: [0.0, 0.5]", "dropout: [0.0, 0.5, 0.75]").replace("trials: 16", "trials: 20")
    )
    refused = here.run()
    assert refused.code == 2 and "recipe.dropout gained 0.75" in refused.err and "--extend" in refused.err
    for fault in ("study.pinned", "driver.reported:3"):  # in the middle of the copy, and of the forked search
        assert here.run(fault, "--extend").code == -9
    done = here.run("", "--extend")
    assert done.code == 0, done.err
    assert sorted(p.name for p in here.study.parent.iterdir()) == ["analytic", "analytic@2"]
    assert here.numbers() == before
    here.name = "analytic@2"
    records = here.records()
    own = [r for r in records if r.answered_from is None]
    assert len(own) == 20 and all(r.finished for r in records)
    assert [r.extra["adopted_from"]["number"] for r in own if "adopted_from" in r.extra] == [
        row[0] for row in before if row[7] is None
    ]


@pytest.mark.slow
def test_a_study_without_networks_is_not_gone_on_with_in_earnest(program, harness):
    here = program(text=harness.REAL.replace("epochs: 3", "epochs: 1"))
    here.finish()
    here.epoch_ms = 0
    ended = here.run("", "--set", "search.trials=9")
    assert ended.code == 2 and "analytic" in ended.err, ended.err
