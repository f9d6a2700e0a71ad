"""Signals that end a run: it leaves nothing unfinished, and says nothing.

Ctrl-C           KeyboardInterrupt, exit code 130
SIGTERM, SIGHUP  SystemExit, exit code 128 + the signal's number, as a shell would have it

Both unwind what is at work, so that files in the making are removed and worker processes told.
One that comes while an object is being finalised, where Python drops exceptions, comes once more.
"""

import signal
import sys
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_TOGETHER_S: Final = 2.0
"""Signals that follow one another so quickly count as one."""
_ONCE_MORE_S: Final = 0.01


_TERMINATIONS: Final = tuple(
    number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)


def end_on_signals() -> None:
    """Has signals unwind this process from now on; those that it is to ignore stay ignored."""
    came_at = float("-inf")
    last = signal.SIGINT
    report_unraisable = sys.unraisablehook

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal came_at, last
        is_again = time.monotonic() - came_at < _TOGETHER_S
        came_at = time.monotonic()
        if is_again:
            return
        last = signal.Signals(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    def come_once_more(dropped: "UnraisableHookArgs") -> None:
        nonlocal came_at
        if not isinstance(dropped.exc_value, KeyboardInterrupt | SystemExit):
            report_unraisable(dropped)
            return
        came_at = float("-inf")
        # Not from here, where it would be dropped again.
        again = threading.Timer(_ONCE_MORE_S, _to_main_thread, (last,))
        again.daemon = True
        again.start()

    sys.unraisablehook = come_once_more
    for number in (signal.SIGINT, *_TERMINATIONS):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def _to_main_thread(number: signal.Signals) -> None:
    """Also where it waits for something, which a signal to another thread would not end."""
    ident = threading.main_thread().ident
    if sys.platform == "win32" or ident is None:
        signal.raise_signal(number)
    else:
        signal.pthread_kill(ident, number)


def forget_signals() -> None:
    """For a process with nothing left to unwind: Ctrl-C is ignored, others end it at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in _TERMINATIONS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
