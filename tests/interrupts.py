"""An exception at every moment at which a signal may bring one into the main thread."""

import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import count, takewhile


class Interrupt(BaseException):
    """Raised by a signal."""


def is_interrupted(work: Callable[[], object], moment: int) -> bool:
    """Runs ``work`` with an interrupt at its ``moment``: False where it had ended by then.

    Python looks for signals where a function begins, and where one written in C has returned. It
    drops what is raised in a finaliser, and ``work`` goes on.
    """
    passed = 0

    def profile(frame: object, event: str, _: object) -> None:
        nonlocal passed
        if event in ("call", "c_return"):
            passed += 1
            if passed == moment:
                sys.setprofile(None)
                raise Interrupt

    with suppress(Interrupt):
        sys.setprofile(profile)
        work()
        sys.setprofile(None)
    return passed >= moment


def interrupts(work: Callable[[], object]) -> "takewhile[int]":
    """The moments of ``work``, which has been interrupted at each as it comes."""
    return takewhile(lambda moment: is_interrupted(work, moment), count(1))
