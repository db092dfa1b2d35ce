"""`searchft export`: the best trial as a folder that plain PyTorch loads, scored as it stands there.

The only place where the test pictures are looked at: for the winner, and for the enqueued rows that the report compares
it with. They are scored after the choice is made.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchft.cli.output import emit, emit_json, say
from searchft.cli.studies import FoundStudy, find_study, json_option, say_if_read_only, storage_option, studies_option
from searchft.errors import ChangedGroundError, InputError, NothingCompletedError
from searchft.files import BEST_WEIGHTS

if TYPE_CHECKING:
    from searchft.data import Images
    from searchft.recipe import SpaceFacts
    from searchft.search.ledger import Ledger
    from searchft.search.records import TrialRecord
    from searchft.space import Space

EPILOG = """\b
Example:
  searchft export quickstart --out winner
  searchft export quickstart --trial 7 --out seventh"""


@click.command("export", epilog=EPILOG)
@click.argument("study")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to write.")
@click.option("--trial", "number", type=click.IntRange(min=0), default=None, metavar="N", help="This trial, not the best one.")
@click.option("--force", is_flag=True, help="Write into DIR even if it holds other things.")
@click.option("--rows/--no-rows", default=True, help="Also score the enqueued rows on the test pictures, for the report.")
@studies_option
@storage_option
@json_option
def command(
    study: str, out: Path, number: int | None, force: bool, rows: bool, studies: Path, storage: str, as_json: bool
) -> None:
    """Write the best trial of STUDY to DIR: weights, configuration, labels and a model card.

    Then score that very folder on the validation and test pictures, in plain float32, and note the result there.
    """
    found = find_study(study, studies, storage)
    from searchft.data import open_images
    from searchft.export.checkpoint import add_metrics, check_target, export_trial
    from searchft.files import cache_folder
    from searchft.report.words import recipe_in_words, varying_fields

    check_target(out, force)
    with found.open() as ledger:
        say_if_read_only(ledger)
        space, facts = ledger.space(), ledger.facts()
        record = _chosen(ledger, number)
        delta = _weights_of(found, record)
        images = open_images(space.data, cache_folder())
        if images.facts.fingerprint != facts.data.fingerprint:
            rule = f"are not those that study {found.name} was created with: scores would mean nothing. Put them back"
            raise ChangedGroundError(rule, facts.data.source)

        # The folder first, complete and usable; then its scores.
        words = recipe_in_words(record.recipe, facts, varying_fields(space))
        about = {"study": space.name, "trial": record.number, "name": record.name, "words": words}
        export_trial(record.recipe, facts, space.data, delta, out, {"search_val_accuracy": record.value}, about)
        metrics = _scores(out, images, found, record)
        add_metrics(out, metrics)
        if metrics["test"]:
            ledger.save_test_score(record.number, metrics["test"])
            if rows:
                known = {record.number, *ledger.load_test_scores()}
                _score_rows(found, ledger, space, facts, images, known)
    answer = {"study": space.name, "trial": record.number, "out": str(out), "recipe_in_words": words, "metrics": metrics}
    if as_json:
        emit_json(answer)
        return
    emit(f"trial {record.number} of {space.name}: {words}")
    for title, split in (("validation", "val"), ("test", "test")):
        score = metrics[split]
        if score:
            low, high = score["interval_95"]
            emit(f"{title} accuracy {score['accuracy']:.4f} on {score['n']} pictures (95 % interval {low:.4f} to {high:.4f})")
    _say_if_other(record, metrics["val"])
    if not metrics["test"]:
        emit("there is no test split: the validation accuracy chose this trial, so it flatters")
    emit(f"written to {out}; {out / 'README.md'} shows how to load it without searchft")


def _chosen(ledger: Ledger, number: int | None) -> TrialRecord:
    """The best trial, or the one asked for (a trial answered from another stands for that one)."""
    from searchft.search.records import best

    records = ledger.records()
    if number is None:
        first = best(records)
        if first is None:
            raise NothingCompletedError(f"no trial of {ledger.name} has completed yet", ledger.name)
        return first
    by_number = {record.number: record for record in records}
    if number not in by_number:
        raise InputError(f"must be a trial of {ledger.name} (0 to {len(records) - 1}) but got {number}", "--trial")
    record = by_number[number]
    return by_number[record.answered_from] if record.answered_from is not None else record


def _weights_of(found: FoundStudy, record: TrialRecord) -> Path:
    """The trial's delta. Raises InputError where it is not kept any more."""
    delta = found.trial_folder(record.number) / BEST_WEIGHTS
    if not delta.is_file():
        rule = f"the weights of trial {record.number} are not kept (search.keep_checkpoints says how many of the best are)"
        raise InputError(rule, str(delta))
    return delta


def _scores(out: Path, images: Images, found: FoundStudy, record: TrialRecord) -> dict[str, Any]:
    """The exported folder's scores on val and test (None: there are no such pictures), without the confusion matrix.

    What it said of each picture is kept beside the trial, for the report.
    """
    from searchft.cli.trial_predictions import predict_split, save_predictions
    from searchft.export.score import scores

    metrics: dict[str, Any] = {}
    for name in ("val", "test"):
        said = predict_split(out, images, name)
        if said is None:
            metrics[name] = None
            continue
        save_predictions(found, record, said)
        score = scores(said.guess, said.truth, len(images.classes))
        metrics[name] = {key: value for key, value in score.items() if key != "confusion"}
    return metrics


def _say_if_other(record: TrialRecord, score: dict[str, Any] | None) -> None:
    """Says so where the exported network scores otherwise than the search did (bfloat16 rounds; a mix-up of files does worse)."""
    if score and record.value is not None and abs(score["accuracy"] - record.value) * score["n"] >= 0.5:
        say(f"note: the search measured {record.value:.4f} on the validation pictures, in its own precision")


def _score_rows(found: FoundStudy, ledger: Ledger, space: Space, facts: SpaceFacts, images: Images, known: set[int]) -> None:
    """Scores on the test pictures the enqueued rows whose weights are still there; says which are not."""
    from searchft.cli.trial_predictions import predict_split, save_predictions
    from searchft.export.checkpoint import export_trial
    from searchft.export.score import scores

    gone = []
    for row in ledger.records():
        if not row.name or row.state != "complete" or row.answered_from is not None or row.number in known:
            continue
        delta = found.trial_folder(row.number) / BEST_WEIGHTS
        if not delta.is_file():
            gone.append(row.name)
            continue
        with tempfile.TemporaryDirectory(prefix="searchft-") as folder:
            export_trial(row.recipe, facts, space.data, delta, Path(folder), {})
            said = predict_split(Path(folder), images, "test")
        if said is not None:
            save_predictions(found, row, said)
            ledger.save_test_score(row.number, scores(said.guess, said.truth, len(images.classes)))
    if gone:
        say(f"no test accuracy for {', '.join(gone)}: their weights are not kept (search.keep_checkpoints)")
