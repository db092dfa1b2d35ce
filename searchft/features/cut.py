"""Which of a frozen part's values to keep, and where: in memory, on disk, or none at all.

Keeping costs room and the time to read; not keeping costs the frozen part's time, once per image and pass. Between the
two lie the shallower cuts: values inside the frozen part that are smaller than those at the trained part's edge, from
which the rest of it is computed for every batch. Computing a layer mostly takes longer than reading what it gives, so the
deepest cut that fits is the rule; a shallower one pays where the edge is much wider and quickly computed (behind a
pooling that repeats its input), where the deepest would have to be read from disk, or where it does not fit at all.
The rate of the disk is a low guess: what was just written is in memory, and measuring would say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MEMORY_BYTES_PER_S = 4e9
"""Rows gathered at random from memory, on one core, where it was not measured."""
DISK_BYTES_PER_S = 4e8
"""Rows read at random from a solid-state disk."""

CLEARLY = 1.1
"""How many times cheaper another choice must be than the deepest cut that fits: noise in the timing shall not decide."""


@dataclass(frozen=True)
class Candidate:
    """A place where values could be kept, and what that would mean for one image."""

    at: str
    """Name of a position inside the frozen part; empty: the trained part's edge, the deepest of all."""
    bytes_per_image: int
    before_s: float
    """Seconds from the image to here: spent once."""
    after_s: float = 0.0
    """Seconds from here to the edge: spent in every pass."""


@dataclass(frozen=True)
class Cut:
    """What happens to a frozen part's values, and why, for people and for the record."""

    keep: str
    """`memory`, `disk` (memory-mapped, read as needed) or `recompute`."""
    reason: str
    size_bytes: int
    """Of all images together, whether kept or not."""
    at: str = ""
    """Where in the frozen part; empty: at the trained part's edge."""
    after_s: float = 0.0
    """Seconds an image from there to the edge."""


def choose_cut(
    candidates: Sequence[Candidate],
    images: int,
    passes: float,
    memory_bytes: int,
    disk_bytes: int,
    *,
    constant: bool = True,
    padding: float = 1.0,
    memory_bytes_per_s: float = MEMORY_BYTES_PER_S,
    disk_bytes_per_s: float = DISK_BYTES_PER_S,
) -> Cut:
    """Decides for one split of a network.

    `candidates` begin with the edge, deeper ones first; there are none where there is no frozen part. `images` is how
    many would be stored (views included), `passes` how often each will be read over all trials; `constant` is False where
    fresh random augmentation stands before the cut. Budgets are what is free for this network's values. `padding` is how
    many images are computed for each one of a batch (see `padding_of`).

    The cheapest is taken if it is clearly cheaper than the deepest that fits, else that one. The edge is kept unless
    keeping nothing is clearly cheaper, a shallower place only if it is clearly cheaper than keeping nothing.
    """
    if not candidates:
        return Cut("recompute", "nothing is frozen, so nothing is constant", 0)
    edge = candidates[0]
    size = edge.bytes_per_image * images
    if not constant:
        return Cut(
            "recompute", "random augmentation before the cut: no two passes see the same images (augment_views: K)", size
        )

    # What each costs over all passes, in seconds: to compute up to it, to write, and in every pass to read and to go on
    compute = edge.before_s * images * padding
    fitting: list[tuple[float, Candidate, str, float]] = []
    for candidate in candidates:
        own_bytes = candidate.bytes_per_image * images
        if own_bytes > disk_bytes:
            continue
        keep = "memory" if own_bytes <= memory_bytes else "disk"
        read = own_bytes / (memory_bytes_per_s if keep == "memory" else disk_bytes_per_s)
        write = own_bytes / disk_bytes_per_s
        once, every = candidate.before_s * images + write, read + candidate.after_s * images * padding
        fitting.append((once + passes * every, candidate, keep, read))

    # The deepest that fits, or what is clearly cheaper
    told = f"{_bytes(edge.bytes_per_image)} an image, {_bytes(size)} in all; {_seconds(compute)} a pass to compute"
    if not fitting:
        least = min(candidate.bytes_per_image for candidate in candidates) * images
        elsewhere = f", nor do the {_bytes(least)} further up" if len(candidates) > 1 else ""
        return Cut("recompute", f"{told}; does not fit the disk budget of {_bytes(disk_bytes)}{elsewhere}", size)
    deepest, cheapest = fitting[0], min(fitting, key=lambda fit: fit[0])
    chosen = cheapest if cheapest[0] * CLEARLY < deepest[0] else deepest
    cost, candidate, keep, read = chosen
    if not candidate.at:
        if passes * compute * CLEARLY < cost:
            source = "" if keep == "memory" else " from disk"
            return Cut("recompute", f"{told}, not worth {_seconds(read)} to read{source} over {passes:g} passes", size)
        room = f"; memory has {_bytes(memory_bytes)}" if keep == "disk" else ""
        return Cut(keep, f"{told}, {_seconds(read)} to read from {keep}{room}", size)
    why_not = _why_not(edge, images, memory_bytes, disk_bytes)
    if passes * compute < cost * CLEARLY:
        return Cut("recompute", f"{told}; {why_not}, and smaller values further up save too little", size)
    reason = (
        f"kept at {candidate.at}: {_bytes(candidate.bytes_per_image)} an image instead of {_bytes(edge.bytes_per_image)} "
        f"at the edge, {_seconds(candidate.after_s)} to go on from there; {why_not}"
    )
    return Cut(keep, reason, candidate.bytes_per_image * images, candidate.at, candidate.after_s)


def padding_of(images: int, batch_size: int, micro_batch: int) -> float:
    """How many images are computed for each one of a pass over `images` in batches, if whole micro-batches are (≥ 1)."""
    full, left = divmod(images, batch_size)
    padded = full * math.ceil(batch_size / micro_batch) + math.ceil(left / micro_batch)
    return padded * micro_batch / images


def _why_not(edge: Candidate, images: int, memory_bytes: int, disk_bytes: int) -> str:
    size = edge.bytes_per_image * images
    if size > disk_bytes:
        return f"the edge's {_bytes(size)} do not fit the disk budget of {_bytes(disk_bytes)}"
    if size > memory_bytes:
        return f"the edge's {_bytes(size)} would be read from disk, memory has {_bytes(memory_bytes)}"
    return f"the edge's {_bytes(size)} take longer to read"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{seconds * 1000:.3g} ms"
