"""The report's content, independent of its form: what the HTML page, its Markdown twin and the CSV files all say.

`ReportInput` is everything that is known of a study; `answer_of` and `sections_of` turn it into sentences, tables and
figures in reading order. The templates only set type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from searchft.recipe import SpaceFacts
from searchft.report import analysis, figures, words
from searchft.report.formats import accuracy_text, duration_text
from searchft.report.leaderboard import in_order, time_words
from searchft.report.predictions import Predictions, confusions, paired_difference
from searchft.report.progress import count_records, counts_in_words
from searchft.search.records import FAILED, PRUNED, TrialRecord, best, ranked, saved_seconds
from searchft.space import Space

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORST = 12  # mistakes shown as images


class Change(NamedTuple):
    """How far training moved a parameter of the backbone from its pretrained values."""

    parameter: str
    relative_change: float
    elements: int


@dataclass(frozen=True)
class ReportInput:
    """A study as the report needs it."""

    space: Space
    facts: SpaceFacts
    records: Sequence[TrialRecord]
    storage: str  # URL, password masked
    environment: Mapping[str, Any] = field(default_factory=dict)
    tests: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)  # by trial: `accuracy`, `interval_95`, `n`
    predictions: Mapping[int, Mapping[str, Predictions]] = field(default_factory=dict)
    """By trial and split, of those whose weights or answers are kept."""
    images: Mapping[str, np.ndarray] = field(default_factory=dict)  # uint8 [N, S, S, 3] by split; empty where they are gone
    changes: Sequence[Change] = ()  # of the best trial's trained backbone parameters, in the network's order
    interval: Callable[[int, int], tuple[float, float]] | None = None  # Wilson's of (right, all): `export` has it
    when: str = ""


class Table(NamedTuple):
    """Rows of text and numbers; `name` is its CSV file."""

    name: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    numeric: tuple[int, ...] = ()  # columns set flush right
    shown: bool = False  # false: only as CSV, because a figure shows it
    most: int = 200  # rows in the page; the CSV has them all


class Drawing(NamedTuple):
    """A figure: `name` is its PNG file, `words` say what is to be seen."""

    name: str
    draw: Callable[[], Figure]
    words: str


class Section(NamedTuple):
    """A titled part of the report: sentences, (name, value) lines, figures, tables."""

    title: str
    lead: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    drawings: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()


class Answer(NamedTuple):
    """What somebody wants to know who reads one screen only; `words`, the best recipe, are empty where nothing has completed."""

    words: str
    number: int | None
    figures: Sequence[tuple[str, str, str]]  # (what, number, how sure)
    sentences: Sequence[str]
    warnings: Sequence[str]


def answer_of(given: ReportInput) -> Answer:
    """The best recipe, its accuracy with its interval, and how much better it is than the enqueued rows."""
    facts, warnings = given.facts, words.weights_warnings(given.space, given.facts)
    if facts.data.leaks:
        stand = "1 image stands" if len(facts.data.leaks) == 1 else f"{len(facts.data.leaks)} images stand"
        warnings.append(f"{stand}, byte for byte, in more than one split: accuracies flatter.")
    first = best(given.records)
    if first is None or first.value is None:
        return Answer("", None, (), ("No trial has completed yet.",), warnings)
    size = facts.data.size("val")
    interval = given.interval(round(first.value * size), size) if given.interval and size else None
    numbers = [("validation accuracy", accuracy_text(first.value), _interval_words(interval, size))]
    sentences = [f"Trial {first.number}{f', the enqueued row “{first.name}”' if first.name else ''}."]
    if score := given.tests.get(first.number):
        numbers.append(("test accuracy", accuracy_text(score["accuracy"]), _interval_words(score["interval_95"], score["n"])))
        sentences.append("The test images were looked at after this trial had been chosen: their accuracy is what to expect.")
    elif facts.data.size("test"):
        sentences.append("The test images have not been looked at yet: “searchft export” does, after the choice is made.")
    else:
        sentences.append("There is no test split. The validation images chose this trial among many: their accuracy flatters.")
    rows = [row for row in ranked(given.records) if row.name and row.number != first.number]
    sentences += [_row_words(given, first, row) for row in rows[:6]]
    return Answer(
        words.recipe_in_words(first.recipe, facts, words.varying_fields(given.space)),
        first.number,
        numbers,
        sentences,
        warnings,
    )


def _interval_words(interval: Sequence[float] | None, n: int) -> str:
    return f"95 % interval {interval[0]:.3f} to {interval[1]:.3f}, {n} images" if interval else f"{n} images"


def _row_words(given: ReportInput, first: TrialRecord, row: TrialRecord) -> str:
    """How much better the best trial is than an enqueued row, and how sure that is."""
    mine, theirs = given.predictions.get(first.number, {}), given.predictions.get(row.number, {})
    for split, where in (("test", "test"), ("val", "validation")):
        if split not in mine or split not in theirs:
            continue
        try:
            pair = paired_difference(mine[split], theirs[split])
        except ValueError:
            continue
        verdict = "clearly better" if pair.low > 0 else "clearly worse" if pair.high < 0 else "no clear difference"
        flattered = " The validation images chose the best trial, which flatters it." if split == "val" else ""
        return (
            f"Against “{row.name}” on the same {where} images: {pair.difference:+.4f} (95 % interval {pair.low:+.3f} to "
            f"{pair.high:+.3f}; it alone is right on {pair.only_first}, the row alone on {pair.only_second} of {pair.n}): "
            f"{verdict}.{flattered}"
        )
    gain = (first.value or 0.0) - (row.value or 0.0)
    return f"“{row.name}” reached {accuracy_text(row.value)} on the validation images ({gain:+.4f} for the best)."


def sections_of(given: ReportInput) -> Iterator[Section]:
    """Everything below the answer, in reading order; sections without content are left out."""
    yield Section("Results", tables=[result_table(given)])
    first, study = best(given.records), analysis.optuna_study(given.space, given.records)
    yield _search(given, study, first)
    yield _what_mattered(given, study)
    if spent := analysis.costs(given.records):
        lead = ["A trial on the front is beaten by no other in both time and accuracy."]
        drawing = Drawing("cost", partial(figures.costs_figure, spent), "Complete trials by training time.")
        yield Section("Accuracy against cost", lead, (), [drawing], [Table("cost", analysis.Cost._fields, spent)])
    if first is not None and first.number in given.predictions:
        yield _mistakes(given, first)
    if given.changes:
        yield _what_changed(given.changes)
    yield _time(given)
    yield _ground(given)


def result_table(given: ReportInput) -> Table:
    """Every configuration that ran, best first, in the columns of the classic transfer-learning report."""
    varying = words.varying_fields(given.space)
    rows = []
    for record in in_order(given.records):
        train, test = record.extra.get("train_accuracy"), given.tests.get(record.number)
        text = words.architecture_in_words(record.recipe, given.facts, varying)
        state = record.state
        if record.state == FAILED and record.reason:
            state = f"failed: {' '.join(record.reason.split())[:160]}"
        elif record.state == PRUNED and record.curve:
            state = f"pruned at epoch {len(record.curve)}"
        rows.append(
            (
                record.number,
                f"{record.name}: {text}" if record.name else text,
                words.training_in_words(record.recipe, given.facts, varying),
                accuracy_text(train if isinstance(train, int | float) else None),
                accuracy_text(analysis.reached(record)),
                accuracy_text(test["accuracy"] if test else None),
                state,
                time_words(record),
            )
        )
    columns = ("trial", "architecture", "learning rate and hyper-parameters", "train", "validation", "test", "state", "time")
    return Table("results", columns, rows, numeric=(0, 3, 4, 5, 7), shown=True)


def _search(given: ReportInput, study: Any, first: TrialRecord | None) -> Section:
    records = sorted(given.records, key=lambda r: r.number)
    text = "Learning curves on the validation images; pruned trials are pale and end with a cross."
    drawings = [Drawing("curves", partial(figures.curves_figure, records, first.number if first else None), text)]
    if first is not None:
        text = "Every complete trial in its order, and the best so far."
        drawings.insert(0, Drawing("history", partial(figures.history_figure, study), text))
    curves = [(r.number, r.state, epoch, v) for r in records for epoch, v in enumerate(r.curve, 1)]
    table = Table("curves", ("trial", "state", "epoch", "val_accuracy"), curves)
    return Section("The search", drawings=drawings, tables=[table])


def _what_mattered(given: ReportInput, study: Any) -> Section:
    found = analysis.importances(study)
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.value is not None]
    drawings, lead = [], []
    if found:
        text = f"Importances: PED-ANOVA over {len(complete)} complete trials, as in the dashboard."
        drawings.append(Drawing("importances", partial(figures.importances_figure, study, len(found)), text))
    else:
        few = f"{len(complete)} complete, at least {analysis.FEWEST} needed"
        lead.append(f"Importances: not enough trials to say ({few}).")
    seen = {name for trial in complete for name in trial.params}
    names = [name for name in found or sorted(seen) if name in seen]
    for start in range(0, len(names), figures.SLICES):
        part = names[start : start + figures.SLICES]
        text = f"Complete trials by their choice of {', '.join(part)}; later ones are darker."
        drawings.append(Drawing(f"slices_{start // figures.SLICES + 1}", partial(figures.slices_figure, study, part), text))
    uneven = "Choices were not drawn evenly: read differences with their spread."
    lead.append(f"{uneven} In the table pruned trials count, with what they reached.")
    effects = analysis.effects(given.space, given.records)
    tables = [
        Table("importances", ("dimension", "importance"), [(n, round(s, 4)) for n, s in found.items()]),
        Table("effects", analysis.Effect._fields, effects, numeric=(2, 3, 4, 5), shown=True),
    ]
    return Section("What mattered", lead, (), drawings, tables)


def _mistakes(given: ReportInput, first: TrialRecord) -> Section:
    known, classes = given.predictions[first.number], given.facts.data.classes
    predicted = known.get("test") or known["val"]
    where = "test" if predicted.split == "test" else "validation"
    matrix, worst = predicted.confusion(len(classes)), predicted.worst(len(predicted.truth))
    captions = predicted.captions(worst, classes)
    lead = [f"The best trial takes {len(worst)} of {len(predicted.truth)} {where} images for something else."]
    if pairs := confusions(matrix, classes):
        lead.append(
            "Most often: " + "; ".join(f"{times} × {truth} taken for {guess}" for times, truth, guess in pairs[:5]) + "."
        )
    draw = partial(figures.confusion_figure, matrix, classes, f"trial {first.number}, {where} images")
    drawings = [Drawing("confusion", draw, "Truth down, answer across: right answers blue, mistakes red.")]
    if worst and predicted.split in given.images:
        images = [given.images[predicted.split][i] for i in worst[:WORST]]
        draw = partial(figures.mistakes_figure, images, captions[:WORST], f"surest mistakes, {where} images")
        drawings.append(Drawing("mistakes", draw, "The mistakes that the network was surest of, as it saw the images."))
    rows = [(predicted.names[i], *caption) for i, caption in zip(worst, captions, strict=True)]
    table = Table("mistakes", ("image", "truth", "taken for", "probability"), rows, (3,), shown=True, most=20)
    return Section("Mistakes", lead, (), drawings, [table] if rows else ())


def _what_changed(changes: Sequence[Change]) -> Section:
    weights = [c for c in changes if c.parameter.endswith(".weight")] or list(changes)
    most = max(weights, key=lambda c: c.relative_change if math.isfinite(c.relative_change) else -1.0)
    lead = (
        "Relative change of the best trial's trained weights against their pretrained values, first layer on top; "
        f"the new head had none. Most moved: {most.parameter} ({most.relative_change:.3f})."
    )
    draw = partial(figures.changes_figure, [(c.parameter, c.relative_change) for c in weights])
    drawing = Drawing("drift", draw, "How far training moved each layer.")
    return Section("What training changed", [lead], (), [drawing], [Table("drift", Change._fields, changes)])


def _time(given: ReportInput) -> Section:
    openings, saved = analysis.time_by_opening(given.records, given.facts), saved_seconds(given.records)
    lines = [("computing time", duration_text(sum(opening.seconds for opening in openings)))]
    for what, text in (
        ("store", "by storing what frozen layers compute"),
        ("memo", "by answering duplicates from the record"),
        ("pruning", "by pruning"),
    ):
        if saved[what] >= 0.05:
            lines.append((f"saved {text}", f"about {duration_text(saved[what])}"))
    table = Table("time_by_opening", analysis.OpeningTime._fields, openings, numeric=(1, 2, 3, 4), shown=True)
    return Section("Time", facts=lines, tables=[table])


def _ground(given: ReportInput) -> Section:
    data, made = given.facts.data, given.environment
    lines = words.ground_lines(given.space, given.facts) + [("note", note) for note in data.notes]
    if data.unreadable:
        lines.append(("unreadable", f"left out: {len(data.unreadable)}, such as {data.unreadable[0]}"))
    counts = count_records(given.records, given.space.search.trials)
    lines += [("trials", counts_in_words(counts)), ("storage", given.storage)]
    if made.get("versions"):
        lines.append(("versions", ", ".join(f"{name} {version}" for name, version in made["versions"].items())))
    if made.get("cpu"):
        lines.append(("machine", f"{made['cpu']}, {made.get('cpus')} processors, {made.get('os', '')}"))
    if given.when:
        lines.append(("written", given.when))
    return Section("Ground", facts=lines)
