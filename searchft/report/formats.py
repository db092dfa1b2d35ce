"""How numbers are written for people: accuracies, rates, durations, learning curves of a few characters."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.-=+*#@"
_NOTHING = "–"


def accuracy_text(value: float | None) -> str:
    """An accuracy with four decimals; a dash where there is none.

    >>> accuracy_text(0.96253), accuracy_text(None)
    ('0.9625', '–')
    """
    return _NOTHING if value is None or not math.isfinite(value) else f"{value:.4f}"


def rate_text(value: float) -> str:
    """A learning rate as one writes it: small ones in powers of ten.

    >>> rate_text(1e-3), rate_text(0.00035), rate_text(0.01), rate_text(0.5)
    ('1e-3', '3.5e-4', '0.01', '0.5')
    """
    if value == 0 or abs(value) >= 0.01:
        return f"{value:g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def duration_text(seconds: float) -> str:
    """A duration in its two largest units.

    >>> duration_text(3.21), duration_text(75), duration_text(3 * 3600 + 125)
    ('3.2 s', '1 min 15 s', '3 h 2 min')
    """
    if not math.isfinite(seconds):
        return _NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size_text(size_bytes: int) -> str:
    """A size in bytes, in the unit that leaves one to three digits before the point.

    >>> size_text(512), size_text(18_800_000)
    ('512 B', '18.8 MB')
    """
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def count_text(count: int) -> str:
    """A count in three digits or so.

    >>> count_text(512), count_text(20_520), count_text(11_176_512)
    ('512', '20.5k', '11.2M')
    """
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e3:.1f}k" if count >= 1e3 else str(count)


def sparkline(values: Sequence[float], width: int, ascii_only: bool = False) -> str:
    """A learning curve of at most `width` characters, its own range over the height; its last value always shows, NaN is blank.

    >>> sparkline([0.1, 0.5, 0.9], 8)
    '▁▅█'
    """
    if width < 1 or not values:
        return ""
    if len(values) > width:
        step = len(values) / width
        values = [values[min(len(values) - 1, math.ceil((i + 1) * step) - 1)] for i in range(width)]
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
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
