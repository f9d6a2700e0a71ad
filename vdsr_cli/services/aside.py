"""Work done aside: in a thread of its own, in order, while the one who gives it goes on."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import ParamSpec

P = ParamSpec("P")


@contextmanager
def aside(work: Callable[P, object], *, waiting: int = 1) -> Iterator[Callable[P, None]]:
    """Yields a function that has ``work`` done with its arguments, and returns at once.

    The block ends when all is done. Where ``work`` fails, the next call or the end of the block
    raises its exception and the rest is left undone; so it is where the block itself fails.

    Args:
        work: called from one thread alone, one call after the other.
        waiting: how many calls may wait behind the one being worked on; with more, giving waits.
            It bounds the memory that arguments hold.
    """
    given: deque[Future[object]] = deque()
    has_failed = Event()

    def do(*args: P.args, **kwargs: P.kwargs) -> None:
        if has_failed.is_set():
            return
        try:
            work(*args, **kwargs)
        except BaseException:
            has_failed.set()
            raise

    def give(*args: P.args, **kwargs: P.kwargs) -> None:
        while len(given) > waiting:
            given.popleft().result()
        given.append(thread.submit(do, *args, **kwargs))

    with ThreadPoolExecutor(1) as thread:
        try:
            yield give
            while given:
                given.popleft().result()
        finally:
            thread.shutdown(wait=False, cancel_futures=True)
