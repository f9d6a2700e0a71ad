"""Worker processes: the bytes of one process, and no death of one ends the run."""

import multiprocessing
import os
import select
import signal
import sys
import threading
from pathlib import Path

import pytest
import torch

from vdsr_cli.batch import processes as workers
from vdsr_cli.batch.listing import Work
from vdsr_cli.batch.processes import InProcess, Job, Upscaler, WorkerProcesses
from vdsr_cli.errors import WeightsError
from vdsr_cli.sampling.engine import SamplingSettings
from vdsr_cli.services.upscale import UpscaleRequest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def job(model: Path) -> Job:
    settings = SamplingSettings(tile=16, overlap=4, seed=3)
    return Job(model=str(model), request=UpscaleRequest(settings=settings), is_hashed=True)


def in_process(model: Path) -> InProcess:
    def told(*_):
        return None

    streams = {"stdin": sys.stdin, "stdout": sys.stdout}
    return InProcess(upscaler=Upscaler(job(model)), on_start=told, on_tiles=told, **streams)


def test_the_number_of_workers_changes_no_byte(tiny_path, save_picture):
    names = [f"{index}.png" for index in range(5)]
    for index, name in enumerate(names):
        save_picture(Path(name), 20 + index, 30, seed=index)
    engines = {"one": in_process(tiny_path), "two": WorkerProcesses(job=job(tiny_path), count=2)}
    hashes = {}
    for folder, engine in engines.items():
        works = [Work(input=name, output=f"{folder}/{name}") for name in names]
        outcomes = list(engine.run(works))
        hashes[folder] = {outcome.work.input: outcome.sha256 for outcome in outcomes}
        assert [outcome.result.error for outcome in outcomes] == [None] * len(names)
    assert hashes["one"] == hashes["two"] and len(set(hashes["one"].values())) == len(names)
    assert multiprocessing.active_children() == []


def kill_readers(times: dict[str, int]) -> None:
    """Kills the worker that opens each of these pipes, so often; then a picture replaces it.

    Opening a pipe for writing waits until someone reads it, polling it until no one does any more.
    """
    for name, often in times.items():
        for _ in range(often):
            pipe = os.open(name, os.O_WRONLY)
            if often == 1:
                Path(name).unlink()
                Path("spare.png").rename(name)
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
            readers = select.poll()
            readers.register(pipe, 0)
            readers.poll()
            os.close(pipe)


def test_a_worker_that_dies_is_replaced(tiny_path, save_picture):
    """Its picture is tried once more; one that ends two workers has failed."""
    save_picture(Path("spare.png"))
    save_picture(Path("fine.png"))
    for name in ("once.png", "twice.png"):
        os.mkfifo(name)
    killer = threading.Thread(
        target=kill_readers, args=({"once.png": 1, "twice.png": 2},), daemon=True
    )
    killer.start()
    works = [Work(input=f"{n}.png", output=f"{n}_x4.png") for n in ("once", "twice", "fine")]
    once, twice, fine = WorkerProcesses(job=job(tiny_path), count=1).run(works)
    killer.join()
    assert once.result.status == fine.result.status == "done"
    assert twice.result.status == "failed" and twice.result.exit_code == 5
    assert "SIGKILL" in str(twice.result.error) and "--jobs" in str(twice.result.hint)
    assert sorted(p.name for p in Path().glob("*_x4.png")) == ["fine_x4.png", "once_x4.png"]


def test_a_picture_may_replace_what_an_earlier_attempt_left_however_workers_end():
    """Also where the new worker dies before it is ready."""

    class Dying:
        def __init__(self):
            self.work, self.attempts, self.is_ready = Work(input="a", output="b"), 1, True

        def restart(self):
            self.is_ready = False
            return workers._End(-signal.SIGKILL)

        def take(self, work, *, attempts):
            self.work, self.attempts = work, attempts

    worker, engine = Dying(), WorkerProcesses(job=job(Path("none")), count=1)
    for _ in range(2):
        assert engine._died(worker) is None
        assert (worker.work.is_retry, worker.attempts) == (True, 2)


def test_a_crash_is_not_called_a_lack_of_memory():
    killed, crashed = (workers._End(-n).error("a.png") for n in (signal.SIGKILL, signal.SIGSEGV))
    assert killed.exit_code == 5 and "--jobs" in str(killed.hint)
    assert crashed.exit_code == 1 and "memory" not in f"{crashed} {crashed.hint}"
    assert str(crashed) == "a.png: killed by SIGSEGV"
    assert str(workers._End(-60)) == "killed by signal 60" and str(workers._End(3)) == "exit code 3"


def test_what_no_worker_can_do_ends_the_run(tmp_path, save_picture):
    save_picture(Path("a.png"))
    engine = WorkerProcesses(job=job(tmp_path / "none.safetensors"), count=1)
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        list(engine.run([Work(input="a.png", output="b.png")]))
    assert multiprocessing.active_children() == []


def test_workers_take_the_cards_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cards = [workers._device_of("auto", place) for place in range(4)]
    assert cards == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert workers._device_of("cpu", 1) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert workers._device_of("auto", 1) == "auto"


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [workers._threads_of(count) for count in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
