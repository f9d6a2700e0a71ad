"""Kills at random moments: an output is whole or not there, and the next run ends as any."""

import signal
import time

from runner import Trial, fault


def disturb(trial: Trial, suffix: str, numbers: tuple[signal.Signals, ...]) -> None:
    """Five runs ended at random moments, then one that is not."""
    trial.picture("a.png", 120, 120)
    started = time.monotonic()
    trial.vdsr("upscale", "a.png", "-m", trial.model, "-o", f"whole{suffix}")
    whole_s = time.monotonic() - started
    whole = (trial.folder / f"whole{suffix}").read_bytes()
    words = ["upscale", "a.png", "-m", trial.model, "-o", f"b{suffix}"]
    for _ in range(5):
        child, number = trial.start(*words, "--overwrite"), trial.chance.choice(numbers)
        time.sleep(trial.chance.random() * whole_s)
        trial.kill(child, number)
        trial.end(child, also=(128 + number,))
        path = trial.folder / f"b{suffix}"
        is_whole = not path.exists() or path.read_bytes() == whole
        trial.expect(is_whole, f"{path.name} is not whole", kind="lost")
    ended = trial.vdsr(*words, "--skip-existing")
    trial.expect(ended.code == 0, f"exit code {ended.code}")
    is_same = (trial.folder / f"b{suffix}").read_bytes() == whole
    trial.expect(is_same, "other bytes than undisturbed", kind="lost")
    left = {path.name for path in trial.folder.iterdir()}
    left -= {"a.png", f"whole{suffix}", f"b{suffix}"}
    trial.expect(not left, f"left: {left}")


@fault("SIGKILL and SIGTERM while a PNG is written", times=60)
def png(trial: Trial) -> None:
    disturb(trial, ".png", (signal.SIGTERM, signal.SIGKILL))


@fault("SIGKILL and SIGTERM while a JPEG is written", times=60)
def jpg(trial: Trial) -> None:
    disturb(trial, ".jpg", (signal.SIGTERM, signal.SIGKILL))
