"""The report's content, independent of its form: what the HTML page, its Markdown twin and the CSV files all say.

`ReportInput` is everything that is known of a study; `sections_of` turns it into titled sections of sentences, tables
and figures in reading order, the answer first. The two writers (`page`, `markdown`) only set type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from searchft.recipe import SpaceFacts
from searchft.report import analysis
from searchft.report.drift import Drift
from searchft.report.formats import accuracy_text, duration_text
from searchft.report.importances import Importances, importances
from searchft.report.leaderboard import ranked
from searchft.report.live import backbones_of, weights_warnings
from searchft.report.predictions import PairedDifference, Predictions, confusions, paired_difference
from searchft.report.progress import count_records
from searchft.report.words import architecture_in_words, recipe_in_words, training_in_words, varying_fields, weights_in_words
from searchft.search.records import COMPLETE, TrialRecord, best
from searchft.space import Space

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORST = 12
"""Mistakes shown as photos."""

MOST_ROWS = 200
"""Rows of a table in the page, unless it says otherwise."""


@dataclass(frozen=True)
class ReportInput:
    """A study as the report needs it."""

    space: Space
    facts: SpaceFacts
    records: Sequence[TrialRecord]
    storage: str
    """URL, password masked."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    tests: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Test scores by trial: `accuracy`, `interval_95`, `n`."""
    predictions: Mapping[int, Mapping[str, Predictions]] = field(default_factory=dict)
    """By trial and split, of those whose weights or answers are kept."""
    photos: Callable[[str, Sequence[int]], list[np.ndarray]] | None = None
    """Pictures of a split by position: uint8 [S, S, 3]."""
    layers: Sequence[Drift] = ()
    """How far the best trial's layers moved."""
    interval: Callable[[int, int], tuple[float, float]] | None = None
    """Wilson's interval of (right, all): a room beside this one has it."""
    when: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers. `name` is its CSV file."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    numeric: tuple[int, ...] = ()
    """Columns set flush right."""
    shown: bool = True
    """False: only as CSV, because a figure shows it."""
    most: int = MOST_ROWS
    """Rows in the page; the CSV has them all."""


@dataclass(frozen=True)
class Drawing:
    """A figure. `name` is its PNG file, `draw` makes it, `words` say what is to be seen."""

    name: str
    draw: Callable[[], Figure]
    words: str


@dataclass(frozen=True)
class Section:
    """A titled part of the report."""

    title: str
    lead: tuple[str, ...] = ()
    """Sentences."""
    facts: tuple[tuple[str, str], ...] = ()
    """(name, value) lines."""
    drawings: tuple[Drawing, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What somebody wants to know who reads one screen only."""

    words: str
    """The best recipe; empty: nothing has completed."""
    number: int | None
    figures: tuple[tuple[str, str, str], ...]
    """(what, number, how sure)."""
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]


def answer_of(given: ReportInput) -> Answer:
    """The best recipe, its accuracy with its interval, and how much better it is than the enqueued rows."""
    space, facts = given.space, given.facts
    warnings = tuple(text for _, text in weights_warnings(space, facts))
    if facts.data.leaks:
        stand = "1 photo stands" if len(facts.data.leaks) == 1 else f"{len(facts.data.leaks)} photos stand"
        warnings += (f"{stand}, byte for byte, in more than one split: accuracies flatter.",)
    first = best(given.records)
    if first is None:
        return Answer("", None, (), ("No trial has completed yet.",), warnings)
    words = recipe_in_words(first.recipe, facts, varying_fields(space))
    figures = [("validation accuracy", accuracy_text(first.value), _interval_words(given, first.value, facts.data.size("val")))]
    sentences = [f"Trial {first.number}{f', the enqueued row “{first.name}”' if first.name else ''}."]
    score = given.tests.get(first.number)
    if score:
        low, high = score["interval_95"]
        figures.append(
            ("test accuracy", accuracy_text(score["accuracy"]), f"95 % interval {low:.3f} to {high:.3f}, {score['n']} pictures")
        )
        sentences.append("The test pictures were looked at after this trial had been chosen: their accuracy is what to expect.")
    elif facts.data.size("test"):
        sentences.append("The test pictures have not been looked at yet: “searchft export” does, after the choice is made.")
    else:
        sentences.append(
            "There is no test split. The validation pictures chose this trial among many, so their accuracy flatters."
        )
    sentences += [_row_words(given, first, row) for row in _enqueued(given.records) if row.number != first.number][:6]
    return Answer(words, first.number, tuple(figures), tuple(sentences), warnings)


def sections_of(given: ReportInput) -> list[Section]:
    """Everything below the answer, in reading order. Sections without content are left out."""
    from searchft.report import figures

    space, facts, records = given.space, given.facts, list(given.records)
    first = best(records)
    sections = [Section("Results", tables=(result_table(given),))]
    points = analysis.history(records)
    sections.append(
        Section(
            "The search",
            drawings=(
                Drawing("history", lambda: figures.history_figure(points), "Every trial in its order, and the best so far."),
                Drawing(
                    "curves",
                    lambda: figures.curves_figure(records, first.number if first else None),
                    "Learning curves on the validation pictures; pruned trials are pale and end with a cross.",
                ),
            ),
            tables=(
                Table(
                    "history",
                    ("trial", "state", "value", "best_so_far", "seconds_so_far"),
                    tuple((p.number, p.state, p.value, p.best, round(p.seconds, 3)) for p in points),
                    shown=False,
                ),
                Table(
                    "curves",
                    ("trial", "state", "epoch", "val_accuracy"),
                    tuple((r.number, r.state, e, v) for r in records for e, v in enumerate(r.curve, 1)),
                    shown=False,
                ),
            ),
        )
    )
    found = importances(space, records)
    sections.append(_what_mattered(given, found))
    spent = analysis.costs(records, facts)
    if spent:
        sections.append(
            Section(
                "Accuracy against cost",
                lead=("A trial on the front is beaten by no other in both time and accuracy.",),
                drawings=(Drawing("cost", lambda: figures.costs_figure(spent), "Complete trials by training time."),),
                tables=(
                    Table(
                        "cost",
                        ("trial", "seconds", "trained_parameters", "val_accuracy", "on_front"),
                        tuple((c.number, round(c.seconds, 3), c.parameters, c.value, c.on_front) for c in spent),
                        shown=False,
                    ),
                ),
            )
        )
    if first is not None and first.number in given.predictions:
        sections.append(_mistakes(given, first))
    if given.layers:
        layers = list(given.layers)
        most = max(layers, key=lambda d: d.change)
        sections.append(
            Section(
                "What training changed",
                lead=(
                    f"Relative change of the best trial's open layers against their pretrained values, first layer on top; "
                    f"the new head had none. Most moved: {most.layer} ({most.change:.3f}).",
                ),
                drawings=(Drawing("drift", lambda: figures.drift_figure(layers), "Drift of the open layers."),),
                tables=(
                    Table(
                        "drift",
                        ("layer", "stage", "relative_change", "parameters"),
                        tuple((d.layer, d.stage, d.change, d.parameters) for d in layers),
                        shown=False,
                    ),
                ),
            )
        )
    sections.append(_time(given))
    sections.append(_ground(given))
    return sections


def result_table(given: ReportInput) -> Table:
    """Every configuration that ran, best first, in the columns of the classic transfer-learning report."""
    space, facts = given.space, given.facts
    varying = varying_fields(space)
    rows = []
    for record in ranked(given.records):
        if record.answered_from is not None:
            continue
        train = record.extra.get("train_accuracy")
        test = given.tests.get(record.number)
        words = architecture_in_words(record.recipe, facts, varying)
        rows.append(
            (
                record.number,
                f"{record.name}: {words}" if record.name else words,
                training_in_words(record.recipe, facts, varying),
                accuracy_text(train if isinstance(train, int | float) else None),
                accuracy_text(analysis.reached(record)),
                accuracy_text(test["accuracy"]) if test else "–",
                _state_words(record),
                duration_text(record.seconds) if record.finished or record.seconds else "–",
            )
        )
    columns = ("trial", "architecture", "learning rate and hyper-parameters", "train", "validation", "test", "state", "time")
    return Table("results", columns, tuple(rows), numeric=(0, 3, 4, 5, 7))


def _state_words(record: TrialRecord) -> str:
    if record.state == "failed":
        return f"failed: {' '.join(record.reason.split())[:160]}" if record.reason else "failed"
    return f"pruned at epoch {len(record.curve)}" if record.state == "pruned" and record.curve else record.state


def _what_mattered(given: ReportInput, found: Importances) -> Section:
    from searchft.report import figures

    effects = analysis.effects(given.space, given.records)
    drawings: list[Drawing] = []
    if found.shares:
        drawings.append(Drawing("importances", lambda: figures.importances_figure(found.shares), f"Importances: {found.note}."))
    if effects:
        drawings.append(
            Drawing(
                "effects",
                lambda: figures.effects_figure(effects),
                "Each choice's trials (dots), their middle half (bar) and mean (line). Pruned trials count with what they reached; "
                "choices were not drawn evenly, so read differences with their spread.",
            )
        )
    rows = tuple(
        (name, str(e.label), e.count, round(e.mean, 4), e.low, e.high) for name, group in effects.items() for e in group
    )
    tables = (
        Table("importances", ("dimension", "importance"), tuple((n, round(s, 4)) for n, s in found.shares), shown=False),
        Table("effects", ("dimension", "choice", "trials", "mean", "worst", "best"), rows, shown=False),
    )
    return Section(
        "What mattered", lead=() if found.shares else (f"Importances: {found.note}.",), drawings=tuple(drawings), tables=tables
    )


def _mistakes(given: ReportInput, first: TrialRecord) -> Section:
    from searchft.report import figures

    known = given.predictions[first.number]
    said = known.get("test") or known["val"]
    where = "test" if said.split == "test" else "validation"
    classes = given.facts.data.classes
    matrix = said.confusion(len(classes))
    pairs = confusions(matrix, classes)
    wrong = int((~said.right).sum())
    lead = [f"The best trial takes {wrong} of {len(said.truth)} {where} pictures for something else."]
    if pairs:
        lead.append("Most often: " + "; ".join(f"{p.times} × {p.truth} taken for {p.guess}" for p in pairs[:5]) + ".")
    drawings = [
        Drawing(
            "confusion",
            lambda: figures.confusion_figure(matrix, classes, f"trial {first.number}, {where} pictures"),
            "Truth down, answer across: right answers blue, mistakes red.",
        )
    ]
    worst = said.worst(WORST)
    if worst and given.photos is not None:
        try:
            photos = given.photos(said.split, worst)
        except (OSError, ValueError, IndexError):
            photos = []
        if photos:
            captions = [(classes[said.truth[i]], classes[said.guess[i]], float(said.sure[i])) for i in worst]
            drawings.append(
                Drawing(
                    "mistakes",
                    lambda: figures.mistakes_figure(photos, captions, f"surest mistakes on the {where} pictures"),
                    "The mistakes that the network was surest of, as it saw the photos.",
                )
            )
    rows = tuple(
        (said.names[i], classes[said.truth[i]], classes[said.guess[i]], round(float(said.sure[i]), 4))
        for i in said.worst(len(said.truth))
    )
    return Section(
        "Mistakes",
        lead=tuple(lead),
        drawings=tuple(drawings),
        tables=(Table("mistakes", ("picture", "truth", "taken for", "probability"), rows, numeric=(3,), most=20),)
        if rows
        else (),
    )


def _time(given: ReportInput) -> Section:
    from searchft.report import figures

    depths = analysis.time_by_depth(given.records, given.facts)
    saved = analysis.saved_seconds(given.records)
    spent = sum(d.seconds for d in depths)
    names = {
        "store": "by storing what frozen layers compute",
        "memo": "by answering repeated configurations from the record",
        "pruning": "by stopping hopeless trials early",
    }
    lines = [("computing time", duration_text(spent))]
    lines += [(f"saved {names[what]}", f"about {duration_text(seconds)}") for what, seconds in saved.items() if seconds >= 0.05]
    return Section(
        "Time",
        facts=tuple(lines),
        drawings=(
            Drawing("depth", lambda: figures.depth_figure(depths), "Computing time by how much of the backbone trained."),
        )
        if depths
        else (),
        tables=(
            Table(
                "time_by_depth",
                ("open", "trials", "epochs", "seconds", "best"),
                tuple((d.depth, d.trials, d.epochs, round(d.seconds, 3), d.best) for d in depths),
                shown=False,
            ),
        ),
    )


def _ground(given: ReportInput) -> Section:
    space, facts = given.space, given.facts
    data = facts.data
    sizes = ", ".join(f"{data.size(split)} {split}" for split, _ in data.counts)
    counts = count_records(given.records, space.search.trials)
    lines = [("data", f"{data.source}: {len(data.classes)} classes, {sizes}, {space.data.image_size} px")]
    for _, backbone in backbones_of(space, facts):
        lines.append(("backbone", f"{backbone.backbone}, {weights_in_words(backbone)}"))
    lines += [("note", note) for note in data.notes]
    if data.unreadable:
        lines.append(("unreadable", f"left out: {len(data.unreadable)}, such as {data.unreadable[0]}"))
    search = space.search
    lines += [
        ("search", f"{search.sampler}, pruner {search.pruner}, {search.trials} trials, seed {search.seed}"),
        ("trials", ", ".join(f"{count} {state}" for state, count in counts.items() if count or state == "complete")),
        ("storage", given.storage),
        ("command", command_of(space)),
    ]
    made = given.environment
    if made.get("versions"):
        lines.append(("versions", ", ".join(f"{name} {version}" for name, version in made["versions"].items())))
    if made.get("cpu"):
        lines.append(("machine", f"{made['cpu']}, {made.get('cpus')} processors, {made.get('os', '')}"))
    if given.when:
        lines.append(("written", given.when))
    return Section("Ground", facts=tuple(lines), tables=())


def command_of(space: Space) -> str:
    """The command that made the study, overrides included."""
    import shlex

    words = ["searchft", "run", space.source or "SPACE"]
    for text in space.overrides:
        words += ["--set", text]
    return shlex.join(words)


def _enqueued(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The complete enqueued rows, best first."""
    named = [r for r in records if r.name and r.state == COMPLETE and r.value is not None and r.answered_from is None]
    return sorted(named, key=lambda r: (-(r.value or 0.0), r.number))


def _interval_words(given: ReportInput, value: float | None, n: int) -> str:
    if value is None or given.interval is None or not n:
        return f"{n} pictures"
    low, high = given.interval(round(value * n), n)
    return f"95 % interval {low:.3f} to {high:.3f}, {n} pictures"


def _row_words(given: ReportInput, first: TrialRecord, row: TrialRecord) -> str:
    """How much better the best trial is than an enqueued row, and how sure that is."""
    mine, theirs = given.predictions.get(first.number, {}), given.predictions.get(row.number, {})
    for split, where in (("test", "test"), ("val", "validation")):
        if split in mine and split in theirs:
            try:
                pair = _pair_words(paired_difference(mine[split], theirs[split]))
                flattered = " The validation pictures chose the best trial, which flatters it." if split == "val" else ""
                return f"Against “{row.name}” on the same {where} pictures: {pair}{flattered}"
            except ValueError:
                continue
    gain = (first.value or 0.0) - (row.value or 0.0)
    return f"“{row.name}” reached {accuracy_text(row.value)} on the validation pictures ({gain:+.4f} for the best)."


def _pair_words(pair: PairedDifference) -> str:
    verdict = "clearly better" if pair.low > 0 else "clearly worse" if pair.high < 0 else "no clear difference"
    return (
        f"{pair.difference:+.4f} (95 % interval {pair.low:+.3f} to {pair.high:+.3f}; it alone is right on {pair.only_first}, "
        f"the row alone on {pair.only_second} of {pair.n}): {verdict}."
    )
