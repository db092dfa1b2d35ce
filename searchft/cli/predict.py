"""`searchft predict`: what an exported checkpoint sees in an image."""

from __future__ import annotations

from pathlib import Path

import click

from searchft.cli.output import emit, emit_json, say
from searchft.cli.studies import PATH, examples, json_option, tta_option
from searchft.errors import InputError, Problem

EXAMPLES = examples(
    "predict winner image.jpg",
    "predict winner image.jpg --tta five-crop --top-k 5",
    "predict winner new/*.jpg --top-k 3 --json",
)


@click.command("predict", epilog=EXAMPLES)
@click.argument("folder", metavar="DIR", type=PATH)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=PATH)
@click.option(
    "--top-k", type=click.IntRange(min=1), default=1, show_default=True, metavar="K", help="How many classes to name."
)
@tta_option
@json_option
def command(folder: Path, images: tuple[Path, ...], top_k: int, tta: str, as_json: bool) -> None:
    """Classify each IMAGE with the checkpoint in DIR, which `searchft export` wrote.

    Images that cannot be read are named; the others are classified all the same, and the exit code is 2.
    """
    from searchft.export.score import predict_files

    answers = predict_files(folder, images, top_k, tta)
    problems = [Problem(answer["image"], "", answer["error"]) for answer in answers if "error" in answer]
    if len(problems) == len(answers):
        raise InputError(problems)
    if as_json:
        emit_json({"predictions": answers})
    else:
        for answer in answers:
            if "error" in answer:
                say(f"error: {answer['image']}: {answer['error']}")
            else:
                named = ", ".join(f"{entry['class']} {entry['probability']:.3f}" for entry in answer["classes"])
                emit(f"{answer['image']}: {named}")
    if problems:
        click.get_current_context().exit(2)
