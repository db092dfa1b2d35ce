"""`searchft export`: the best trial as a folder that plain PyTorch loads, scored as it stands there.

The test images are looked at here alone: for the winner and the enqueued rows that the report compares it with.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchft.cli.output import emit, emit_json, say, score_in_words
from searchft.cli.studies import PATH, FoundStudy, examples, find_study, json_option, say_if_read_only, study_options
from searchft.errors import ChangedGroundError, InputError, NothingCompletedError
from searchft.files import BEST_WEIGHTS

if TYPE_CHECKING:
    from searchft.data import Images
    from searchft.recipe import SpaceFacts
    from searchft.search.ledger import Ledger
    from searchft.search.records import TrialRecord
    from searchft.space import Space


@click.command("export", epilog=examples("export quickstart --out winner", "export quickstart --trial 7 --out seventh"))
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder to write.")
@click.option("--trial", "number", type=click.IntRange(min=0), metavar="N", help="This trial, not the best one.")
@click.option("--force", is_flag=True, help="Write into DIR even if it holds other things.")
@click.option("--rows/--no-rows", default=True, help="Also score the enqueued rows on the test images, for the report.")
@study_options
@json_option
def command(
    study: str, out: Path, number: int | None, force: bool, rows: bool, studies: Path, storage: str, as_json: bool
) -> None:
    """Write the best trial of STUDY to DIR: weights, configuration, labels and a model card.

    Then score that very folder on the validation and test images, in plain float32, and note the result there.
    """
    found = find_study(study, studies, storage)
    from searchft.data import open_images
    from searchft.export.checkpoint import add_metrics, check_target
    from searchft.files import cache_folder
    from searchft.report.words import recipe_in_words, varying_fields

    check_target(out, force)
    with found.open() as ledger:
        say_if_read_only(ledger)
        # 1. Everything that may be refused, before anything is written
        space, facts = ledger.space(), ledger.facts()
        record = _choose_trial(ledger, number)
        delta = found.trial_folder(record.number) / BEST_WEIGHTS
        if not delta.is_file():
            kept = "search.keep_checkpoints says how many of the best are"
            raise InputError(f"the weights of trial {record.number} are not kept ({kept})", str(delta))
        images = open_images(space.data, cache_folder())
        if images.facts.fingerprint != facts.data.fingerprint:
            rule = f"are not those that study {found.name} was created with: scores would mean nothing. Put them back"
            raise ChangedGroundError(rule, facts.data.source)
        # 2. The folder, complete and usable; then its scores
        words = recipe_in_words(record.recipe, facts, varying_fields(space))
        _export(record, space, facts, delta, out, words)
        metrics = {split: _score_split(out, images, split, found, record) for split in ("val", "test")}
        add_metrics(out, metrics)
        # 3. What the report compares it with
        if metrics["test"]:
            ledger.save_test_score(record.number, metrics["test"])
            if rows:
                _score_rows(found, ledger, space, facts, images)
    if as_json:
        emit_json({"study": space.name, "trial": record.number, "out": str(out), "recipe_in_words": words, "metrics": metrics})
        return
    emit(f"trial {record.number} of {space.name}: {words}")
    for title, split in (("validation", "val"), ("test", "test")):
        if score := metrics[split]:
            emit(f"{title} {score_in_words(score)}")
    val = metrics["val"]
    if val and record.value is not None and abs(val["accuracy"] - record.value) * val["n"] >= 0.5:
        # bfloat16 rounds; a mix-up of files does worse
        say(f"note: the search measured {record.value:.4f} on the validation images, in its own precision")
    if not metrics["test"]:
        emit("there is no test split: the validation accuracy chose this trial, so it flatters")
    emit(f"written to {out}; {out / 'README.md'} shows how to load it without searchft")


def _choose_trial(ledger: Ledger, number: int | None) -> TrialRecord:
    """The best trial, or the one asked for (a trial answered from another stands for that one)."""
    from searchft.search.records import best

    records = {record.number: record for record in ledger.records()}
    if number is None:
        first = best(records.values())
        if first is None:
            raise NothingCompletedError(f"no trial of {ledger.name} has completed yet", ledger.name)
        return first
    if number not in records:
        raise InputError(f"must be a trial of {ledger.name} (0 to {len(records) - 1}) but got {number}", "--trial")
    answered_from = records[number].answered_from
    return records[number if answered_from is None else answered_from]


def _export(record: TrialRecord, space: Space, facts: SpaceFacts, delta: Path, out: Path, words: str) -> None:
    from searchft.export.checkpoint import export_trial

    about = {"study": space.name, "trial": record.number, "name": record.name, "words": words}
    metrics, epoch = {"search_val_accuracy": record.value}, record.extra.get("best_epoch")
    export_trial(record.recipe, facts, space.data, delta, out, metrics, about, epoch=epoch)


def _score_split(out: Path, images: Images, split: str, found: FoundStudy, record: TrialRecord) -> dict[str, Any] | None:
    """The exported folder's score on a split (None: it is empty); its predictions are kept beside the trial, for the report."""
    from searchft.cli.gather import predict_split
    from searchft.export.score import scores

    predictions = predict_split(found, record, out, images, split)
    if predictions is None:
        return None
    score = scores(predictions.guess, predictions.truth, len(images.classes))
    return {key: value for key, value in score.items() if key != "confusion"}


def _score_rows(found: FoundStudy, ledger: Ledger, space: Space, facts: SpaceFacts, images: Images) -> None:
    """Scores on the test images the enqueued rows whose weights are still there; says which are not."""
    gone, known = [], ledger.load_test_scores()
    for row in ledger.records():
        if not row.name or row.state != "complete" or row.answered_from is not None or row.number in known:
            continue
        delta = found.trial_folder(row.number) / BEST_WEIGHTS
        if not delta.is_file():
            gone.append(row.name)
            continue
        with tempfile.TemporaryDirectory(prefix="searchft-") as folder:
            _export(row, space, facts, delta, Path(folder), "")
            score = _score_split(Path(folder), images, "test", found, row)
        if score is not None:
            ledger.save_test_score(row.number, score)
    if gone:
        say(f"no test accuracy for {', '.join(gone)}: their weights are not kept (search.keep_checkpoints)")
