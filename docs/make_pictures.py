"""Makes docs/pictures/: the live view, the leaderboard and the report's figures, from a real run of the quickstart.

Usage: .venv/bin/python docs/make_pictures.py [STUDY]     (STUDY: folder of a finished one; without it the quickstart is run)

The study's record is told again as the events that the run had, at the pace it had, and drawn by the program's own views
in the middle of it: a moment that every run has, whatever the machine.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.terminal_theme import SVG_EXPORT_THEME

import searchft
from searchft.cli.gather import gather
from searchft.cli.studies import FoundStudy
from searchft.report.content import ReportInput
from searchft.report.leaderboard import leaderboard
from searchft.report.live import body, header_lines
from searchft.report.progress import StudyProgress
from searchft.report.write import write_report
from searchft.search.events import EpochFinished, Event, StudyOpened, TrialFinished, TrialStarted

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
COLUMNS, LINES = 112, 30
DEVICES = ("cpu (2 threads)",)


class Clock:
    """Tells the time of the run that is told again."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def events(given: ReportInput, clock: Clock) -> Iterator[Event]:
    """What the run said, from its record."""
    yield StudyOpened(given.space, given.facts, (), "sqlite:///studies/quickstart/study.db", DEVICES, False)
    for record in given.records:
        if record.answered_from is None:
            yield TrialStarted(record, 0)
        curves = record.extra.get("curves", {})
        for i, value in enumerate(record.curve):
            seconds = curves["seconds"][i]
            clock.now += seconds
            stored = (curves.get("stored_s") or [0.0] * len(record.curve))[i]
            loss, accuracy = curves["train_loss"][i], curves["train_accuracy"][i]
            yield EpochFinished(record.number, 0, i + 1, record.recipe.epochs, loss, accuracy, value, seconds, stored or 0.0)
        yield TrialFinished(record)


def draw_live(given: ReportInput) -> None:
    """The live view while the trial runs that became the best."""
    clock = Clock()
    progress = StudyProgress(clock)
    best = max((r for r in given.records if r.state == "complete" and not r.answered_from), key=lambda r: r.value or 0.0)
    for event in events(given, clock):
        if isinstance(event, TrialStarted):  # as it was then: what came of it is not known yet
            import dataclasses

            event = TrialStarted(dataclasses.replace(event.record, state="running", value=None, curve=()), 0)
        progress.take(event)
        if isinstance(event, EpochFinished) and event.number == best.number and event.epoch == 8:
            break
    assert progress.opened is not None
    console = recorder()
    console.print(Group(*header_lines(progress.opened), "", body(progress, COLUMNS, LINES)))
    svg(console, "live", "searchft run spaces/quickstart.yaml")


def svg(console: Console, name: str, title: str) -> None:
    """Writes what the console recorded. Without the fonts that the template would fetch: it is to be looked at anywhere."""
    text = console.export_svg(title=title, theme=SVG_EXPORT_THEME, unique_id=f"searchft-{name}")
    while (first := text.find("@font-face")) >= 0:
        text = text[:first] + text[text.index("}", first) + 1 :]
    text = text.replace("Fira Code, monospace", "Fira Code, DejaVu Sans Mono, Menlo, Consolas, monospace")
    (PICTURES / f"{name}.svg").write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


def recorder() -> Console:
    return Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, highlight=False)


def draw(study: Path, scratch: Path) -> None:
    """All pictures of a finished study."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    given = gather(FoundStudy(study.name, study, ""))
    draw_live(given)
    console = recorder()
    console.print(leaderboard(given.space, given.facts, list(given.records), 10))
    svg(console, "leaderboard", "searchft show quickstart --limit 10")
    write_report(given, scratch / "report")
    for name in ("curves", "effects", "mistakes"):
        shutil.copy(scratch / "report" / "figures" / f"{name}.png", PICTURES / f"report-{name}.png")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            study = Path(sys.argv[1]).absolute()
        else:
            study = searchft.run(ROOT / "spaces" / "quickstart.yaml", studies=folder).folder
        draw(study, Path(folder))


if __name__ == "__main__":
    main()
