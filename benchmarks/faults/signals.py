"""Signals at random moments of runs in one process and in workers, and workers that die."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from runner import Ended, Trial, fault
from warm import Fork, import_all

ENDINGS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def of_session(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(folder.name))
    return found


def _is_over(session: int) -> bool:
    """Whether its processes are gone; multiprocessing's own outlives the run by milliseconds."""
    until = time.monotonic() + 2
    while of_session(session):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def interrupted(trial: Trial, *options: object, is_forked: bool = False) -> None:
    """Ten runs over some pictures, each with a signal, or several, at a random moment."""
    import_all()
    for index in range(4):
        trial.picture(f"in/{index}.png", 40, 30)
    words = ("upscale", "in", "-m", trial.model, "--json", *options)

    def start(out: Path) -> "Fork | subprocess.Popen[bytes]":
        if is_forked:
            return Fork(trial, *words, "-o", out)
        return trial.start(*words, "-o", out, start_new_session=True)

    def end(child: "Fork | subprocess.Popen[bytes]") -> Ended:
        return child.end() if isinstance(child, Fork) else trial.end(child)

    started = time.monotonic()
    end(start(trial.folder / "whole"))
    whole_s = time.monotonic() - started
    # An interpreter takes a moment to start, in which it knows no signals yet.
    blind_s = 0.05 if is_forked else 0.3
    for index in range(10):
        out = trial.folder / f"out-{index}"
        child = start(out)
        number = trial.chance.choice(list(ENDINGS))
        time.sleep(blind_s + max(0, whole_s - blind_s) * trial.chance.random())
        for _ in range(trial.chance.choice((1, 1, 2, 3))):
            with contextlib.suppress(ProcessLookupError):
                trial.kill(child.pid, number, trial.chance.choice((os.kill, os.killpg)))
            time.sleep(0.1 * trial.chance.random())
        ended = end(child)
        is_right = ended.code in (0, ENDINGS[number])
        trial.expect(is_right, f"{number.name}: {ended.code}", kind="codes")
        trial.expect(_is_over(child.pid), "processes are left", kind="wrong")
        for path in out.glob("*.png"):
            is_whole = path.read_bytes() == (trial.folder / "whole" / path.name).read_bytes()
            trial.expect(is_whole, f"{path.name} is not whole", kind="lost")
        left = [path.name for path in out.glob("*") if ".part" in path.name]
        left += [path.name for path in out.glob(".*")]
        trial.expect(left == [], f"left behind: {left}")


@fault("a signal to a run in one process", times=3)
def one_process(trial: Trial) -> None:
    interrupted(trial)


@fault("a signal to a fork that runs in one process", times=25)
def one_fork(trial: Trial) -> None:
    interrupted(trial, is_forked=True)


@fault("a signal to a run in worker processes", times=5)
def in_workers(trial: Trial) -> None:
    interrupted(trial, "--jobs", 2)


@fault("a worker crashes twice on one picture", times=3)
def crashes(trial: Trial) -> None:
    os.mkfifo(trial.folder / "a.png")
    child = trial.start(
        *("upscale", "a.png", "-o", "out/", "-m", trial.model, "--jobs", 1), start_new_session=True
    )
    for _ in range(2):
        pipe = os.open(trial.folder / "a.png", os.O_WRONLY)
        for process in of_session(child.pid):
            command = Path(f"/proc/{process}/cmdline").read_bytes()
            if process != child.pid and b"spawn_main" in command:
                os.kill(process, signal.SIGSEGV)
                while process in of_session(child.pid):
                    time.sleep(0.05)  # else the next opening may meet the one that is dying
        os.close(pipe)
    ended = trial.end(child, also=(1,))  # which is exit code 1: a crash is a bug
    trial.expect("SIGSEGV" in ended.err and "memory" not in ended.err, ended.err)
