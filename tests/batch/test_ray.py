"""The Ray engine: its bookkeeping on a stand-in, and a real cluster of one node where Ray is."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Timer
from types import SimpleNamespace

import pytest

from vdsr_cli.batch import ray as cluster
from vdsr_cli.batch.listing import Work
from vdsr_cli.batch.processes import Job
from vdsr_cli.batch.ray import RayCluster
from vdsr_cli.batch.run import Outcome
from vdsr_cli.errors import DeviceError, UsageError, WeightsError
from vdsr_cli.sampling.engine import SamplingSettings
from vdsr_cli.services.upscale import UpscaleRequest, UpscaleResult


def job(model: object = "model") -> Job:
    settings = SamplingSettings(tile=16, overlap=4, seed=3)
    return Job(model=str(model), request=UpscaleRequest(settings=settings), is_hashed=True)


class RayError(Exception):
    """As Ray's."""


class RayTaskError(RayError):
    """As Ray's: what a task raised."""


class Task:
    """Stands for an outcome."""

    def __init__(self, work: Work | None) -> None:
        self.work = work


class StandIn:
    """As much of the ray module as the engine uses; tasks run when they are waited for."""

    def __init__(self, deaths: dict[str, int], cpus: int = 2, start: Sequence[object] = ()) -> None:
        self.deaths, self.cpus, self.start = dict(deaths), cpus, [*start]
        self.given: list[Work] = []
        self.cancelled: list[object] = []
        self.most_flying, self.is_shut = 0, False
        self.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def init(self, **_):
        return None

    def shutdown(self):
        self.is_shut = True

    def cluster_resources(self):
        return {"CPU": float(self.cpus)}

    def put(self, value):
        return value

    def remote(self, **options):
        assert options == {"max_retries": 0, "num_cpus": 1}
        return lambda function: SimpleNamespace(remote=lambda job, work: self._task(work))

    def _task(self, work):
        if work is not None:
            self.given.append(work)
        return Task(work)

    def wait(self, tasks, *, num_returns, timeout=None):
        self.most_flying = max(self.most_flying, len(tasks))
        return tasks[-num_returns:], tasks[:-num_returns]

    def get(self, task):
        if task.work is None:
            answer = self.start.pop(0) if self.start else None
            if isinstance(answer, RayError):
                raise answer
            return answer
        name = Path(task.work.input).name
        if self.deaths.get(name, 0):
            self.deaths[name] -= 1
            raise RayError("the worker died")
        result = UpscaleResult(input=task.work.input, output=task.work.output)
        return Outcome(work=task.work, result=result)

    def cancel(self, task):
        self.cancelled.append(task)


@pytest.fixture
def ray(monkeypatch):
    """``ray(deaths)``: a cluster whose pictures die so often."""

    def make(deaths=None, **options) -> StandIn:
        module = StandIn(deaths or {}, **options)
        monkeypatch.setitem(sys.modules, "ray", module)
        return module

    return make


WORKS = [Work(input=f"{name}.png", output=f"{name}_x4.png") for name in "abcdefgh"]


def test_pictures_of_a_dead_worker_are_given_to_others(ray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = ray({"c.png": 2, "f.png": 3})
    outcomes = list(RayCluster(job=job()).run(WORKS))
    by_name = {outcome.work: outcome.result for outcome in outcomes}
    assert set(by_name) == set(WORKS) and len(outcomes) == len(WORKS)
    failed = by_name.pop(WORKS[5])
    assert failed.exit_code == 5 and "ended 3 times" in str(failed.error)
    assert {result.status for result in by_name.values()} == {"done"}
    assert by_name[WORKS[2]].output == "c_x4.png", "addresses are those that were asked for"
    again = [work for work in module.given if Path(work.input).name == "c.png"]
    assert [work.is_retry for work in again] == [False, True, True]
    assert again[0].input == str(tmp_path / "c.png"), "a node has another working folder"
    assert module.most_flying == 4 and module.is_shut


def test_jobs_limit_what_is_in_work(ray):
    module = ray()
    assert len(list(RayCluster(job=job(), limit=1).run(WORKS))) == len(WORKS)
    assert module.most_flying == 1


def test_a_run_that_ends_early_cancels_what_is_in_work(ray):
    module = ray()
    run = RayCluster(job=job()).run(iter(WORKS))
    next(run)
    run.close()
    assert len(module.cancelled) == 3 and module.is_shut


def test_what_the_cluster_cannot_do_is_told_first(ray):
    ray(start=[WeightsError("no such model")])
    with pytest.raises(WeightsError, match="no such model"):
        list(RayCluster(job=job()).run(WORKS))


def test_a_worker_that_dies_before_the_first_picture_is_replaced(ray):
    ray(start=[RayError("killed"), RayError("killed")])
    assert len(list(RayCluster(job=job()).run(WORKS))) == len(WORKS)
    module = ray(start=[RayError("killed")] * 3)
    with pytest.raises(DeviceError, match="cannot run vdsr: killed"):
        list(RayCluster(job=job()).run(WORKS))
    assert not module.given and not module.start and module.is_shut


def test_nodes_that_lack_the_package_are_told_of_at_once(ray):
    module = ray(start=[RayTaskError("No module named 'vdsr_cli'")] * 2)
    with pytest.raises(DeviceError, match="No module named"):
        list(RayCluster(job=job()).run(WORKS))
    assert len(module.start) == 1


def test_there_is_no_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="not installed"):
        list(RayCluster(job=job()).run(WORKS))


def test_there_is_no_cluster(ray, monkeypatch):
    def refuse(**_):
        raise ConnectionError("nobody there")

    monkeypatch.setattr(ray(), "init", refuse)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(DeviceError, match="no Ray cluster at auto"):
        list(RayCluster(job=job()).run(WORKS))


def test_a_node_keeps_its_model(tiny_path, tmp_path, save_picture, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_picture(Path("a.png"))
    cluster._upscaler.cache_clear()
    assert cluster._upscale(job(tiny_path), None) is None
    outcome = cluster._upscale(job(tiny_path), Work(input="a.png", output="b.png"))
    assert isinstance(outcome, Outcome) and outcome.result.status == "done"
    assert cluster._upscaler.cache_info().misses == 1
    assert isinstance(cluster._upscale(job("./none.safetensors"), None), WeightsError)
    cluster._upscaler.cache_clear()


_PATIENCE_S = 600
"""How long a cluster or a run may take on a machine that is busy with something else."""


class Cluster:
    """A Ray node of one CPU on this machine.

    Ray gives its workers a niceness of 15 and waits without end for one that does not get to run:
    beside two busy processes a start that takes 5 s takes minutes. Here they are as nice as the
    test. Ray's own limits on how long a node and a worker may take to start are as wide as ours.
    One is fixed: the 15 s in which a node's agents have to write down their ports. A node dies
    of it, and `ray start` waits for it in vain.
    """

    def __init__(self, folder: Path) -> None:
        port = 20_000 + os.getpid() % 10_000  # Below those that the system gives out.
        self.address = f"127.0.0.1:{port}"
        self._log = folder / "ray.log"
        self._short = tempfile.mkdtemp(prefix="ray-")  # Of sockets, whose paths may not be long.
        command = [
            Path(sys.executable).with_name("ray"), "start", "--head", "--block", f"--port={port}",
            "--num-cpus=1", "--object-store-memory=100000000", "--include-dashboard=false",
            "--disable-usage-stats", "--node-ip-address=127.0.0.1", f"--temp-dir={self._short}",
        ]  # fmt: skip
        settings = {
            "RAY_worker_niceness": "0",
            "RAY_raylet_start_wait_time_s": str(_PATIENCE_S),
            "RAY_worker_register_timeout_seconds": str(_PATIENCE_S),
        }
        with self._log.open("wb") as output:
            self._started = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                env=os.environ | settings,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until it takes tasks."""
        end = time.monotonic() + _PATIENCE_S
        while "Ray runtime started" not in self._log.read_text():
            if self._started.poll() is not None or time.monotonic() > end:
                pytest.fail(f"Ray does not start: {self._log.read_text()}")
            for log in Path(self._short).glob("session_latest/logs/raylet.err"):
                if "Timed out waiting for file" in log.read_text(errors="replace"):
                    pytest.skip("this machine is too busy for the 15 s of a node")
            time.sleep(0.2)

    def processes(self, title: bytes = b"") -> list[int]:
        """Those of the cluster, found by their session, whose command line begins so."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            pid = int(path.parent.name)
            with suppress(OSError):
                command = path.read_bytes()  # Empty once it has ended.
                is_ours = os.getsid(pid) == self._started.pid
                if is_ours and command and command.startswith(title):
                    found.append(pid)
        return found

    def kill(self, pids: list[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        while pids := self.processes():
            self.kill(pids)
        self._started.wait()
        shutil.rmtree(self._short, ignore_errors=True)


@pytest.fixture
def real(tmp_path):
    """A cluster that is up."""
    pytest.importorskip("ray", reason="needs vdsr-cli[ray]")
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("finds the cluster's processes in /proc")
    cluster = Cluster(tmp_path)
    try:
        cluster.wait()
        yield cluster
    finally:
        cluster.close()


def test_a_real_cluster_makes_the_same_bytes(
    real, tiny_path, tmp_path, save_picture, monkeypatch, vdsr, start_vdsr
):
    """Also after the worker is killed that has a large picture in work."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for seed, width in enumerate((20, 900, 21, 22)):
        save_picture(Path(f"in/{seed}.png"), width, 30, seed=seed)
    options = ("upscale", "-r", "in", "--model", tiny_path, "--tile", 16, "--overlap", 4, "--json")
    run = start_vdsr(*options, "-o", "ray", "--engine", "ray", "--ray-address", real.address)
    limit = Timer(_PATIENCE_S, run.kill)
    limit.daemon = True
    limit.start()
    lines = [run.stdout.readline()]
    victims = []
    while not victims and run.poll() is None:
        victims = real.processes(b"ray::_upscale")
    real.kill(victims)
    rest, err = run.communicate()
    limit.cancel()
    assert run.returncode == 0, err.decode()
    assert len(victims) == 1
    lines += rest.splitlines()
    assert sorted(json.loads(line)["input"] for line in lines) == [f"in/{n}.png" for n in range(4)]
    assert vdsr(*options, "-o", "own").code == 0
    assert made("ray") == made("own") and len(made("own")) == 4


def made(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.png")}
