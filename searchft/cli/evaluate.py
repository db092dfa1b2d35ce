"""`searchft evaluate`: an exported checkpoint on labelled pictures, classes matched by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchft.cli.output import emit, emit_json, say
from searchft.cli.studies import json_option
from searchft.errors import InputError

if TYPE_CHECKING:
    import numpy as np

EPILOG = """\b
Example:
  searchft evaluate winner orl_faces
  searchft evaluate winner photos/          (one sub-folder per class)
  searchft evaluate winner csv:labels.csv --json"""


@click.command("evaluate", epilog=EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("data", metavar="DATA")
@click.option("--split", type=click.Choice(["auto", "train", "val", "test", "all"]), default="auto", help="Which part of DATA.")
@click.option(
    "--tta",
    type=click.Choice(["none", "five-crop", "ten-crop", "flip"]),
    default="none",
    help="Average over looks: centre and corners (and mirrored), or centre and its mirror image.",
)
@json_option
def command(folder: Path, data: str, split: str, tta: str, as_json: bool) -> None:
    """Score the checkpoint in DIR on DATA: a folder, a CSV file, or a source as in a space (folder:PATH, orl_faces …).

    `auto` takes DATA's test part where it has one, everything otherwise. On the data that the checkpoint was made from, the
    study's own split is used again, so that no picture it was trained on counts as a test.
    """
    from searchft.export.load import read_config
    from searchft.export.score import evaluate_split

    config = read_config(folder)
    images, labels, part, unreadable = _pictures(config, data, split)
    score = evaluate_split(folder, images, labels, tta)
    if as_json:
        emit_json({"data": data, "split": part, "tta": tta, "classes": config["classes"], "unreadable": unreadable, **score})
        return
    for line in unreadable:
        say(f"left out: {line}")
    low, high = score["interval_95"]
    what = f"{score['n']} {'' if part == 'all' else part + ' '}pictures"
    emit(f"accuracy {score['accuracy']:.4f} on {what} (95 % interval {low:.4f} to {high:.4f})")
    emit(f"balanced accuracy {score['balanced_accuracy']:.4f}")
    for count, truth, guess in _confusions(score["confusion"], config["classes"])[:5]:
        emit(f"  {count} × {truth} taken for {guess}")


def _pictures(config: dict[str, Any], data: str, split: str) -> tuple[np.ndarray, np.ndarray, str, list[str]]:
    """uint8 pictures [N, S, S, 3], int64 labels [N] in the checkpoint's class order, the part taken, what was unreadable."""
    import numpy as np

    from searchft.data import UnreadableImage, decode_image, open_images
    from searchft.data.sources import read_source
    from searchft.files import cache_folder
    from searchft.recipe import DataSettings

    settings = dataclasses.replace(DataSettings.from_json(config["data"]["settings"]), root=str(Path.cwd()))
    if _is_its_own(data, settings.source):
        own = open_images(dataclasses.replace(settings, max_unreadable=1.0), cache_folder())
        if config["data"].get("fingerprint", own.facts.fingerprint) != own.facts.fingerprint:
            say(
                "note: these are no longer quite the study's pictures: some that the checkpoint was trained on may be among them"
            )
        part = split if split != "auto" else "test" if len(own.split("test").labels) else "val"
        chosen = ["train", "val", "test"] if part == "all" else [part]
        if part in ("train", "all"):
            say("note: these include pictures that the checkpoint was trained on")
        labels = np.concatenate([own.split(name).labels for name in chosen])
        pixels = np.concatenate([own.split(name).images for name in chosen])
        return _not_empty(pixels, _matched(labels, own.classes, config), part, list(own.facts.unreadable), data)

    settings = dataclasses.replace(settings, source=_source_of(data), labels="", folders=())
    found = read_source(settings, cache_folder())
    has_test = any(record.split == "test" for record in found.records)
    part = split if split != "auto" else "test" if has_test else "all"
    size, resize, filter_name = settings.store_size, settings.resize, settings.interpolation
    size = max(size, settings.image_size)
    decoded, numbers = [], []
    unreadable = [f"{path}: {reason}" for path, reason in found.unreadable]
    for record in found.records:
        if part != "all" and record.split != part:
            continue
        content = record.content() if callable(record.content) else record.content
        try:
            decoded.append(decode_image(content, size, resize, filter_name))
        except UnreadableImage as error:
            unreadable.append(f"{record.place}: {error.reason}")
            continue
        numbers.append(record.label)
    pixels = np.stack(decoded) if decoded else np.zeros((0, size, size, 3), np.uint8)
    return _not_empty(pixels, _matched(np.array(numbers, np.int64), found.classes, config), part, unreadable, data)


def _is_its_own(data: str, source: str) -> bool:
    """Whether DATA is what the checkpoint was made from, however its path is written."""
    if data == source:
        return True
    kind, _, written = source.partition(":")
    given = data.removeprefix(f"{kind}:")
    try:
        return kind in ("folder", "csv") and Path(given).expanduser().samefile(Path(written).expanduser())
    except OSError:
        return False


def _source_of(data: str) -> str:
    """DATA as a `data.source`: folders and CSV files may be given by their bare path."""
    from searchft.data.sources import SOURCES

    path = Path(data).expanduser()
    if data.partition(":")[0] not in SOURCES and not path.exists():
        rule = "must be a folder of photos, a CSV table or a source such as orl_faces, but there is nothing here"
        raise InputError(rule, data)
    if path.is_dir():
        return f"folder:{path.absolute()}"
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
        return f"csv:{path.absolute()}"
    return data


def _matched(labels: np.ndarray, classes: tuple[str, ...], config: dict[str, Any]) -> np.ndarray:
    """Labels in the checkpoint's class order. Raises InputError for classes that the checkpoint does not know."""
    import numpy as np

    from searchft.wording import near

    known = {name: index for index, name in enumerate(config["classes"])}
    used = {classes[label] for label in set(labels.tolist())}
    unknown = sorted(used - set(known))
    if unknown:
        meant = near(unknown[0], known)
        hint = f" (did you mean {meant!r}?)" if meant else ""
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        rule = f"must have only classes that the checkpoint knows (labels.txt) but has {unknown[0]!r}{hint}{more}"
        raise InputError(rule, "DATA")
    order = np.array([known.get(name, -1) for name in classes], np.int64)
    return order[labels] if len(labels) else labels


def _not_empty(
    pixels: np.ndarray, labels: np.ndarray, part: str, unreadable: list[str], data: str
) -> tuple[np.ndarray, np.ndarray, str, list[str]]:
    if not len(labels):
        raise InputError(f"has no readable {'' if part == 'all' else part + ' '}pictures", data)
    return pixels, labels, part, unreadable


def _confusions(confusion: list[list[int]], classes: list[str]) -> list[tuple[int, str, str]]:
    """(count, truth, guess) of wrong answers, most frequent first."""
    wrong = [
        (count, classes[truth], classes[guess])
        for truth, row in enumerate(confusion)
        for guess, count in enumerate(row)
        if truth != guess and count
    ]
    return sorted(wrong, key=lambda entry: -entry[0])
