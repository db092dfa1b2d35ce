"""A running study on the terminal: a view redrawn in place, or plain lines where there is no terminal to redraw.

All views write to stderr; stdout belongs to the answer. A view never stops a search: if its stream is gone, it goes silent.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from searchft.report import words
from searchft.report.formats import accuracy_text, duration_text, sparkline
from searchft.report.progress import RunningTrial, StudyProgress, counts_in_words, is_unfinished
from searchft.search.events import EpochFinished, Event, Note, StopReason, StudyFinished, StudyOpened, TrialFinished
from searchft.search.records import FAILED, TrialRecord

PROGRESS_EVERY_S = 10.0  # least time between two progress lines of the plain view

_ENDINGS = {
    StopReason.TRIALS: "the budget of trials is spent",
    StopReason.EXHAUSTED: "every configuration is known",
    StopReason.TIMEOUT: "the time is up",
    StopReason.INTERRUPTED: "interrupted",
    StopReason.FAILURES: "trial after trial failed",
}


class View(Protocol):
    """What draws a running study: it is shown the driver's events, and leaves a clean screen behind."""

    def show(self, event: Event) -> None: ...

    def close(self) -> None:
        """May be called more than once."""


def choose_view(quiet: bool) -> View:
    """The view for stderr as it is: redrawn on a terminal, plain lines elsewhere, warnings only if `quiet`."""
    console = Console(stderr=True, highlight=False)
    live = console.is_terminal and not console.is_dumb_terminal and not quiet
    return LiveView(console) if live else PlainView(sys.stderr, quiet=quiet)


class LiveView:
    """The view for a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = StudyProgress()
        self._lock = threading.Lock()
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=4, transient=True)
        self._closed = False

    def show(self, event: Event) -> None:
        with self._lock:
            self.progress.take(event)
        with contextlib.suppress(OSError):
            if isinstance(event, Note):
                self.console.print(Text(event.text, style="yellow" if event.warning else "dim", overflow="fold"))
            elif isinstance(event, StudyOpened) and not self._closed:
                # The header is printed once above: a fallback stays in the scroll-back for ever.
                self.console.print(Group(*header_lines(event)))
                self._live.start()
        if isinstance(event, StudyFinished):
            self.close()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            self._live.stop()
            if self.progress.opened is not None:
                self.console.print(Group(*summary_lines(self.progress)))

    def render(self) -> RenderableType:
        """The part that is redrawn, for the console as wide and high as it is now."""
        with self._lock:
            return body(self.progress, self.console.width, self.console.height, self.console.options.ascii_only)


class PlainView:
    """The view for a file, a pipe or a log: a line for each trial that ran, and now and then one of progress.

    `quiet`: warnings only, and a fallback of the weights, which nobody may miss.
    """

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic, *, quiet: bool = False) -> None:
        self.progress = StudyProgress(clock)
        self._stream, self._clock, self._quiet = stream, clock, quiet
        self._last_line = clock()
        self._closed = False

    def show(self, event: Event) -> None:
        self.progress.take(event)
        self._write(self._lines(event))
        if isinstance(event, StudyFinished):
            self.close()

    def close(self) -> None:
        if not self._closed and not self._quiet and self.progress.opened is not None:
            self._write([line.plain for line in summary_lines(self.progress)])
        self._closed = True

    def _lines(self, event: Event) -> list[str]:
        if isinstance(event, Note):
            text = f"warning: {event.text}" if event.warning else event.text
            return [text] if event.warning or not self._quiet else []
        if isinstance(event, StudyOpened):
            lines = [line.plain for line in header_lines(event)]
            return words.weights_warnings(event.space, event.facts) if self._quiet else lines
        opened = self.progress.opened
        if self._quiet or opened is None:
            return []
        # Towards the end of a search unnamed duplicates come by the dozen: the lines of progress count them.
        if isinstance(event, TrialFinished) and (event.record.answered_from is None or event.record.name):
            return [result_line(event.record, opened).plain]
        if not isinstance(event, EpochFinished) or self._clock() - self._last_line < PROGRESS_EVERY_S:
            return []
        parts, left = [counts_text(self.progress)], self.progress.time_left_s
        for r in self.progress.running.values():
            parts.append(f"#{r.record.number} epoch {r.epoch}/{r.epochs} {accuracy_text(r.curve[-1] if r.curve else None)}")
        parts += [f"about {duration_text(left)} left"] if left is not None else []
        return ["; ".join(parts)]

    def _write(self, lines: list[str]) -> None:
        with contextlib.suppress(OSError, ValueError):  # the stream is gone: search on in silence
            for line in lines:
                self._last_line = self._clock()
                self._stream.write(line + "\n")
                self._stream.flush()


def header_lines(opened: StudyOpened) -> list[Text]:
    """What is searched, on what, with which weights and where: one text per line, folding where it is too long."""
    space, facts, devices = opened.space, opened.facts, opened.devices
    begun = "resumed" if opened.resumed else "new"
    lines = [
        _field("study", f"{space.name} ({begun}), {space.search.trials} trials, {space.search.sampler}"),
        _field("data", words.data_in_words(facts)),
        *(_field(name, text) for name, text in words.backbone_lines(space, facts)),
        *(Text(text, style="bold red", overflow="fold") for text in words.weights_warnings(space, facts)),
        *(_field("note", note) for note in dict.fromkeys(note for b in facts.backbones.values() for note in b.notes)),
    ]
    same = len(set(devices)) == 1 and len(devices) > 1
    lines.append(_field("device", f"{len(devices)} × {devices[0]}" if same else ", ".join(devices)))
    return [*lines, _field("storage", opened.storage)]


def body(progress: StudyProgress, width: int, height: int, ascii_only: bool = False) -> RenderableType:
    """Best so far, running trials, last results, counts and time left, in `width` columns and at most `height` lines."""
    opened = progress.opened
    if opened is None:
        return Text("")
    gap = [Text("")] if height >= 20 else []
    lines: list[RenderableType] = [best_line(progress)]
    running = sorted(progress.running.values(), key=lambda r: r.worker)
    room = max(1, (height - 10) // 2)
    lines += gap if running else []
    for trial in running[:room]:
        lines += running_lines(trial, opened, width, ascii_only)
    if len(running) > room:
        lines.append(_one_line(f"and {len(running) - room} more running", "dim"))
    lines += gap if progress.recent else []
    left = max(0, height - 6 - len(lines))
    lines += [result_line(record, opened) for record in list(progress.recent)[:left]]
    left_s = progress.time_left_s
    time_text = f"{duration_text(progress.elapsed_s)} so far"
    time_text += f", about {duration_text(left_s)} left" if left_s is not None else ""
    time_text += f", stored values saved {duration_text(progress.stored_s)}" if progress.stored_s >= 0.1 else ""
    return Group(*lines, *gap, Text(counts_text(progress), style="bold", overflow="fold"), _one_line(time_text, "dim"))


def best_line(progress: StudyProgress) -> Text:
    """The best trial so far and its recipe in words; folded, because it is the answer."""
    best, opened = progress.best, progress.opened
    if opened is None or best is None:
        return _one_line("best   none yet", "dim")
    number = f"  #{best.number} {best.name}".rstrip()
    text = words.recipe_in_words(best.recipe, opened.facts, words.varying_fields(opened.space))
    value = (accuracy_text(best.value), "bold green")
    return Text.assemble(("best   ", "dim"), value, (number, "green"), f"  {text}", overflow="fold")


def running_lines(trial: RunningTrial, opened: StudyOpened, width: int, ascii_only: bool = False) -> list[RenderableType]:
    """A running trial: number, epoch bar, accuracy, curve; and its recipe in words below."""
    line, room = Table.grid(padding=(0, 1)), min(22, width // 6)
    for style in ("cyan", "", "", "bold", "magenta", "dim"):
        line.add_column(style=style, no_wrap=True, overflow="ellipsis")
    line.add_row(
        f"#{trial.record.number:<3}",
        ProgressBar(trial.epochs, trial.epoch, width=room, complete_style="cyan", finished_style="cyan"),
        f"{trial.epoch}/{trial.epochs}",
        accuracy_text(trial.curve[-1] if trial.curve else None),
        sparkline(trial.curve, room, ascii_only),
        f"{duration_text(trial.seconds[-1])} an epoch" if trial.seconds and width >= 60 else "",
    )
    return [
        line,
        _one_line(f"     {words.trial_in_words(trial.record, opened.facts, words.varying_fields(opened.space))}", "dim"),
    ]


def result_line(record: TrialRecord, opened: StudyOpened) -> Text:
    """A finished trial on one line, the important first."""
    style = {"complete": "green", "pruned": "yellow", "failed": "red"}.get(record.state, "")
    work = f"{len(record.curve)} ep {duration_text(record.seconds)}  "
    if record.answered_from is not None:
        work = f"as #{record.answered_from}  "
    # Why it failed comes before what it was: the line may be cut off.
    reason = f"{' '.join(record.reason.split())}  " if record.state == FAILED and record.reason else ""
    line = _one_line("")
    line.append(f"#{record.number:<4}", style="dim").append(f"{accuracy_text(record.value):<6} ")
    line.append(f"{record.state:<8} ", style=style).append(work, style="dim").append(reason, style="red")
    return line.append(words.trial_in_words(record, opened.facts, words.varying_fields(opened.space)))


def counts_text(progress: StudyProgress) -> str:
    """`12 complete, 3 pruned, 2 answered, 1 running, 22 waiting`."""
    finished = progress.finished
    return counts_in_words(progress.counts, sum(map(is_unfinished, finished.records)) if finished else 0)


def summary_lines(progress: StudyProgress) -> list[Text]:
    """How it ended: why, the counts, the best, what was saved. How to go on is for the caller to say: it knows the command."""
    finished = progress.finished
    why = _ENDINGS[finished.why] if finished else "stopped"
    lines = [Text(f"{why} after {duration_text(progress.elapsed_s)}: {counts_text(progress)}", overflow="fold")]
    lines.append(best_line(progress))
    saved = [f"{duration_text(s)} by {what}" for what, s in (finished.saved_seconds if finished else {}).items() if s >= 1]
    return [*lines, _field("saved", f"about {', '.join(saved)}")] if saved else lines


def _field(name: str, text: str) -> Text:
    return Text.assemble((f"{name:<9}", "dim"), text, overflow="fold")


def _one_line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
