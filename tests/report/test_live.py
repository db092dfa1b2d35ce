"""The running study: never wider than the terminal, never louder than asked, never in the search's way."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console, Group

from searchft.recipe import SpaceFacts
from searchft.report.live import LiveView, PlainView, body, header_lines, summary_lines
from searchft.report.progress import StudyProgress
from searchft.search.claims import identity
from searchft.search.events import EpochFinished, Note, StudyFinished, StudyOpened, TrialFinished, TrialStarted
from searchft.search.records import TrialRecord
from searchft.space import Space

Make = Callable[..., TrialRecord]


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def events(space: Space, facts: SpaceFacts, make_record: Make) -> list:
    opened = StudyOpened(
        space, facts, (), "postgresql://ann:***@db.example.org/a_rather_long_name", ("cpu (1 thread)",) * 2, False
    )
    long = {
        "unfrozen": "layer3",
        "head_widths": (256, 128),
        "dropout": 0.5,
        "lr_multipliers.top": 0.6,
        "lr_multipliers.deep": 0.1,
    }
    running = make_record(4, "running", unfrozen="layer4")
    return [
        opened,
        Note("building the store for layer4: 120 MB"),
        TrialFinished(make_record(0, value=0.91, curve=[0.5, 0.91], name="Baseline", unfrozen="head", seconds=10.0)),
        TrialFinished(make_record(1, value=0.9625, curve=[0.5, 0.9625], seconds=30.0, **long)),
        TrialFinished(make_record(2, "failed", reason="the loss became nan\nin epoch 3", unfrozen="all")),
        TrialFinished(make_record(3, value=0.91, answered_from=0, unfrozen="head")),
        TrialStarted(running, 0),
        *[EpochFinished(4, 0, epoch, 20, 1.0, 0.5, 0.04 * epoch, 2.0) for epoch in range(1, 12)],
        TrialStarted(make_record(5, "running", unfrozen="all", **{"lr_multipliers.deep": 0.4}), 1),
    ]


def progress_of(events: list, clock: Clock | None = None) -> StudyProgress:
    progress = StudyProgress(clock or Clock())
    for event in events:
        progress.take(event)
    return progress


@pytest.mark.parametrize("width", [20, 40, 80, 120, 200])
@pytest.mark.parametrize("height", [5, 12, 24, 50])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_nothing_is_wider_or_higher_than_the_terminal(events: list, width: int, height: int, ascii_only: bool) -> None:
    progress = progress_of(events)
    console = Console(file=io.StringIO(), width=width, height=height, record=True)
    lines = console.render_lines(body(progress, width, height, ascii_only), pad=False)
    assert all(sum(segment.cell_length for segment in line) <= width for line in lines)
    if width >= 80:
        assert len(lines) <= max(height, 8)
    console.print(Group(*header_lines(events[0]), *summary_lines(progress)))
    assert max(map(len, console.export_text().splitlines())) <= width


def test_the_view_says_what_runs_how_far_and_what_is_best(events: list) -> None:
    console = Console(file=io.StringIO(), width=120, height=40, record=True)
    console.print(body(progress_of(events), 120, 40))
    text = console.export_text()
    assert "0.9625  #1  last 2 stages open, head 256+128 with dropout 0.5, batch 64, lr 1e-3 (top ×0.6, deep ×0.1)" in text
    assert "11/20 0.4400" in text and "2.0 s an epoch" in text
    assert "2 complete, 1 failed, 1 answered, 2 running, 35 waiting" in text
    assert "the loss became nan in epoch 3" in text
    assert "as #0" in text


def test_a_fallback_stands_in_capitals_on_every_view(events: list) -> None:
    streams = [io.StringIO() for _ in range(3)]
    live = LiveView(Console(file=streams[0], width=120, force_terminal=True))
    for view in (live, PlainView(streams[1]), PlainView(streams[2], quiet=True)):
        view.show(events[0])
        view.close()
    for stream in streams:
        assert "STARTS FROM RANDOM WEIGHTS, NOT FROM IMAGENET1K_V1" in " ".join(stream.getvalue().split())


def test_time_left_is_what_waits_at_the_measured_cost_shared_by_the_workers(events: list) -> None:
    progress = progress_of(events)
    # 35 waiting at (10 + 30) / 2 s; trial 4 has 9 epochs at 2 s left, trial 5 has 20 at the others' pace.
    assert progress.time_left_s == pytest.approx((35 * 20 + 9 * 2 + 20 * 2) / 2)


def test_there_is_no_time_left_before_anything_is_measured(events: list) -> None:
    assert progress_of(events[:1]).time_left_s is None


def test_the_first_epoch_says_nothing_about_the_others(events: list) -> None:
    first = [events[0], events[6], EpochFinished(4, 0, 1, 20, 1.0, 0.5, 0.04, 60.0)]
    assert progress_of(first).time_left_s is None, "it computed what is stored"
    second = EpochFinished(4, 0, 2, 20, 1.0, 0.5, 0.08, 2.0)
    # 39 waiting at 20 epochs of 2 s, and 18 epochs of the one that runs
    assert progress_of([*first, second]).time_left_s == pytest.approx((39 * 40 + 18 * 2) / 2)


def test_frozen_layers_over_random_weights_are_said_once(events: list) -> None:
    said = " ".join(line.plain for line in header_lines(events[0]))
    assert said.count("FROZEN LAYERS ARE RANDOM: up to 500 parameters of torchvision/resnet18") == 1


def test_after_a_ctrl_c_nothing_is_said_to_run(events: list, make_record: Make) -> None:
    stopped = make_record(4, "running", unfrozen="layer4", extra={"owner": identity()})
    text = summary_lines(progress_of([*events, StudyFinished((stopped,), "interrupted", {})]))[0].plain
    assert "0 complete, 39 waiting, 1 unfinished" in text and "running" not in text


def test_an_epoch_that_is_told_again_does_not_lengthen_the_curve(events: list) -> None:
    progress = progress_of([*events, EpochFinished(4, 1, 11, 20, 1.0, 0.5, 0.9, 2.0)])
    assert progress.running[4].epoch == 11 and progress.running[4].curve[-1] == 0.9


def test_plain_lines_are_one_per_trial_that_ran_and_progress_at_most_every_ten_seconds(events: list) -> None:
    clock, stream = Clock(), io.StringIO()
    view = PlainView(stream, clock)
    for event in events:
        view.show(event)
    quiet = stream.getvalue().splitlines()
    assert sum(line.startswith("#") for line in quiet) == 3  # the answered one is counted, not told
    assert not any("as #" in line for line in quiet)
    assert not any("epoch 11/20" in line for line in quiet)
    for _ in range(30):
        clock.now += 1.0
        view.show(EpochFinished(4, 0, 12, 20, 1.0, 0.5, 0.5, 2.0))
    told = stream.getvalue().splitlines()[len(quiet) :]
    assert len(told) == 3 and all("#4 epoch 12/20 0.5000" in line and "left" in line for line in told)
    assert "\x1b" not in stream.getvalue()


def test_the_end_says_why_and_what_was_saved(events: list, space: Space) -> None:
    stream = io.StringIO()
    view = PlainView(stream)
    for event in events:
        view.show(event)
    records = tuple(progress_of(events).trials)
    view.show(StudyFinished(records, "exhausted", {"store": 75.0, "memo": 0.1, "pruning": 20.0}))
    view.close()
    text = stream.getvalue()
    assert text.count("every configuration is known") == 1
    assert "about 1 min 15 s by store, 20 s by pruning" in text


def test_quiet_tells_warnings_only(events: list) -> None:
    stream = io.StringIO()
    view = PlainView(stream, quiet=True)
    for event in [*events[1:], Note("worker 1 died", warning=True)]:
        view.show(event)
    assert stream.getvalue() == "warning: worker 1 died\n"


def test_no_color_leaves_no_colours_on_a_terminal(events: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=True)
    console.print(body(progress_of(events), 80, 30))
    assert "\x1b[3" not in stream.getvalue() and "\x1b[1;3" not in stream.getvalue()


def test_a_view_whose_stream_is_gone_does_not_stop_the_search(events: list) -> None:
    stream = io.StringIO()
    stream.close()
    for view in (PlainView(stream), PlainView(stream, quiet=True)):
        for event in events:
            view.show(event)
        view.close()


def test_the_live_view_draws_in_place_and_leaves_a_summary(events: list) -> None:
    stream = io.StringIO()
    view = LiveView(Console(file=stream, width=100, height=30, force_terminal=True))
    for event in events:
        view.show(event)
    view.show(StudyFinished(tuple(progress_of(events).trials), "trials"))
    view.close()
    text = stream.getvalue()
    assert "\x1b[?25h" in text, "the cursor is shown again"
    assert text.count("the budget of trials is spent") == 1
