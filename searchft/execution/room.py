"""Which trials fit on a device together: a tally of estimated peaks against what the device has.

Estimates err. So a device on which nothing runs takes any trial (if it is too large after all, its failure is recorded as out
of memory), and a device of unknown size takes all that come.
"""

from __future__ import annotations

SHARE = 0.9
"""Of a device's memory that estimates may add up to: allocators round up, and libraries keep workspaces."""


class Room:
    """The tally of one executor, by device (any name that tells its devices apart)."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._taken: dict[int, tuple[str, int]] = {}

    def has(self, device: str, size_bytes: int) -> None:
        """Notes what a device could give when it was free; the largest word of several workers counts."""
        self._sizes[device] = max(size_bytes, self._sizes.get(device, 0))

    def fits(self, device: str, memory_bytes: int) -> bool:
        """Whether a trial of that peak may begin there now."""
        there = [taken for place, taken in self._taken.values() if place == device]
        size = self._sizes.get(device, 0)
        return not there or not size or sum(there) + memory_bytes <= SHARE * size

    def take(self, slot: int, device: str, memory_bytes: int) -> None:
        """A trial begins in a slot."""
        self._taken[slot] = (device, memory_bytes)

    def leave(self, slot: int) -> None:
        """The slot's trial ended; again: nothing."""
        self._taken.pop(slot, None)
