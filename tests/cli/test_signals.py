"""Signals end a run wherever it is."""

import os
import signal
import subprocess
import sys

import pytest

FINALISED = """
import os, sys, time
from vdsr_cli.cli.signals import end_on_signals

class Thing:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(0.1)

def generator():
    try:
        yield
    finally:
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(0.1)

end_on_signals()
try:
    if sys.argv[2] == "object":
        thing = Thing()
        del thing
    else:
        begun = generator()
        next(begun)
        del begun
    time.sleep(30)
    print("not ended")
except KeyboardInterrupt:
    sys.exit(130)
finally:
    print("unwound")
"""


def heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run(code: str, *words: object) -> subprocess.CompletedProcess[str]:
    """A program to its end, in which Ctrl-C is not ignored, as background shells have it."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=None if sys.platform == "win32" else heed_ctrl_c,
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("what", ["object", "generator"])
def test_a_signal_within_a_finaliser_is_not_lost(number, code, what):
    """Python drops what is raised there, and would print it."""
    done = run(FINALISED, int(number), what)
    assert (done.returncode, done.stdout, done.stderr) == (code, "unwound\n", "")


SWALLOWED = """
import os, sys, time
import vdsr_cli.cli.app as app
from vdsr_cli.__main__ import main
from vdsr_cli.errors import InputError

def work(**_):
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(1)
    except BaseException as error:
        if sys.argv[2] == "its effect":
            raise RuntimeError("in the body of a class") from error
    if sys.argv[2] == "another error":
        raise ValueError("of native code")
    if sys.argv[2] == "an error of ours":
        raise InputError("of what native code has made of it")
    time.sleep(30)
    print("not ended")

app.app = work
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("instead", ["nothing", "another error", "an error of ours", "its effect"])
def test_a_signal_in_whose_place_something_else_happens_is_not_lost(number, code, instead):
    done = run(SWALLOWED, int(number), instead)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_other_errors_of_finalisers_are_still_told():
    code = FINALISED.partition("try:\n    if")[0] + "Thing.__del__ = lambda self: 1 / 0\nThing()"
    done = run(code)
    assert done.returncode == 0 and "ZeroDivisionError" in done.stderr
