"""How numbers are written for people: accuracies, rates, durations, learning curves of a few characters."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_NOTHING = "–"


def accuracy_text(value: float | None) -> str:
    """`0.9625`; a dash where there is none."""
    return _NOTHING if value is None or not math.isfinite(value) else f"{value:.4f}"


def rate_text(value: float) -> str:
    """A learning rate as one writes it, small ones in powers of ten: `3.5e-4`, `0.01`."""
    if value == 0 or abs(value) >= 0.01:
        return f"{value:g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def duration_text(seconds: float) -> str:
    """A duration in its two largest units: `3.2 s`, `1 min 15 s`, `3 h 2 min`."""
    if not math.isfinite(seconds):
        return _NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, unit, small, rest in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= large:
            return f"{whole // large} {unit} {whole % large // small} {rest}"
    return f"{whole} s"


def size_text(size_bytes: int) -> str:
    """A size in the unit that leaves one to three digits before the point: `512 B`, `18.8 MB`."""
    size, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"


def count_text(count: int) -> str:
    """A count in three digits or so: `512`, `20.5k`, `11.2M`."""
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e3:.1f}k" if count >= 1e3 else str(count)


def sparkline(values: Sequence[float], width: int, ascii_only: bool = False) -> str:
    """A learning curve of at most `width` characters, its own range over the height; its last value always shows, NaN is blank."""
    if len(values) > width:
        values = [values[math.ceil((i + 1) * len(values) / width) - 1] for i in range(width)]
    blocks = "_.-=+*#@" if ascii_only else "▁▂▃▄▅▆▇█"
    finite = [v for v in values if math.isfinite(v)] or [0.0]
    low, high = min(finite), max(finite)

    def block(value: float) -> str:
        height = (value - low) / (high - low) if high > low else 0.5
        return blocks[min(len(blocks) - 1, int(height * len(blocks)))]

    return "".join(block(value) if math.isfinite(value) else " " for value in values)


def markdown_text(text: object) -> str:
    """Text as Markdown that ends no table cell, marks nothing up, links nowhere and holds no HTML."""
    flat = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*|\[\]])", r"\\\1", flat).replace("://", ":&#47;&#47;")
