"""Whether keeping a split's crossing values pays, and where: in memory, on disk, or not at all.

Keeping costs room and the time to read; not keeping costs the prefix's time, once per image and pass. The deepest cut
is not always worth storing: the first layers' values are larger than the image and quickly computed again.
Rates are deliberately low guesses where none are measured: only clear cases should be kept.
"""

from __future__ import annotations

from dataclasses import dataclass

MEMORY_BYTES_PER_S = 4e9
"""Rows gathered at random from memory, on one core."""
DISK_BYTES_PER_S = 4e8
"""Rows read at random from a solid-state disk."""


@dataclass(frozen=True)
class Cut:
    """What happens to the crossing values, and why, for people and for the record."""

    keep: str
    """`memory`, `disk` (memory-mapped, read as needed) or `recompute`."""
    reason: str
    size_bytes: int
    """Of all images together, whether kept or not."""


def choose_cut(
    bytes_per_image: int,
    images: int,
    seconds_per_image: float,
    passes: float,
    memory_bytes: int,
    disk_bytes: int,
    *,
    constant: bool = True,
    memory_bytes_per_s: float = MEMORY_BYTES_PER_S,
    disk_bytes_per_s: float = DISK_BYTES_PER_S,
) -> Cut:
    """Decides for one split of a network.

    `bytes_per_image` is `Split.bytes_per_image` (0: there is no prefix), `images` how many would be stored (views
    included), `seconds_per_image` what `calibrate.seconds_per_image` measured, `passes` how often each image will be
    read over all trials; `constant` is False where fresh random augmentation stands before the cut. Budgets are what is
    free for this network's values.
    """
    size = bytes_per_image * images
    if bytes_per_image == 0:
        return Cut("recompute", "nothing is frozen, so nothing is constant", 0)
    if not constant:
        return Cut(
            "recompute", "random augmentation before the cut: no two passes see the same images (augment_views: K)", size
        )
    compute = seconds_per_image * images
    from_memory, from_disk = size / memory_bytes_per_s, size / disk_bytes_per_s
    told = f"{_bytes(bytes_per_image)} an image, {_bytes(size)} in all; {_seconds(compute)} a pass to compute"
    if size <= memory_bytes and size <= disk_bytes:
        if _pays(compute, from_memory, from_disk, passes):
            return Cut("memory", f"{told}, {_seconds(from_memory)} to read from memory", size)
        return Cut("recompute", f"{told}, not worth {_seconds(from_memory)} to read over {passes:g} passes", size)
    if size <= disk_bytes:
        if _pays(compute, from_disk, from_disk, passes):
            return Cut("disk", f"{told}, {_seconds(from_disk)} to read from disk; memory has {_bytes(memory_bytes)}", size)
        return Cut("recompute", f"{told}, not worth {_seconds(from_disk)} to read from disk over {passes:g} passes", size)
    return Cut("recompute", f"{told}; does not fit the disk budget of {_bytes(disk_bytes)}", size)


def _pays(compute: float, read: float, write: float, passes: float) -> bool:
    """Computing and writing once and then reading, against computing every time."""
    return compute + write + passes * read < passes * compute


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{seconds * 1000:.3g} ms"
