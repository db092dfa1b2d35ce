"""SIGINT, SIGTERM and SIGHUP: stop in order, within ten seconds; a second one leaves at once.

The first signal sets a flag that the driver looks at; before there is a search it raises KeyboardInterrupt. A thread of its
own receives signals even while the main thread is deep inside a library: it ends the process at the second signal, or where
stopping takes too long. That is safe, because being killed is: workers die with their driver, checkpoints and database stand.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

PATIENCE_S = 8.0  # how long stopping in order may take: a server that is away, a slow disk
ONE_KEYPRESS_S = 0.25  # signals closer together are one: `timeout` and some schedulers send each of them twice
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopping:
    """Called: whether somebody asked us to stop. `searching`: whether the driver runs and looks at this."""

    def __init__(self) -> None:
        self.asked = False
        self.searching = False

    def __call__(self) -> bool:
        return self.asked

    def handle(self, number: int, frame: FrameType | None) -> None:
        first, self.asked = not self.asked, True
        if first and not self.searching:
            raise KeyboardInterrupt


@contextlib.contextmanager
def listening() -> Iterator[Stopping]:
    """Catches the signals until the block ends. SIGHUP stays ignored where it was (`nohup`)."""
    stopping = Stopping()
    numbers = [n for n in _SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, stopping.handle) for number in numbers}
    threading.Thread(target=_watch, args=(reading, set(numbers)), daemon=True).start()
    try:
        yield stopping
    finally:
        if not stopping.asked:  # else the watch goes on until the process has really ended
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before_fd)
            os.close(writing)


def leave_undisturbed(code: int) -> None:
    """The command has finished: a later signal makes the process leave at once with its exit code, not with a traceback."""

    def leave(number: int, frame: FrameType | None) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, RuntimeError):  # RuntimeError: in the middle of a flush
                stream.flush()
        os._exit(code)

    for number in _SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, leave)


def _watch(reading: int, numbers: set[int]) -> None:
    """Leaves at the second signal, or when the first has had no effect for too long."""
    while (number := os.read(reading, 1)) and number[0] not in numbers:
        pass
    if not number:  # the block ended without a signal
        os.close(reading)
        return
    first = time.monotonic()
    threading.Timer(PATIENCE_S, _leave).start()
    while number := os.read(reading, 1):
        if number[0] in numbers and time.monotonic() - first > ONE_KEYPRESS_S:
            _leave()


def _leave() -> None:
    """Ends the process now, with the cursor back where one was hidden."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():
            os.write(2, b"\x1b[?25h\n")
        os.write(2, b"stopped at once; checkpoints stand, running again goes on\n")
    os._exit(130)
