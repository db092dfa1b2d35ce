"""Where the frozen part's values are kept: a question of bytes alone, and one that changes no number.

They are kept where the trainable part reads them: in 14 networks (bfloat16, n=1) no place further up made epochs 1.1 times shorter.
"""

from __future__ import annotations

from dataclasses import dataclass

MEMORY_SHARE = 2
"""The system may use one in so many bytes of free memory to hold stored values; what is larger is read from the disk."""


@dataclass(frozen=True)
class Keeping:
    """What happens to the values that one opening's trainable part reads, and why."""

    keep: str
    """`memory` (a file that the system holds in memory), `disk` (read as needed) or `recompute`."""
    reason: str
    size_bytes: int
    """Of all images together, whether kept or not."""

    def __str__(self) -> str:
        where = {"memory": "kept in memory", "disk": "kept on disk", "recompute": "computed for every batch"}[self.keep]
        return f"{where} ({self.reason})"


def choose_keeping(
    bytes_per_image: int, images: int, memory_bytes: int, disk_bytes: int, *, constant: bool = True, why_whole: str = ""
) -> Keeping:
    """In memory where the values fit, else on disk where they fit, else computed for every batch.

    Args:
        bytes_per_image: of the values that the trainable part reads; 0: nothing is frozen.
        images: how many are kept, fixed views included.
        memory_bytes: what memory could give now.
        disk_bytes: the store's budget.
        constant: whether an image's values are the same in every epoch: not under fresh random augmentation.
        why_whole: why a network cannot be split; empty: it can.
    """
    size = bytes_per_image * images
    if why_whole or not bytes_per_image:
        return Keeping("recompute", why_whole or "nothing is frozen", 0)
    if not constant:
        return Keeping("recompute", "random augmentation makes every epoch's images new; augment_views: n would keep n", size)
    told = f"{_bytes(bytes_per_image)} an image, {_bytes(size)} in all"
    if size > disk_bytes:
        return Keeping("recompute", f"{told}, more than the {_bytes(disk_bytes)} that the disk has for them", size)
    if size > memory_bytes // MEMORY_SHARE:
        return Keeping("disk", f"{told}, more than half of the {_bytes(memory_bytes)} of free memory", size)
    return Keeping("memory", told, size)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
