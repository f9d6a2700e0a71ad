"""Kills at random moments: an output is whole or not there, and the next run ends as any."""

import signal
import time

from runner import Ended, Trial, fault
from warm import Fork, import_all

SIGNALS = (signal.SIGTERM, signal.SIGKILL)


def disturb(trial: Trial, suffix: str, *, is_forked: bool) -> None:
    """Five runs ended at random moments, then one that is not."""
    import_all()
    trial.picture("a.png", 120, 120)
    words = ("upscale", "a.png", "-m", trial.model)

    def run(*more: object, disturbed_after_s: float | None = None) -> Ended:
        child = (Fork if is_forked else Trial.start)(trial, *words, *more)
        if disturbed_after_s is None:
            return child.end() if isinstance(child, Fork) else trial.end(child)
        time.sleep(disturbed_after_s)
        number = trial.chance.choice(SIGNALS)
        trial.kill(child.pid, number)
        also = (128 + number,)
        return child.end(also=also) if isinstance(child, Fork) else trial.end(child, also=also)

    started = time.monotonic()
    run("-o", f"whole{suffix}")
    whole_s = time.monotonic() - started
    whole = (trial.folder / f"whole{suffix}").read_bytes()
    path = trial.folder / f"b{suffix}"
    for _ in range(5):
        run("-o", path, "--overwrite", disturbed_after_s=trial.chance.random() * whole_s)
        is_whole = not path.exists() or path.read_bytes() == whole
        trial.expect(is_whole, f"{path.name} is not whole", kind="lost")
    ended = run("-o", path, "--overwrite")
    trial.expect(ended.code == 0, f"exit code {ended.code}")
    is_same = path.read_bytes() == whole
    trial.expect(is_same, "other bytes than undisturbed", kind="lost")
    left = {found.name for found in trial.folder.iterdir()}
    left -= {"a.png", f"whole{suffix}", path.name}
    trial.expect(not left, f"left: {left}")


@fault("SIGKILL and SIGTERM while a PNG is written", times=4)
def png(trial: Trial) -> None:
    disturb(trial, ".png", is_forked=False)


@fault("SIGKILL and SIGTERM while a JPEG is written", times=4)
def jpg(trial: Trial) -> None:
    disturb(trial, ".jpg", is_forked=False)


@fault("SIGKILL and SIGTERM to a fork while a PNG is written", times=25)
def png_of_a_fork(trial: Trial) -> None:
    disturb(trial, ".png", is_forked=True)


@fault("SIGKILL and SIGTERM to a fork while a JPEG is written", times=25)
def jpg_of_a_fork(trial: Trial) -> None:
    disturb(trial, ".jpg", is_forked=True)
