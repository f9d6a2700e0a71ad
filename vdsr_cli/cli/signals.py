"""Signals that end a run: it leaves nothing unfinished, and says nothing.

Ctrl-C           KeyboardInterrupt, exit code 130
SIGTERM, SIGHUP  SystemExit, exit code 128 + the signal's number, as a shell would have it

Both unwind what is at work, so that files in the making are removed and worker processes told. An
exception may not get through: Python drops those that come while an object is finalised, and
native code may put an error of its own in their place. Then the signal comes once more.
"""

import signal
import sys
import threading
import time
import weakref
from types import FrameType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_TOGETHER_S: Final = 2.0
"""Signals that follow one another so quickly count as one."""
_ONCE_MORE_AFTER_S: Final = 0.01
"""So that it does not come where it was dropped."""
_ONCE_MORE: Final = "vdsr: a signal, once more"

_TERMINATIONS: Final = tuple(
    number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)


class _Interrupt(KeyboardInterrupt):
    """Ctrl-C, as an exception that may be watched; the built-in one may not."""


class _Termination(SystemExit):
    """Another signal, alike."""


def end_on_signals() -> None:
    """Has signals unwind this process from now on; those that it is to ignore stay ignored."""
    came_at = float("-inf")
    watched: weakref.ref[BaseException] | None = None
    report_unraisable = sys.unraisablehook

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal came_at
        is_again = time.monotonic() - came_at < _TOGETHER_S
        came_at = time.monotonic()
        if not is_again:
            # No name is bound to it here: its traceback holds this frame, and would hold it.
            raise watch(_Interrupt() if number == signal.SIGINT else _Termination(128 + number))

    def watch(error: _Interrupt | _Termination) -> _Interrupt | _Termination:
        nonlocal watched
        number = signal.SIGINT if isinstance(error, _Interrupt) else int(str(error.code)) - 128
        watched = weakref.ref(error, lambda _: come_once_more(number))
        return error

    def come_once_more(number: int) -> None:
        """Called when the exception is no more; that is soon where it does not get through."""
        nonlocal came_at
        if signal.getsignal(number) is end:
            came_at = float("-inf")
            threading.Thread(
                target=_to_main_thread, args=(number,), name=_ONCE_MORE, daemon=True
            ).start()

    def report(dropped: "UnraisableHookArgs") -> None:
        if not isinstance(dropped.exc_value, _Interrupt | _Termination):
            report_unraisable(dropped)

    sys.unraisablehook = report
    for number in (signal.SIGINT, *_TERMINATIONS):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def let_signals_come(error: Exception) -> None:
    """Before an error is told: where it has taken a signal's place, that comes now.

    It may stand behind the error, as its cause, or be no more and come once more.
    """
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, _Interrupt | _Termination):
            raise behind from None
        behind = behind.__cause__ or behind.__context__
    for thread in threading.enumerate():
        if thread.name == _ONCE_MORE:
            thread.join()


def _to_main_thread(number: int) -> None:
    """Also where it waits for something, which a signal to another thread would not end."""
    time.sleep(_ONCE_MORE_AFTER_S)
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
