"""A running study on the terminal: a view redrawn in place, or plain lines where there is no terminal to redraw.

All views write to stderr; stdout belongs to the answer. A view never stops a search: if its stream is gone, it goes
silent. `choose_view` picks one; the driver's events go into `show(event)`, `close()` leaves a clean screen behind.

Widths: nothing is ever wider than the console. Long texts fold (header) or end in an ellipsis (trials), columns that
have no room are left out.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from searchft.recipe import BackboneFacts, SpaceFacts
from searchft.report.formats import accuracy_text, bar, duration_text, sparkline
from searchft.report.progress import RunningTrial, StudyProgress, counts_in_words, is_unfinished
from searchft.report.words import recipe_in_words, varying_fields, weights_in_words
from searchft.search.events import EpochFinished, Event, Note, StudyFinished, StudyOpened, TrialFinished
from searchft.search.records import TrialRecord
from searchft.space import Space
from searchft.space.validate import frozen_over_random

PROGRESS_EVERY_S = 10.0
"""Least time between two progress lines of the plain view."""

_ENDINGS: Mapping[str, str] = {
    "trials": "the budget of trials is spent",
    "exhausted": "every configuration is known",
    "timeout": "the time is up",
    "interrupted": "interrupted",
    "failures": "trial after trial failed",
}


class View(Protocol):
    """What draws a running study."""

    def show(self, event: Event) -> None:
        """Takes note of an event, and draws when it sees fit."""

    def close(self) -> None:
        """Leaves the screen clean. May be called more than once."""


def choose_view(quiet: bool) -> View:
    """The view for stderr as it is: redrawn on a terminal, plain lines elsewhere, warnings only if `quiet`."""
    if quiet:
        return QuietView(sys.stderr)
    console = Console(stderr=True, highlight=False)
    return LiveView(console) if console.is_terminal and not console.is_dumb_terminal else PlainView(sys.stderr)


class LiveView:
    """The view for a terminal."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.progress = StudyProgress(clock)
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._closed = False

    def show(self, event: Event) -> None:
        with self._lock:
            self.progress.take(event)
        if isinstance(event, Note) and (event.warning or self._live is None):
            self._print(Text(event.text, style="yellow" if event.warning else "dim", overflow="fold"))
        if isinstance(event, StudyOpened) and self._live is None and not self._closed:
            # The header is printed once above: what was fallen back on stays in the scroll-back for ever.
            self._print(Group(*header_lines(event)))
            live = Live(console=self.console, get_renderable=self.render, refresh_per_second=4, transient=True)
            with contextlib.suppress(OSError):
                live.start()
                self._live = live
        if isinstance(event, StudyFinished):
            self.close()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.stop()
            self._live = None
        if self.progress.opened is not None:
            self._print(Group(*summary_lines(self.progress)))

    def render(self) -> RenderableType:
        """The part that is redrawn, for the console as wide and high as it is now."""
        with self._lock:
            return body(self.progress, self.console.width, self.console.height, ascii_only=_ascii_only(self.console))

    def _print(self, renderable: RenderableType) -> None:
        with contextlib.suppress(OSError):
            self.console.print(renderable)


class PlainView:
    """The view for a file, a pipe or a log: a line for each trial that ran, and now and then one of progress."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.progress = StudyProgress(clock)
        self._stream = stream
        self._clock = clock
        self._last_line = clock()
        self._closed = False

    def show(self, event: Event) -> None:
        self.progress.take(event)
        if isinstance(event, StudyOpened):
            for line in header_lines(event):
                self._say(line.plain)
        elif isinstance(event, TrialFinished):
            opened = self.progress.opened
            if event.record.answered_from is not None and not event.record.name:
                return  # towards the end of a search they come by the dozen; the lines of progress count them
            self._say(result_line(event.record, opened.space, opened.facts).plain if opened else f"#{event.record.number}")
        elif isinstance(event, Note):
            self._say(f"warning: {event.text}" if event.warning else event.text)
        elif isinstance(event, EpochFinished):
            if self._clock() - self._last_line >= PROGRESS_EVERY_S:
                self._say(self._progress_line())
        elif isinstance(event, StudyFinished):
            self.close()

    def close(self) -> None:
        if not self._closed and self.progress.opened is not None:
            for line in summary_lines(self.progress):
                self._say(line.plain)
        self._closed = True

    def _progress_line(self) -> str:
        now = [
            f"#{r.record.number} epoch {r.epoch}/{r.epochs} {accuracy_text(r.curve[-1] if r.curve else None)}"
            for r in self.progress.running.values()
        ]
        left = self.progress.time_left_s
        return "; ".join(
            [counts_text(self.progress), *now, *([f"about {duration_text(left)} left"] if left is not None else [])]
        )

    def _say(self, line: str) -> None:
        self._last_line = self._clock()
        with contextlib.suppress(OSError, ValueError):  # the stream is gone: search on in silence
            self._stream.write(line + "\n")
            self._stream.flush()


class QuietView:
    """The view of `--quiet`: warnings, and a fallback of the weights, which nobody may miss."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def show(self, event: Event) -> None:
        lines = []
        if isinstance(event, Note) and event.warning:
            lines = [f"warning: {event.text}"]
        elif isinstance(event, StudyOpened):
            lines = [text for _, text in weights_warnings(event.space, event.facts)]
        with contextlib.suppress(OSError, ValueError):
            for line in lines:
                print(line, file=self._stream, flush=True)

    def close(self) -> None:
        pass


def header_lines(opened: StudyOpened) -> list[Text]:
    """What is searched, on what, with which weights and where: one text per line, folding where it is too long."""
    space, facts = opened.space, opened.facts
    sizes = ", ".join(f"{facts.data.size(split)} {split}" for split, _ in facts.data.counts)
    count = len(facts.data.classes)
    lines = [
        _field(
            "study",
            f"{space.name} ({'resumed' if opened.resumed else 'new'}), {space.search.trials} trials, {space.search.sampler}",
        ),
        _field("data", f"{facts.data.source}, {count} classes, {sizes}"),
    ]
    for _, backbone in backbones_of(space, facts):
        lines.append(_field("backbone", f"{backbone.backbone}, {weights_in_words(backbone)}"))
    lines += [Text(text, style="bold red", overflow="fold") for _, text in weights_warnings(space, facts)]
    for backbone_note in dict.fromkeys(note for b in facts.backbones.values() for note in b.notes):
        lines.append(_field("note", backbone_note))
    devices = list(opened.devices)
    same = len(set(devices)) == 1 and len(devices) > 1
    lines.append(_field("device", f"{len(devices)} × {devices[0]}" if same else ", ".join(devices)))
    lines.append(_field("storage", opened.storage))
    return lines


def backbones_of(space: Space, facts: SpaceFacts) -> Iterator[tuple[str, BackboneFacts]]:
    """The space's architectures with their facts, those that the facts know."""
    for architecture in space.architectures():
        if architecture in facts.backbones:
            yield architecture, facts.backbones[architecture]


def weights_warnings(space: Space, facts: SpaceFacts) -> list[tuple[str, str]]:
    """(backbone, sentence in capitals) for every fallback, and for frozen layers over random weights."""
    warnings = []
    asked = {name: recipe.weights for name, recipe in space.architectures().items()}
    for name, backbone in backbones_of(space, facts):
        if backbone.fell_back:
            used = "RANDOM WEIGHTS" if backbone.weights == "none" else f"WEIGHTS {backbone.weights}"
            wanted = asked.get(name, "THOSE ASKED FOR")
            sentence = f"FALLBACK: {backbone.backbone} STARTS FROM {used}, NOT FROM {wanted}: {backbone.fell_back}"
            warnings.append((backbone.backbone, sentence))
    for name, frozen in frozen_over_random(space, facts):
        sentence = f"FROZEN LAYERS ARE RANDOM: up to {frozen:,} parameters of {name} stay frozen at random values"
        warnings.append((name, sentence))
    return list(dict.fromkeys(warnings))


def body(progress: StudyProgress, width: int, height: int, ascii_only: bool = False) -> RenderableType:
    """Best so far, running trials, last results, counts and time left, in `width` columns and at most `height` lines."""
    opened = progress.opened
    if opened is None:
        return Text("")
    lines = best_lines(progress, width)
    airy = height >= 20
    running = sorted(progress.running.values(), key=lambda r: r.worker)
    room = max(1, (height - 10) // 2)
    lines += [Text("")] if airy and running else []
    for trial in running[:room]:
        lines += running_lines(trial, opened.space, opened.facts, width, ascii_only)
    if len(running) > room:
        lines.append(_one_line(f"and {len(running) - room} more running", "dim"))
    left = height - 6 - len(lines)
    lines += [Text("")] if airy and progress.recent else []
    for record in list(progress.recent)[: max(0, min(6, left))]:
        lines.append(result_line(record, opened.space, opened.facts))
    quiet_notes = [note for note in progress.notes if not note.warning]
    if quiet_notes and left > 8:
        lines.append(_one_line(quiet_notes[0].text, "dim"))
    lines += [Text("")] if airy else []
    lines.append(Text(counts_text(progress), style="bold", overflow="fold"))
    lines.append(_one_line(time_text(progress), "dim"))
    return Group(*lines)


def best_lines(progress: StudyProgress, width: int) -> list[Text]:
    """The best trial so far and its recipe in words; folded, because it is the answer."""
    best, opened = progress.best, progress.opened
    if opened is None or best is None:
        return [_one_line("best   none yet", "dim")]
    words = recipe_in_words(best.recipe, opened.facts, varying_fields(opened.space))
    name = f" {best.name}" if best.name else ""
    first = Text(overflow="fold")
    first.append("best   ", style="dim")
    first.append(accuracy_text(best.value), style="bold green")
    first.append(f"  #{best.number}{name}", style="green")
    if width >= 100:
        first.append(f"  {words}")
        return [first]
    return [first, Text(words, overflow="fold")]


def running_lines(trial: RunningTrial, space: Space, facts: SpaceFacts, width: int, ascii_only: bool = False) -> list[Text]:
    """A running trial: number, epoch bar, accuracy, curve; and its recipe in words below."""
    bar_width, curve_width = (20, 24) if width >= 100 else (10, 14) if width >= 60 else (0, 8)
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"#{trial.record.number:<4}", style="cyan")
    if bar_width:
        line.append(bar(trial.epoch, trial.epochs, bar_width, ascii_only), style="cyan")
        line.append(" ")
    line.append(f"{trial.epoch}/{trial.epochs} ")
    line.append(accuracy_text(trial.curve[-1] if trial.curve else None), style="bold")
    line.append(" ")
    line.append(sparkline(trial.curve, curve_width, ascii_only), style="magenta")
    if trial.seconds and width >= 60:
        line.append(f"  {duration_text(trial.seconds[-1])} an epoch", style="dim")
    words = recipe_in_words(trial.record.recipe, facts, varying_fields(space))
    name = f"{trial.record.name}: " if trial.record.name else ""
    return [line, _one_line(f"     {name}{words}", "dim")]


def result_line(record: TrialRecord, space: Space, facts: SpaceFacts) -> Text:
    """A finished trial on one line, the important first."""
    styles = {"complete": "green", "pruned": "yellow", "failed": "red"}
    words = recipe_in_words(record.recipe, facts, varying_fields(space))
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"#{record.number:<4}", style="dim")
    line.append(f"{accuracy_text(record.value):<6} ")
    line.append(f"{record.state:<8} ", style=styles.get(record.state, ""))
    if record.answered_from is not None:
        line.append(f"as #{record.answered_from}  ", style="dim")
    else:
        line.append(f"{len(record.curve)} ep {duration_text(record.seconds)}  ", style="dim")
    if record.state == "failed" and record.reason:  # why comes before what: the line may be cut off
        line.append(f"{' '.join(record.reason.split())}  ", style="red")
    line.append(f"{record.name}: {words}" if record.name else words)
    return line


def counts_text(progress: StudyProgress) -> str:
    """`12 complete, 3 pruned, 2 answered, 1 running, 22 waiting`; what is none is left out, except complete."""
    finished = progress.finished
    return counts_in_words(progress.counts, sum(map(is_unfinished, finished.records)) if finished else 0)


def time_text(progress: StudyProgress) -> str:
    """Time so far, and the time left where something has been measured."""
    left = progress.time_left_s
    rest = f", about {duration_text(left)} left" if left is not None else ""
    saved = f", the store saved {duration_text(progress.stored_s)}" if progress.stored_s >= 0.1 else ""
    return f"{duration_text(progress.elapsed_s)} so far{rest}{saved}"


def summary_lines(progress: StudyProgress) -> list[Text]:
    """How it ended: why, the counts, the best, what was saved. How to go on is for the caller to say: it knows the command."""
    finished = progress.finished
    why = _ENDINGS.get(finished.why, finished.why) if finished else "stopped"
    lines = [Text(f"{why} after {duration_text(progress.elapsed_s)}: {counts_text(progress)}", overflow="fold")]
    lines += best_lines(progress, 200)
    if finished and any(seconds >= 1 for seconds in finished.saved_seconds.values()):
        saved = ", ".join(f"{duration_text(s)} by {what}" for what, s in finished.saved_seconds.items() if s >= 1)
        lines.append(_field("saved", f"about {saved}"))
    return lines


def _field(name: str, text: str) -> Text:
    line = Text(overflow="fold")
    line.append(f"{name:<9}", style="dim")
    line.append(text)
    return line


def _one_line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _ascii_only(console: Console) -> bool:
    return not console.encoding.lower().startswith("utf")
