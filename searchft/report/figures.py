"""The report's figures, drawn by matplotlib without a display. Each function takes plain numbers and returns a Figure.

Names come from files and folders of strangers: `plain` keeps them short, printable, and free of matplotlib's own markup.
One accent colour; what was pruned is pale; every axis says what it shows.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from searchft.report.analysis import Cost, Depth, Effect, HistoryPoint
from searchft.report.drift import Drift
from searchft.report.formats import duration_text, rate_text
from searchft.search.records import COMPLETE, PRUNED, TrialRecord

ACCENT, PALE, DARK, WARN = "#1f6feb", "#c3c9d1", "#24292f", "#d1242f"
WIDE = (8.0, 3.6)
DPI = 110
MOST_CLASSES = 40
"""Above this many classes a confusion matrix has no class names: they could not be read."""


def plain(text: object, most: int = 28) -> str:
    """A stranger's text as matplotlib may draw it: no mathtext, no control signs, at most `most` characters."""
    clean = "".join(c if c.isprintable() else "?" for c in str(text))
    clean = clean if len(clean) <= most else clean[: most - 1] + "…"
    return clean.replace("\\", "/").replace("$", r"\$")


def png(figure: Figure) -> bytes:
    """The figure as PNG."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a sign that the font lacks is drawn as a box: no reason to talk
        figure.savefig(stream, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


def history_figure(points: Sequence[HistoryPoint]) -> Figure:
    """Every trial in the order of the search, and the best so far."""
    figure, axes = _one()
    for state, colour, name in ((PRUNED, PALE, "pruned (what it reached)"), (COMPLETE, ACCENT, "complete")):
        chosen = [p for p in points if p.state == state and p.value is not None]
        if chosen:
            axes.scatter([p.number for p in chosen], [p.value for p in chosen], color=colour, s=22, label=name, zorder=3)
    best = [(p.number, p.best) for p in points if p.best is not None]
    if best:
        axes.step([n for n, _ in best], [b for _, b in best], where="post", color=DARK, lw=1.4, label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel("validation accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    return figure


def curves_figure(records: Sequence[TrialRecord], best: int | None) -> Figure:
    """Learning curves: pruned ones pale, complete ones in colour, the best one bold."""
    figure, axes = _one()
    order = sorted(records, key=lambda r: (r.state == COMPLETE, r.number == best))
    for record in order:
        if not record.curve or record.answered_from is not None:
            continue
        epochs = range(1, len(record.curve) + 1)
        if record.number == best:
            axes.plot(
                epochs, record.curve, color=DARK, lw=2.4, marker="o", ms=3, label=f"best, trial {record.number}", zorder=4
            )
        elif record.state == COMPLETE:
            axes.plot(epochs, record.curve, color=ACCENT, lw=1.2, alpha=0.75, label="_", zorder=3)
        else:
            axes.plot(epochs, record.curve, color=PALE, lw=1.0, marker="x", markevery=[-1], ms=4, label="_", zorder=2)
    axes.plot([], [], color=ACCENT, lw=1.2, label="complete")
    if any(record.state == PRUNED for record in records):
        axes.plot([], [], color=PALE, lw=1.0, marker="x", ms=4, label="pruned")
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    return figure


def trial_curve_figure(record: TrialRecord) -> Figure:
    """One trial's accuracies on training and validation pictures, epoch by epoch."""
    figure, axes = _one((6.0, 3.2))
    axes.plot(range(1, len(record.curve) + 1), record.curve, color=ACCENT, lw=2, marker="o", ms=3, label="validation")
    train = [v for v in record.extra.get("curves", {}).get("train_accuracy", ()) if v is not None]
    if train:
        axes.plot(range(1, len(train) + 1), train, color=PALE, lw=1.6, marker="o", ms=3, label="training (while it learnt)")
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy")
    axes.set_title(f"trial {record.number}, {record.state}", fontsize=10, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    return figure


def importances_figure(shares: Sequence[tuple[str, float]]) -> Figure:
    """Bars, most important on top."""
    figure, axes = _one((8.0, 0.8 + 0.34 * max(1, len(shares))))
    names = [plain(name, 40) for name, _ in shares][::-1]
    values = [share for _, share in shares][::-1]
    bars = axes.barh(names, values, color=ACCENT, height=0.62)
    axes.bar_label(bars, [f"{v:.2f}" for v in values], padding=4, fontsize=9)
    axes.set_xlim(0, max(values, default=1) * 1.15 or 1)
    axes.set_xlabel("importance (shares of 1)")
    return figure


def costs_figure(points: Sequence[Cost]) -> Figure:
    """Accuracy against training time, with the front that no other trial beats in both."""
    figure, axes = _one()
    rest = [p for p in points if not p.on_front]
    front = sorted((p for p in points if p.on_front), key=lambda p: p.seconds)
    axes.scatter([p.seconds for p in rest], [p.value for p in rest], color=PALE, s=26, label="complete", zorder=3)
    axes.plot([p.seconds for p in front], [p.value for p in front], color=ACCENT, lw=1.2, drawstyle="steps-post", zorder=2)
    axes.scatter([p.seconds for p in front], [p.value for p in front], color=ACCENT, s=34, label="Pareto front", zorder=4)
    for p in front[-8:]:
        axes.annotate(f"#{p.number}", (p.seconds, p.value), xytext=(4, -11), textcoords="offset points", fontsize=8)
    seconds = [p.seconds for p in points if p.seconds > 0]
    if seconds and max(seconds) > 20 * min(seconds):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("training time of the trial in seconds")
    axes.set_ylabel("validation accuracy")
    axes.margins(x=0.08, y=0.12)
    _legend(axes)
    return figure


def effects_figure(effects: Mapping[str, Sequence[Effect]]) -> Figure:
    """A small panel per dimension: each choice's trials, their quartiles and their mean."""
    columns = 2 if len(effects) > 1 else 1
    rows = max(1, math.ceil(len(effects) / columns))
    figure = Figure(figsize=(8.0, 2.5 * rows + 0.2), layout="constrained")
    FigureCanvasAgg(figure)
    everything = [v for found in effects.values() for e in found for v in e.values]
    low, high = (min(everything), max(everything)) if everything else (0.0, 1.0)
    pad = 0.06 * (high - low) or 0.05
    for place, (name, found) in enumerate(effects.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        for x, effect in enumerate(found):
            spread = np.linspace(-0.12, 0.12, effect.count) if effect.count > 1 else np.zeros(1)
            axes.vlines(x, *effect.middle, color=ACCENT, lw=7, alpha=0.25, zorder=1)
            axes.scatter(x + spread, effect.values, color="#8b949e", s=11, zorder=2)
            axes.scatter([x], [effect.mean], color=ACCENT, marker="_", s=260, lw=2.4, zorder=3)
        marks = [f"{plain(_label(e.label), 12)}\nn={e.count}" for e in found]
        axes.set_xticks(range(len(found)), marks, fontsize=8)
        axes.set_xlim(-0.6, len(found) - 0.4)
        axes.set_ylim(low - pad, high + pad)
        axes.set_title(plain(name, 40), fontsize=10, loc="left")
        _bare(axes)
        axes.grid(axis="x", visible=False)
        if place % columns == 1 or columns == 1:
            axes.set_ylabel("val accuracy", fontsize=9)
    return figure


def depth_figure(depths: Sequence[Depth]) -> Figure:
    """Where the computing time went."""
    figure, axes = _one((8.0, 0.9 + 0.4 * max(1, len(depths))))
    names = [plain(d.depth) for d in depths][::-1]
    values = [d.seconds for d in depths][::-1]
    bars = axes.barh(names, values, color=ACCENT, height=0.6)
    marks = [f"{duration_text(d.seconds)}, {_some(d.trials, 'trial')}, {_some(d.epochs, 'epoch')}" for d in depths][::-1]
    axes.bar_label(bars, marks, padding=4, fontsize=9)
    axes.set_xlim(0, max(values, default=1) * 1.45 or 1)
    axes.set_xlabel("computing time in seconds")
    return figure


def confusion_figure(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Counts of truth (down) against answer (across); mistakes in red, right answers in blue."""
    count = len(classes)
    named = count <= MOST_CLASSES
    side = min(9.0, max(4.2, 2.2 + 0.2 * count))
    figure = Figure(figsize=(side + 0.4, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shown = np.ones((count, count, 3))
    top = max(1, int(matrix.max()))
    strength = (matrix / top)[..., None]
    right = np.array([0x1F, 0x6F, 0xEB]) / 255
    wrong = np.array([0xD1, 0x24, 0x2F]) / 255
    off = ~np.eye(count, dtype=bool)
    shown = 1 - strength * (1 - right)
    shown[off] = np.where(matrix[off][:, None] > 0, 1 - np.maximum(0.35, strength[off]) * (1 - wrong), 1.0)
    axes.imshow(shown, interpolation="nearest")
    if count <= 12:
        for t, g in zip(*np.nonzero(matrix), strict=True):
            dark = matrix[t, g] / top > 0.5
            axes.text(g, t, str(matrix[t, g]), ha="center", va="center", fontsize=9, color="white" if dark else DARK)
    if named:
        size = 8 if count <= 20 else 6
        names = [plain(c, 18) for c in classes]
        axes.set_xticks(range(count), names, rotation=90, fontsize=size)
        axes.set_yticks(range(count), names, fontsize=size)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    axes.set_title(plain(title, 80), fontsize=10)
    for spine in axes.spines.values():
        spine.set_color(PALE)
    return figure


def mistakes_figure(photos: Sequence[np.ndarray], captions: Sequence[tuple[str, str, float]], title: str) -> Figure:
    """Photos (uint8 [S, S, 3]) that were taken for something else; captions are (truth, answer, probability)."""
    columns = min(6, max(1, len(photos)))
    rows = max(1, math.ceil(len(photos) / columns))
    figure = Figure(figsize=(max(3.4, 1.5 * columns), 2.05 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (photo, (truth, answer, sure)) in enumerate(zip(photos, captions, strict=True), start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(photo, interpolation="nearest" if photo.shape[0] < 100 else "antialiased")
        axes.set_axis_off()
        axes.set_title(f"{plain(truth, 16)}\ntaken for {plain(answer, 12)}\n{sure:.0%} sure", fontsize=7.5, color=DARK)
    figure.suptitle(plain(title, 80), fontsize=10)
    return figure


def drift_figure(layers: Sequence[Drift]) -> Figure:
    """How far each open layer moved, in the network's order."""
    most = 60
    shown = list(layers)[-most:]
    figure, axes = _one((8.0, 1.0 + 0.19 * max(3, len(shown))))
    values = [d.change if math.isfinite(d.change) else 0.0 for d in shown][::-1]
    axes.barh(range(len(shown)), values, color=ACCENT, height=0.66)
    axes.set_yticks(range(len(shown)), [plain(d.layer, 44) for d in shown][::-1], fontsize=7)
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.set_xlabel("relative change against the pretrained values")
    axes.grid(axis="y", visible=False)
    return figure


def _one(size: tuple[float, float] = WIDE) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _bare(axes)
    return figure, axes


def _bare(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eaeef2", lw=0.8)
    axes.set_axisbelow(True)


def _legend(axes: Any) -> None:
    # Above the axes: nowhere inside is sure to be free of points.
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.2)


def _label(label: object) -> str:
    return rate_text(label) if isinstance(label, float) else str(label)


def _some(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
