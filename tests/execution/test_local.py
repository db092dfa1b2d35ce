"""Which workers this machine gets, and what finding out costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from searchft.errors import InputError
from searchft.execution.local import Slot, plan_slots

THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WITHOUT_CARD = sys.platform == "linux" and not [
    p for pattern in ("nvidia*", "nvhost*", "dxg", "kfd") for p in Path("/dev").glob(pattern)
]


@pytest.mark.parametrize(
    ("workers", "per_device", "count"),
    [(0, 1, 1), (0, 3, 3), (2, 1, 2), (2, 5, 2)],
)
def test_threads_of_the_processor_are_divided(workers: int, per_device: int, count: int) -> None:
    assert plan_slots("cpu", workers, per_device) == [Slot("cpu", max(1, THREADS // count))] * count


def test_a_device_that_is_not_there_is_the_users_mistake() -> None:
    with pytest.raises(InputError, match=r"must be devices of this machine \(cpu.*'cuda:99'"):
        plan_slots("cuda:99", 0)


@pytest.mark.skipif(not WITHOUT_CARD, reason="this machine has a GPU, or is no Linux: torch must be asked")
def test_a_machine_without_a_card_is_known_without_torch() -> None:
    code = (
        "import sys; from searchft.execution.local import plan_slots\n"
        "print([slot.device for slot in plan_slots('auto', 2)], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['cpu', 'cpu'] False"
