"""The queue's places and the finished files that are kept."""

import asyncio
from io import BytesIO
from zipfile import ZipFile

import pytest

from vdsr_cli.web.jobs import Cancelled, Job, JobQueue, KeptFiles, QueueFullError


@pytest.fixture
def queue():
    made = JobQueue(2)
    yield made
    made.close()


def test_places_are_counted_and_given_back(queue):
    with queue.place() as first, queue.place() as second:
        assert (queue.ahead(first), queue.ahead(second)) == (0, 1)
        with pytest.raises(QueueFullError), queue.place():
            raise AssertionError("there was no place")
    with queue.place() as third:
        assert queue.ahead(third) == 0
    assert len({first.id, second.id, third.id}) == 3


def test_a_job_without_its_place_ends_at_its_next_step(queue):
    with queue.place() as job:
        job.start(5)
        job.advance(2)
        assert (job.done, job.tiles) == (2, 5)
    with pytest.raises(Cancelled):
        job.advance(1)


def test_a_cancelled_job_does_not_start():
    job = Job()
    job.cancel()
    with pytest.raises(Cancelled):
        job.start(5)


def test_work_is_done_in_turn_and_its_errors_come_back(queue):
    order = []

    async def scenario():
        jobs = [queue.run(lambda name=name: order.append(name)) for name in "abc"]
        await asyncio.gather(*jobs)
        with pytest.raises(ZeroDivisionError):
            await queue.run(lambda: 1 // 0)
        return await queue.run(lambda: 7)

    assert asyncio.run(scenario()) == 7
    assert order == ["a", "b", "c"]


def test_the_oldest_results_are_dropped_but_never_the_newest():
    kept = KeptFiles(10)
    for result in "abc":
        kept.keep(result, {"x.png": b"12345"})
    assert [kept.find(result, "x.png") for result in "abc"] == [None, b"12345", b"12345"]
    kept.keep("d", {"x.png": b"1" * 50})
    assert [kept.find(result, "x.png") for result in "bcd"] == [None, None, b"1" * 50]
    assert kept.find("d", "y.png") is None


def test_all_files_of_a_result_in_one():
    kept = KeptFiles(100)
    kept.keep("a", {"s0.png": b"first", "mean.png": b"second"})
    with ZipFile(BytesIO(kept.archive("a"))) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "s0.png": b"first",
            "mean.png": b"second",
        }
    assert kept.archive("b") is None
