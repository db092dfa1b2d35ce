"""Random numbers that depend on a seed alone and leave no trace.

Initial values (random backbones, new heads) must be the same whatever ran before in this process, and must not shift
anybody else's random numbers: a trial's curve would otherwise depend on which worker it landed on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block torch's CPU generator runs from `seed`; afterwards it is where it was before.

    `torch.manual_seed` is avoided on purpose: it also seeds CUDA (or queues that for later), which would outlast the block.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
