"""Work in a thread of its own keeps its order, its bound and its errors."""

import threading

import pytest
import torch

from vdsr_cli.background import in_background


def test_all_is_done_in_order_in_another_thread():
    done, threads = [], set()

    def work(number: int) -> None:
        threads.add(threading.get_ident())
        done.append(number)

    with in_background(work) as give:
        for number in range(100):
            give(number)
    assert done == list(range(100))
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_the_giver_goes_on_until_enough_waits():
    gate, done = threading.Event(), []

    def work(number: int) -> None:
        assert gate.wait(10)
        done.append(number)

    with in_background(work, waiting=2) as give:
        for number in range(3):
            give(number)
        assert done == []
        opened = threading.Timer(0.05, gate.set)
        opened.start()
        give(3)
        assert done, "the fourth waits for the first"
    assert done == [0, 1, 2, 3]


def test_a_failure_reaches_the_giver_and_ends_the_work():
    done = []

    def work(number: int) -> None:
        if number == 1:
            raise OSError("no space left")
        done.append(number)

    with pytest.raises(OSError, match="no space left"), in_background(work) as give:
        for number in range(10):
            give(number)
    assert done == [0]


def test_the_last_failure_is_not_lost():
    def work() -> None:
        raise ValueError("late")

    with pytest.raises(ValueError, match="late"), in_background(work) as give:
        give()


def test_where_the_giver_fails_what_waits_is_dropped():
    begun, gate, done = threading.Event(), threading.Event(), []

    def work(number: int) -> None:
        begun.set()
        assert gate.wait(10)
        done.append(number)

    with pytest.raises(KeyboardInterrupt), in_background(work, waiting=5) as give:
        for number in range(4):
            give(number)
        assert begun.wait(10)
        threading.Timer(0.05, gate.set).start()
        raise KeyboardInterrupt
    assert done == [0]


def test_torch_keeps_to_one_thread_in_the_background_and_to_its_number_elsewhere():
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        with in_background(lambda: seen.append(torch.get_num_threads())) as give:
            give()
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert [*seen, torch.get_num_threads()] == [1, 2, 2]
    finally:
        torch.set_num_threads(before)
