"""`searchft evaluate`: an exported checkpoint on labelled images, classes matched by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from searchft.cli.output import emit, emit_json, say, score_in_words
from searchft.cli.studies import PATH, examples, find_source, json_option, tta_option
from searchft.errors import InputError
from searchft.wording import did_you_mean

if TYPE_CHECKING:
    import numpy as np

    from searchft.recipe import DataSettings

EXAMPLES = examples(
    "evaluate winner orl_faces",
    "evaluate winner images/          (one sub-folder per class)",
    "evaluate winner csv:labels.csv --json",
)


@click.command("evaluate", epilog=EXAMPLES)
@click.argument("folder", metavar="DIR", type=PATH)
@click.argument("data", metavar="DATA")
@click.option("--split", type=click.Choice(["auto", "train", "val", "test", "all"]), default="auto", help="Which part of DATA.")
@tta_option
@json_option
def command(folder: Path, data: str, split: str, tta: str, as_json: bool) -> None:
    """Score the checkpoint in DIR on DATA: a folder, a CSV file, or a source as in a space (folder:PATH, orl_faces …).

    `auto` takes DATA's test part where it has one, everything otherwise. On the data that the checkpoint was made from, the
    study's own split is used again, so that no image it was trained on counts as a test.
    """
    from searchft.export.load import read_config
    from searchft.export.score import evaluate_split
    from searchft.recipe import DataSettings

    config = read_config(folder)
    settings = dataclasses.replace(DataSettings.from_json(config["data"]["settings"]), root=str(Path.cwd()))
    if _is_its_own(data, settings.source):
        found = _read_own_data(settings, split, config["data"].get("fingerprint"))
    else:
        found = _read_other_data(settings, split, data)
    part = "" if found.part == "all" else found.part
    if not len(found.labels):
        raise InputError(f"has no readable {part}{part and ' '}images", data)
    classes = config["classes"]
    score = evaluate_split(folder, found.pixels, _match_labels(found.labels, found.classes, classes), tta)
    if as_json:
        about = {"data": data, "split": found.part, "tta": tta, "classes": classes, "unreadable": found.unreadable}
        emit_json({**about, **score})
        return
    for line in found.unreadable:
        say(f"left out: {line}")
    emit(score_in_words(score, part))
    emit(f"balanced accuracy {score['balanced_accuracy']:.4f}")
    mistakes = {(t, g): count for t, row in enumerate(score["confusion"]) for g, count in enumerate(row) if t != g and count}
    for truth, guess in sorted(mistakes, key=lambda pair: -mistakes[pair])[:5]:
        emit(f"  {mistakes[truth, guess]} × {classes[truth]} taken for {classes[guess]}")


class _Found(NamedTuple):
    """What DATA holds: `pixels` uint8 [N, S, S, 3], `labels` int64 [N] of `classes`."""

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    part: str
    unreadable: list[str]


def _read_own_data(settings: DataSettings, split: str, fingerprint: str | None) -> _Found:
    """The data that the checkpoint was made from, in the study's split."""
    import numpy as np

    from searchft.data import open_images
    from searchft.files import cache_folder

    own = open_images(dataclasses.replace(settings, max_unreadable=1.0), cache_folder())
    if fingerprint not in (None, own.facts.fingerprint):
        say("note: these are no longer quite the study's images: some that the checkpoint was trained on may be among them")
    part = split if split != "auto" else "test" if len(own.split("test").labels) else "val"
    if part in ("train", "all"):
        say("note: these include images that the checkpoint was trained on")
    chosen = [own.split(name) for name in (["train", "val", "test"] if part == "all" else [part])]
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*((one.images, one.labels) for one in chosen), strict=True))
    return _Found(pixels, labels, own.classes, part, list(own.facts.unreadable))


def _read_other_data(settings: DataSettings, split: str, data: str) -> _Found:
    """Any other labelled images, decoded as the checkpoint's were."""
    import numpy as np

    from searchft.data import UnreadableImage, decode_image
    from searchft.data.sources import read_source
    from searchft.files import cache_folder

    settings = dataclasses.replace(settings, source=find_source(data), labels="", folders=())
    found = read_source(settings, cache_folder())
    part = split if split != "auto" else "test" if any(record.split == "test" for record in found.records) else "all"
    size = max(settings.store_size, settings.image_size)
    pixels, labels = [np.zeros((0, size, size, 3), np.uint8)], []
    unreadable = [f"{path}: {reason}" for path, reason in found.unreadable]
    for record in found.records:
        if part not in ("all", record.split):
            continue
        content = record.content() if callable(record.content) else record.content
        try:
            pixels.append(decode_image(content, size, settings.resize, settings.interpolation)[None])
            labels.append(record.label)
        except UnreadableImage as error:
            unreadable.append(f"{record.place}: {error.reason}")
    return _Found(np.concatenate(pixels), np.array(labels, np.int64), found.classes, part, unreadable)


def _is_its_own(data: str, source: str) -> bool:
    """Whether DATA is what the checkpoint was made from, however its path is written."""
    if data == source:
        return True
    kind, _, written = source.partition(":")
    try:
        given = Path(data.removeprefix(f"{kind}:")).expanduser()
        return kind in ("folder", "csv") and given.samefile(Path(written).expanduser())
    except OSError:
        return False


def _match_labels(labels: np.ndarray, classes: tuple[str, ...], known: list[str]) -> np.ndarray:
    """Labels in the checkpoint's class order. Raises InputError for classes that the checkpoint does not know."""
    import numpy as np

    unknown = sorted({classes[label] for label in set(labels.tolist())} - set(known))
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        rule = f"must have only classes that the checkpoint knows (labels.txt) but has {unknown[0]!r}{more}"
        raise InputError(rule + did_you_mean(unknown[0], known), "DATA")
    places = {name: index for index, name in enumerate(known)}
    return np.array([places.get(name, -1) for name in classes], np.int64)[labels]
