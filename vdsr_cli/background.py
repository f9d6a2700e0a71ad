"""Work in the background: in a thread of its own, in order, while the one who gives it goes on."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import ParamSpec

import torch

P = ParamSpec("P")


@contextmanager
def in_background(work: Callable[P, object], *, waiting: int = 1) -> Iterator[Callable[P, None]]:
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
        _keep_to_one_core(thread)
        try:
            yield give
            while given:
                given.popleft().result()
        finally:
            thread.shutdown(wait=False, cancel_futures=True)


def _keep_to_one_core(thread: ThreadPoolExecutor) -> None:
    """Lets torch not use more threads in this one, which would get in the way of the giver's."""
    threads = torch.get_num_threads()
    # A thread takes the common number when it first asks, and would take it after being set.
    thread.submit(torch.get_num_threads).result()
    thread.submit(torch.set_num_threads, 1).result()
    # Setting it has set the common number too, with which threads that come later begin.
    torch.set_num_threads(threads)
