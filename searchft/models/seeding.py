"""Random numbers that depend on a seed alone and leave no trace: a trial's curve must not depend on what its worker ran before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block torch's CPU generator runs from `seed`; afterwards it is where it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed CUDA, which outlasts the block
        yield
