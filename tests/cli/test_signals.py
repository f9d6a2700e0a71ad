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
finally:
    print("unwound")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("what", ["object", "generator"])
def test_a_signal_within_a_finaliser_is_not_lost(number, what):
    """Python drops what is raised there, and would print it."""
    done = subprocess.run(
        [sys.executable, "-c", FINALISED, str(int(number)), what],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "unwound\n"
    if number == signal.SIGTERM:
        assert (done.returncode, done.stderr) == (143, "")
    else:
        assert done.returncode == -signal.SIGINT and "ignored" not in done.stderr


def test_other_errors_of_finalisers_are_still_told():
    code = FINALISED.partition("try:\n    if")[0] + "Thing.__del__ = lambda self: 1 / 0\nThing()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "ZeroDivisionError" in done.stderr
