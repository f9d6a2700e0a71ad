"""Signals that end a run: it leaves nothing unfinished, and says nothing.

Ctrl-C           KeyboardInterrupt, exit code 130
SIGTERM, SIGHUP  SystemExit, exit code 128 + the signal's number, as a shell would have it

Both unwind what is at work, so that files in the making are removed and worker processes told.
"""

import signal
import time
from types import FrameType
from typing import Final

_TOGETHER_S: Final = 2.0
"""Signals that follow one another so quickly count as one."""


_TERMINATIONS: Final = tuple(
    number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)


def end_on_signals() -> None:
    """Has signals unwind this process from now on; those that it is to ignore stay ignored."""
    came_at = float("-inf")

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal came_at
        is_again = time.monotonic() - came_at < _TOGETHER_S
        came_at = time.monotonic()
        if is_again:
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, *_TERMINATIONS):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def forget_signals() -> None:
    """For a process with nothing left to unwind: Ctrl-C is ignored, others end it at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in _TERMINATIONS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
