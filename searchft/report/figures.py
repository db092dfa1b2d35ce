"""The report's figures as PNG, Optuna's own where it has one, all under one style sheet.

Names come from files and folders of strangers: `plain` keeps them short and printable, the style reads no markup in them.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
import optuna
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from searchft.report.analysis import Cost
from searchft.search.records import COMPLETE, PRUNED, TrialRecord

ACCENT, PALE, DARK, WARN = "#1f6feb", "#c3c9d1", "#24292f", "#d1242f"
STYLE: Any = {
    **{"figure.figsize": (8.0, 3.6), "figure.constrained_layout.use": True, "figure.max_open_warning": 0},
    **{"savefig.dpi": 110, "savefig.facecolor": "white", "text.parse_math": False},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.edgecolor": PALE},
    **{"axes.grid": True, "grid.color": "#eaeef2", "grid.linewidth": 0.8},
    **{"axes.titlesize": 10, "axes.titlelocation": "left", "axes.labelsize": 9.5, "lines.markersize": 5},
    **{"legend.fontsize": 8, "legend.frameon": False},
}
ACCURACY = "validation accuracy"
SLICES = 3  # dimensions side by side in one figure
MOST_CLASSES = 40  # classes whose names a confusion matrix has room for


def plain(text: object, most: int = 28) -> str:
    """A stranger's text as it may be drawn: no control signs, at most `most` characters."""
    clean = "".join(c if c.isprintable() else "?" for c in str(text))
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def png(draw: Callable[[], Figure]) -> bytes:
    """What `draw` draws, in this style, as PNG."""
    stream = io.BytesIO()
    sheets = matplotlib.style.library
    ggplot = sheets["ggplot"]
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's about experiments; a sign that the font lacks is drawn as a box
        sheets["ggplot"] = matplotlib.RcParams()  # Optuna's figures ask for this sheet: they get ours
        try:
            draw().savefig(stream, format="png", metadata={"Software": None})
        finally:
            sheets["ggplot"] = ggplot
    return stream.getvalue()


def history_figure(study: optuna.Study) -> Figure:
    """Every complete trial in the order of the search, and the best so far."""
    return _of_optuna(optuna.visualization.matplotlib.plot_optimization_history, study)


def importances_figure(study: optuna.Study, count: int) -> Figure:
    """Bars of `count` dimensions."""
    figure = _of_optuna(optuna.visualization.matplotlib.plot_param_importances, study)
    figure.set_size_inches(8.0, 0.9 + 0.34 * count)
    axes: Any = figure.axes[0]
    axes.set(xlabel="importance (shares of 1)", ylabel="")
    axes.get_legend().remove()
    axes.grid(axis="y", visible=False)
    return figure


def slices_figure(study: optuna.Study, names: Sequence[str]) -> Figure:
    """Each complete trial over its choice in up to SLICES dimensions; later trials are darker."""
    figure = _of_optuna(optuna.visualization.matplotlib.plot_slice, study, params=list(names))
    colour_bar: Any = figure.axes[-2].collections[0].colorbar
    colour_bar.remove()  # not its axes alone: matplotlib 3.10 would still lay them out
    for axes in figure.axes:
        left, right = axes.get_xlim()
        axes.set_xlim(left - 0.4, right + 0.4)
        labels = [plain(label.get_text().strip("'"), 14) for label in axes.get_xticklabels()]
        axes.set_xticks(axes.get_xticks(), labels, fontsize=8)
    return figure


def _of_optuna(plot: Callable[..., Any], study: optuna.Study, **settings: Any) -> Figure:
    """One of Optuna's figures, without its title, its legend above the axes, and forgotten by pyplot."""
    pyplot.switch_backend("Agg")
    first = np.atleast_1d(plot(study, target_name=ACCURACY, **settings)).flat[0]
    figure: Figure = first.figure
    pyplot.close(figure)
    first.set_title("")
    figure.suptitle("")
    figure.set_size_inches(*STYLE["figure.figsize"])
    figure.set_layout_engine("constrained")
    if first.get_legend() is not None:
        _add_legend(first)
    return figure


def curves_figure(records: Sequence[TrialRecord], best: int | None) -> Figure:
    """Learning curves: pruned ones pale, complete ones in colour, the best one bold."""
    figure, axes = _one("epoch", ACCURACY)
    shown = [r for r in records if r.curve and r.answered_from is None]
    for record in sorted(shown, key=lambda r: (r.number == best, r.state == COMPLETE)):
        if record.number == best:
            style: dict[str, Any] = {"color": DARK, "lw": 2.4, "marker": "o", "ms": 3, "label": f"best, trial {best}"}
        elif record.state == COMPLETE:
            style = {"color": ACCENT, "lw": 1.2, "alpha": 0.75}
        else:
            style = {"color": PALE, "lw": 1.0, "marker": "x", "markevery": [-1], "ms": 4}
        axes.plot(range(1, len(record.curve) + 1), record.curve, **style)
    axes.plot([], [], color=ACCENT, lw=1.2, label="complete")
    if any(record.state == PRUNED for record in records):
        axes.plot([], [], color=PALE, lw=1.0, marker="x", ms=4, label="pruned")
    _add_legend(axes)
    return figure


def trial_curve_figure(record: TrialRecord) -> Figure:
    """One trial's accuracies on training and validation images, epoch by epoch."""
    figure, axes = _one("epoch", "accuracy", (6.0, 3.2))
    train = [v for v in record.extra.get("curves", {}).get("train_accuracy", ()) if v is not None]
    for values, color, label in ((record.curve, ACCENT, "validation"), (train, PALE, "training (while it learnt)")):
        if values:
            axes.plot(range(1, len(values) + 1), values, color=color, lw=2, marker="o", ms=3, label=label)
    axes.set_title(f"trial {record.number}, {record.state}")
    _add_legend(axes)
    return figure


def costs_figure(points: Sequence[Cost]) -> Figure:
    """Accuracy against training time, with the front that no other trial beats in both."""
    figure, axes = _one("training time of the trial in seconds", ACCURACY)
    rest = [(p.seconds, p.val_accuracy) for p in points if not p.on_front]
    front = sorted((p for p in points if p.on_front), key=lambda p: p.seconds)
    axes.scatter(*np.reshape(rest, (-1, 2)).T, color=PALE, s=26, label="complete")
    corners = np.array([(p.seconds, p.val_accuracy) for p in front])
    axes.plot(*corners.T, color=ACCENT, lw=1.2, marker="o", ms=6, drawstyle="steps-post", label="Pareto front")
    for p in front[-8:]:
        axes.annotate(f"#{p.trial}", (p.seconds, p.val_accuracy), xytext=(4, -11), textcoords="offset points", fontsize=8)
    seconds = [p.seconds for p in points if p.seconds > 0]
    if seconds and max(seconds) > 20 * min(seconds):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.08, y=0.12)
    _add_legend(axes)
    return figure


def confusion_figure(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Counts of truth (down) against answer (across); mistakes in red, right answers in blue."""
    count, share = len(classes), matrix / max(1, int(matrix.max()))
    side = min(9.0, max(4.2, 2.2 + 0.2 * count))
    figure, axes = _one("answer", "truth", (side + 0.4, side))
    right, wrong = (np.array(matplotlib.colors.to_rgb(color)) for color in (ACCENT, WARN))
    strength = np.where(np.eye(count, dtype=bool), share, np.where(matrix > 0, np.maximum(0.35, share), 0))[..., None]
    hue = np.where(np.eye(count, dtype=bool)[..., None], right, wrong)
    axes.imshow(1 - strength * (1 - hue), interpolation="nearest")
    if count <= 12:
        for t, g in zip(*np.nonzero(matrix), strict=True):
            color = "white" if share[t, g] > 0.5 else DARK
            axes.text(g, t, str(matrix[t, g]), ha="center", va="center", fontsize=9, color=color)
    if count <= MOST_CLASSES:
        names, size = [plain(c, 18) for c in classes], 8 if count <= 20 else 6
        axes.set_xticks(range(count), names, rotation=90, fontsize=size)
        axes.set_yticks(range(count), names, fontsize=size)
    axes.set_title(plain(title, 80))
    axes.grid(visible=False)
    return figure


def mistakes_figure(images: Sequence[np.ndarray], captions: Sequence[tuple[str, str, float]], title: str) -> Figure:
    """Images (uint8 [S, S, 3]) that were taken for something else; captions are (truth, answer, probability)."""
    columns = min(6, max(1, len(images)))
    rows = max(1, math.ceil(len(images) / columns))
    figure = Figure(figsize=(max(3.4, 1.5 * columns), 2.05 * rows + 0.4))
    for place, (image, (truth, answer, sure)) in enumerate(zip(images, captions, strict=True), start=1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(image, interpolation="nearest" if image.shape[0] < 100 else "antialiased")
        axes.set_axis_off()
        words = f"{plain(truth, 16)}\ntaken for {plain(answer, 12)}\n{sure:.0%} sure"
        axes.set_title(words, fontsize=7.5, color=DARK, loc="center")
    figure.suptitle(plain(title, 80), fontsize=10)
    return figure


def changes_figure(rows: Sequence[tuple[str, float]], most: int = 60) -> Figure:
    """(parameter, relative change): how far each moved, in the network's order; the last `most`."""
    shown = list(rows)[-most:][::-1]
    figure, axes = _one("relative change against the pretrained values", "", (8.0, 1.0 + 0.19 * max(3, len(shown))))
    axes.barh(range(len(shown)), [v if math.isfinite(v) else 0.0 for _, v in shown], color=ACCENT, height=0.66)
    axes.set_yticks(range(len(shown)), [plain(name, 44) for name, _ in shown], fontsize=7)
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.grid(axis="y", visible=False)
    return figure


def _one(xlabel: str, ylabel: str, size: tuple[float, float] | None = None) -> tuple[Figure, Any]:
    figure = Figure(figsize=size)
    axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
    if xlabel == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def _add_legend(axes: Any) -> None:
    # Above the axes: nowhere inside is sure to be free of points.
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.2)
