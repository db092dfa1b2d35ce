"""Makes docs/pictures/: the live view, the leaderboard and the report's figures, from a real run of the quickstart.

Usage: .venv/bin/python docs/make_pictures.py [STUDY]     (STUDY: folder of a finished one; without it the quickstart is run)

The study's record is repeated as the events that the run had, at the pace it had, and drawn by the program's own views in
the middle of it: a moment that every run has, whatever the machine.
"""

from __future__ import annotations

import dataclasses
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
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
from searchft.search.records import best

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
COLUMNS, LINES = 112, 30
DEVICES = ("cpu (2 threads)",)


def events(given: ReportInput) -> Iterator[Event]:
    """What the run said, from its record."""
    yield StudyOpened(given.space, given.facts, (), "sqlite:///studies/quickstart/study.db", DEVICES, False)
    for record in given.records:
        if record.answered_from is None:  # as it was then: what came of it is not known yet
            yield TrialStarted(dataclasses.replace(record, state="running", value=None, curve=()), 0)
        curves = record.extra.get("curves", {})
        for i, value in enumerate(record.curve):
            loss, accuracy, seconds = (curves[name][i] for name in ("train_loss", "train_accuracy", "seconds"))
            stored = (curves.get("stored_s") or [0.0] * len(record.curve))[i]
            yield EpochFinished(record.number, 0, i + 1, record.recipe.epochs, loss, accuracy, value, seconds, stored or 0.0)
        yield TrialFinished(record)


def draw_live(given: ReportInput) -> None:
    """The live view while the trial runs that became the best."""
    now, winner = [0.0], best(given.records)
    assert winner is not None
    progress = StudyProgress(lambda: now[0])
    for event in events(given):
        now[0] += event.seconds if isinstance(event, EpochFinished) else 0.0
        progress.take(event)
        if isinstance(event, EpochFinished) and event.number == winner.number and event.epoch == 8:
            break
    assert progress.opened is not None
    shown = Group(*header_lines(progress.opened), "", body(progress, COLUMNS, LINES))
    svg(shown, "live", "searchft run spaces/quickstart.yaml")


def svg(shown: RenderableType, name: str, title: str) -> None:
    """Draws on a terminal. Without the fonts that the template would fetch: it is to be looked at anywhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(shown)
    text = console.export_svg(title=title, theme=SVG_EXPORT_THEME, unique_id=f"searchft-{name}")
    text = re.sub(r"@font-face[^}]*}", "", text)
    text = text.replace("Fira Code, monospace", "Fira Code, DejaVu Sans Mono, Menlo, Consolas, monospace")
    (PICTURES / f"{name}.svg").write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            study = Path(sys.argv[1]).absolute()
        else:
            study = searchft.run(ROOT / "spaces" / "quickstart.yaml", studies=folder).folder
        PICTURES.mkdir(parents=True, exist_ok=True)
        given = gather(FoundStudy(study.name, study, ""))
        draw_live(given)
        table = leaderboard(given.space, given.facts, list(given.records), 10)
        svg(table, "leaderboard", "searchft show quickstart --limit 10")
        write_report(given, Path(folder) / "report")
        shutil.copy(Path(folder) / "report" / "figures" / "mistakes.png", PICTURES / "report-mistakes.png")


if __name__ == "__main__":
    main()
