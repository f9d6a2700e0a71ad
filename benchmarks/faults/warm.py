"""The command in a fork of a process that has imported it: thousands of runs in minutes.

What a fork leaves out is the interpreter's start and end; children of :class:`runner.Trial` have
those.
"""

import contextlib
import os
import pkgutil
import signal
import sys
import tempfile
import time
import traceback
from functools import cache
from importlib import import_module
from pathlib import Path

from runner import MEMORY_MB, REPOSITORY, Ended, Trial

_PATIENCE_S = 60.0
"""How long a run that was told to end may take to: a training ends its step and saves first."""


@cache
def import_all() -> None:
    """Imports all of the command; what follows imports nothing of another checkout."""
    sys.path.insert(0, str(REPOSITORY))
    import vdsr_cli

    for module in pkgutil.walk_packages(vdsr_cli.__path__, "vdsr_cli."):
        if not module.name.endswith("__main__"):
            import_module(module.name)


class Fork:
    """A run that has begun, in a session of its own.

    Attributes:
        pid: of the process.
    """

    def __init__(self, trial: Trial, *words: object) -> None:
        import_all()
        self._trial = trial
        # They are closed when they have been read.
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become([*map(str, words)], trial.folder, self._out.fileno(), self._err.fileno())

    def end(self, *, also: tuple[int, ...] = (), limit_s: float = float("inf")) -> Ended:
        """Waits for its end, tells it to when its time is over, and has it judged."""
        status, memory_mb = self._wait(limit_s)
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read())
            file.close()
        code = os.waitstatus_to_exitcode(status)
        ended = Ended(
            code if code >= 0 else 128 - code,
            texts[0],
            texts[1].decode(errors="replace"),
            memory_mb,
        )
        return self._trial.judge(ended, also=also)

    def _wait(self, limit_s: float) -> tuple[int, float]:
        """Its status and the megabytes that it had at most; a run without bounds is stopped."""
        told_at = killed_at = None
        started = time.monotonic()
        while True:
            ended, status, usage = os.wait4(self.pid, os.WNOHANG)
            if ended:
                return status, usage.ru_maxrss / 1e3
            now = time.monotonic()
            if told_at is None and now - started > limit_s:
                os.kill(self.pid, signal.SIGTERM)
                told_at = now
            is_deaf = told_at is not None and now - told_at > _PATIENCE_S
            if killed_at is None and (is_deaf or _resident_mb(self.pid) > MEMORY_MB):
                self._trial.expect(not is_deaf, f"still there {_PATIENCE_S:.0f} s after SIGTERM")
                os.killpg(self.pid, signal.SIGKILL)
                killed_at = now
            time.sleep(0.005)


def _become(words: list[str], folder: Path, out: int, err: int) -> None:
    """Is the command, up to the end of the process."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command says what it does
        os.setsid()
        os.chdir(folder)
        for descriptor, number in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
            os.dup2(descriptor, number)
        os.environ.update(HOME=str(folder), VDSR_HOME=str(folder / "cache"), HF_HUB_OFFLINE="1")
        sys.argv = ["vdsr", *words]
        from vdsr_cli.__main__ import main

        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _resident_mb(process: int) -> float:
    pages = Path(f"/proc/{process}/statm").read_text().split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if pages else 0.0
