"""The driver on the real ledger with analytic learning curves: budgets, answers, kills, retries, forks of the road."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from searchft.errors import StorageError
from searchft.execution.protocol import DeviceMemory, Job, JobDone, JobFailed, Message, WorkerDied
from searchft.files import trial_folder
from searchft.recipe import SpaceFacts
from searchft.search import driver
from searchft.search.driver import run_study
from searchft.search.events import EpochFinished, Note, StopReason, StudyFinished, StudyOpened, TrialFinished
from searchft.search.folders import weights_kept
from searchft.search.ledger import Ledger
from searchft.search.records import TrialRecord, Trials
from searchft.space import Space
from tests.analytic import AnalyticExecutor


def open_ledger(space: Space, facts: SpaceFacts, folder: Path) -> Ledger:
    ledger = Ledger.open("", space.name, folder, create=True)
    ledger.pin(space, facts, {})
    return ledger


def run_whole(space: Space, facts: SpaceFacts, folder: Path, executor: AnalyticExecutor | None = None) -> list[TrialRecord]:
    with open_ledger(space, facts, folder) as ledger:
        *_, last = run_study(space, facts, ledger, executor or AnalyticExecutor(), folder)
    assert isinstance(last, StudyFinished)
    return list(last.records)


def comparable(records: list[TrialRecord]) -> list[tuple[object, ...]]:
    return [(r.number, r.name, r.state, dict(r.params), r.key, r.value, r.curve, r.answered_from) for r in records]


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_the_budget_counts_what_really_ran(sampler, space_of, facts, tmp_path):
    space = space_of(f"search.sampler={sampler}", "search.trials=25")
    records = run_whole(space, facts, tmp_path)
    own = [r for r in records if r.answered_from is None]
    assert len(own) == 25
    assert len({r.key for r in own}) == 25
    assert all(r.finished for r in records)
    assert any(r.state == "pruned" for r in records)
    assert all(len(r.curve) == r.recipe.epochs for r in own if r.state == "complete")


def test_an_exhausted_space_ends_the_study_and_says_so(small, facts, tmp_path):
    with open_ledger(small, facts, tmp_path) as ledger:
        *_, last = run_study(small, facts, ledger, AnalyticExecutor(), tmp_path)
    assert isinstance(last, StudyFinished) and last.why == "exhausted"
    assert len({r.key for r in last.records}) == 6


def test_enqueued_rows_come_first_and_bear_their_names(small, facts, tmp_path):
    records = run_whole(small, facts, tmp_path)
    assert [r.name for r in records[:3]] == ["Baseline", "ModelA", ""]


@pytest.mark.parametrize(
    "stop_after", [3, 55, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, 2, 5, 8, 13, 21, 34, 89))]
)
def test_a_study_dropped_after_any_event_equals_an_uninterrupted_one(stop_after, space_of, facts, tmp_path):
    space = space_of("search.trials=14")
    whole = run_whole(space, facts, tmp_path / "whole")
    with open_ledger(space, facts, tmp_path / "cut") as ledger:
        for count, _ in enumerate(run_study(space, facts, ledger, AnalyticExecutor(), tmp_path / "cut")):
            if count == stop_after:
                break  # the generator is dropped as a kill would: nothing more is written
    assert comparable(run_whole(space, facts, tmp_path / "cut")) == comparable(whole)


def test_a_larger_budget_goes_on_with_the_same_trials(space_of, facts, tmp_path):
    short = run_whole(space_of("search.trials=8"), facts, tmp_path)
    long = run_whole(space_of("search.trials=16"), facts, tmp_path)
    assert comparable(long)[: len(short)] == comparable(short)
    assert sum(r.answered_from is None for r in long) == 16


def test_several_workers_share_the_work_and_nothing_runs_twice(space_of, facts, tmp_path):
    executor = AnalyticExecutor(slots=4)
    records = run_whole(space_of("search.trials=30"), facts, tmp_path, executor)
    own = [r for r in records if r.answered_from is None]
    assert len(own) == len({r.key for r in own}) == 30
    assert len(executor.epochs_computed) == len(set(executor.epochs_computed)) == sum(len(r.curve) for r in own)
    assert executor.busy_s / (4 * executor.now_s) > 0.8


class Shared(AnalyticExecutor):
    """Slots that share one device of 100 bytes; notes how much ran on it at once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.memory = DeviceMemory()
        self.memory.set_size("card", 100)
        self.together: list[int] = []
        self.taken: dict[int, int] = {}

    def accepts(self, slot: int, memory_bytes: int) -> bool:
        return self.memory.fits("card", memory_bytes)

    def submit(self, slot: int, job: Job) -> None:
        self.memory.reserve(slot, "card", job.memory_bytes)
        self.taken[slot] = job.memory_bytes
        self.together.append(sum(self.taken.values()))
        super().submit(slot, job)

    def wait(self, timeout_s: float) -> list[tuple[int, Message]]:
        messages = super().wait(timeout_s)
        for slot, message in messages:
            if isinstance(message, JobDone):
                self.memory.release(slot)
                self.taken.pop(slot)
        return messages


def test_trials_that_do_not_fit_together_wait_and_smaller_ones_go_before_them(space_of, facts, tmp_path):
    space = space_of("search.trials=30", "search.pruner=none")
    executor = Shared(slots=3)
    sizes = {"head": 10, "layer4": 20, "layer3": 40, "layer2": 60, "all": 200}
    with open_ledger(space, facts, tmp_path) as ledger:
        *_, last = run_study(space, facts, ledger, executor, tmp_path, memory_of=lambda r: sizes[str(r.recipe.unfrozen)])
    assert isinstance(last, StudyFinished)
    own = [r for r in last.records if r.answered_from is None]
    assert len(own) == 30 and all(r.state == "complete" for r in own)  # also those that fit nowhere: an estimate is no verdict
    assert all(total <= 90 or total == 200 for total in executor.together)
    assert any(total > 60 for total in executor.together)  # yet they did share


def test_with_several_workers_a_trial_waits_for_the_slot_and_not_the_slot_for_a_trial(space_of, facts, tmp_path):
    space = space_of("search.trials=40")
    executor = AnalyticExecutor(slots=16)
    waiting = []
    with open_ledger(space, facts, tmp_path) as ledger:
        for event in run_study(space, facts, ledger, executor, tmp_path):
            if isinstance(event, TrialFinished) and event.record.answered_from is None:
                running = sum(r.state == "running" for r in ledger.records())
                waiting.append(running)
    assert max(waiting) == 15 + 2  # those that run when one has ended, and two ahead


def test_a_study_with_a_strangers_trial_goes_on(small, facts, tmp_path):
    import optuna

    run_whole(small, facts, tmp_path)
    with open_ledger(small, facts, tmp_path) as ledger:
        count = len(ledger.records())
        url = ledger.database_url
    optuna.load_study(study_name="small", storage=url).enqueue_trial({"unfrozen": "head"})
    records = run_whole(small, facts, tmp_path)
    assert len(records) == count


class Faulty(AnalyticExecutor):
    """An analytic executor in which some trials go wrong, as its table says."""

    def __init__(self, faults: dict[int, list[Message]]) -> None:
        super().__init__()
        self.faults = faults
        self.pending: list[tuple[int, Message]] = []

    def submit(self, slot: int, job: Job) -> None:
        if self.faults.get(job.number):
            self.pending.append((slot, self.faults[job.number].pop(0)))
        else:
            super().submit(slot, job)

    def wait(self, timeout_s: float) -> list[tuple[int, Message]]:
        if self.pending:
            return [self.pending.pop()]
        return super().wait(timeout_s)


def events_of(space: Space, facts: SpaceFacts, folder: Path, executor: AnalyticExecutor) -> Iterator[object]:
    with open_ledger(space, facts, folder) as ledger:
        yield from run_study(space, facts, ledger, executor, folder)


def test_a_dead_workers_trial_is_tried_again_and_the_study_is_the_same(small, facts, tmp_path):
    faulty = Faulty({0: [WorkerDied(0, "worker ended by SIGKILL")], 2: [WorkerDied(2, "worker ended by SIGSEGV")] * 2})
    events = list(events_of(small, facts, tmp_path / "faulty", faulty))
    assert sum(isinstance(e, Note) and "goes on from its checkpoint" in e.text for e in events) == 3
    assert comparable(list(events[-1].records)) == comparable(run_whole(small, facts, tmp_path / "whole"))


def test_a_worker_that_dies_too_often_fails_its_trial(small, facts, tmp_path):
    faulty = Faulty({1: [WorkerDied(1, "worker ended by SIGKILL")] * 9})
    records = list(events_of(small, facts, tmp_path, faulty))[-1].records
    assert records[1].state == "failed" and "SIGKILL, 3 times" in records[1].reason
    assert len(faulty.faults[1]) == 9 - 1 - small.search.max_retries


@pytest.mark.parametrize(
    ("fault", "infeasible", "words"),
    [
        (JobFailed(0, "memory", "out of memory"), True, "out of memory"),
        (WorkerDied(0, "worker ended by SIGKILL", out_of_memory=True), True, "kernel"),
        (JobFailed(0, "diverged", "the training loss became nan in epoch 1"), False, "nan"),
        (JobFailed(0, "input", "the weights are gone"), False, "gone"),
    ],
)
def test_a_trial_that_fails_alone_keeps_its_reason_and_the_study_goes_on(fault, infeasible, words, small, facts, tmp_path):
    records = list(events_of(small, facts, tmp_path, Faulty({0: [fault]})))[-1].records
    assert (records[0].state, records[0].infeasible) == ("failed", infeasible)
    assert words in records[0].reason
    assert sum(r.state == "complete" for r in records) >= 4


def test_a_trial_that_raised_is_tried_once_more_before_it_counts_as_failed(small, facts, tmp_path):
    """The first process may have been what was sick."""
    error = JobFailed(0, "error", "ValueError: no", "Traceback …")
    cured = list(events_of(small, facts, tmp_path / "cured", Faulty({0: [error]})))
    assert sum(isinstance(e, Note) and "tried again in a fresh process" in e.text for e in cured) == 1
    assert comparable(list(cured[-1].records)) == comparable(run_whole(small, facts, tmp_path / "whole"))
    records = list(events_of(small, facts, tmp_path / "sick", Faulty({0: [error] * 2})))[-1].records
    assert (records[0].state, records[0].reason, records[0].extra["traceback"]) == ("failed", "ValueError: no", "Traceback …")
    assert sum(r.state == "complete" for r in records) >= 4


def test_trial_after_trial_that_raises_stops_the_search_with_its_budget_unspent(small, facts, tmp_path):
    """Before, a device whose context was dead failed every trial, and the search ended as if it had been one."""
    errors = {n: [JobFailed(n, "error", f"CUDA error in {n}", "Traceback …")] * 9 for n in range(6)}
    events = list(events_of(small, facts, tmp_path, Faulty(errors)))
    assert isinstance(events[-1], StudyFinished) and events[-1].why is StopReason.FAILURES
    assert [r.state for r in events[-1].records] == ["failed", "failed", "running"]
    assert any(isinstance(e, Note) and "3 trials in a row failed; the last: CUDA error in 2" in e.text for e in events)
    records = run_whole(small, facts, tmp_path)  # the machine is mended: it goes on with the third
    assert [r.state for r in records[:3]] == ["failed", "failed", "complete"]
    one_each = {n: [JobFailed(n, "error", "now and then", "Traceback …")] for n in range(6)}
    assert all(r.state != "failed" for r in list(events_of(small, facts, tmp_path / "other", Faulty(one_each)))[-1].records)


def test_a_worker_that_has_long_said_nothing_is_spoken_of_once(small, facts, tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "_SILENT_AT_LEAST_S", 0.05)
    monkeypatch.setattr(driver, "_SILENT_EPOCHS", 0.01)

    class Stopped(AnalyticExecutor):
        asked = 0

        def wait(self, timeout_s: float) -> list[tuple[int, Message]]:
            if len(self.epochs_computed) == 1 and self.asked < 60:  # after an epoch: as a process that was sent SIGSTOP
                self.asked += 1
                time.sleep(0.002)
                return []
            return super().wait(timeout_s)

    events = list(events_of(small, facts, tmp_path, Stopped()))
    (said,) = [e for e in events if isinstance(e, Note) and "has said nothing for" in e.text]
    assert said.warning and said.text.startswith("trial 0: its worker (analytic 0)")
    assert events[-1].why == "exhausted"


def test_a_full_disk_in_a_worker_ends_the_run_and_leaves_the_trial_resumable(small, facts, tmp_path):
    with pytest.raises(StorageError, match="cannot write"):
        list(events_of(small, facts, tmp_path, Faulty({1: [JobFailed(1, "storage", "cannot write x: No space left")]})))
    assert comparable(run_whole(small, facts, tmp_path)) == comparable(run_whole(small, facts, tmp_path / "whole"))


def test_being_asked_to_stop_leaves_the_trial_running_for_the_next_run(small, facts, tmp_path):
    seen: list[object] = []
    with open_ledger(small, facts, tmp_path) as ledger:
        stopping = lambda: sum(isinstance(e, EpochFinished) for e in seen) >= 4  # noqa: E731
        for event in run_study(small, facts, ledger, AnalyticExecutor(), tmp_path, stopping=stopping):
            seen.append(event)
    assert isinstance(seen[-1], StudyFinished) and seen[-1].why == "interrupted"
    assert [r.state for r in seen[-1].records] == ["complete", "running"]
    assert comparable(run_whole(small, facts, tmp_path)) == comparable(run_whole(small, facts, tmp_path / "whole"))


def test_events_tell_the_whole_story(small, facts, tmp_path):
    events = list(events_of(small, facts, tmp_path, AnalyticExecutor()))
    assert isinstance(events[0], StudyOpened) and not events[0].records
    finished = [e.record.number for e in events if isinstance(e, TrialFinished)]
    assert finished == list(range(len(finished)))
    epochs = [(e.number, e.epoch) for e in events if isinstance(e, EpochFinished)]
    assert len(epochs) == sum(len(r.curve) for r in events[-1].records)


def test_weights_are_kept_for_the_best_and_for_enqueued_rows(space_of, facts, tmp_path):
    space = space_of("search.trials=12", "search.keep_checkpoints=2")

    class Writing(AnalyticExecutor):
        def submit(self, slot: int, job: Job) -> None:
            Path(job.folder).mkdir(parents=True, exist_ok=True)
            for name in ("last.ckpt", "best.safetensors"):
                (Path(job.folder) / name).write_bytes(b"x")
            super().submit(slot, job)

    records = run_whole(space, facts, tmp_path, Writing())
    kept = weights_kept(Trials(records), 2)
    assert len(kept) == 2
    assert {r.number for r in records if (trial_folder(tmp_path, r.number) / "best.safetensors").exists()} == kept
    assert not list(tmp_path.glob("trials/*/last.ckpt"))
