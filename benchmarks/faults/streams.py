"""Standard streams that are closed, full, or whose reader has gone; a folder that is deleted."""

import os
from collections.abc import Sequence

from runner import Trial, fault

COMMANDS: Sequence[Sequence[str]] = (
    ("--version",),
    ("--help",),
    ("weights", "list", "--json"),
    ("upscale", "a.png", "--dry-run", "--json"),
)


def closing(descriptor: int) -> dict[str, object]:
    """Options of a child that begins without a descriptor."""
    return {"preexec_fn": lambda: os.close(descriptor)}


@fault("standard output is closed")
def closed_stdout(trial: Trial) -> None:
    trial.picture("a.png")
    for words in COMMANDS:
        ended = trial.vdsr(*words, **closing(1))
        trial.expect(ended.code in (0, 6), f"{words}: exit code {ended.code}")


@fault("standard input is closed")
def closed_stdin(trial: Trial) -> None:
    ended = trial.vdsr("upscale", "-", "-o", "b.png", "-m", trial.model, **closing(0))
    trial.expect(ended.code == 3, f"exit code {ended.code}")


@fault("standard output is full")
def full_stdout(trial: Trial) -> None:
    trial.picture("a.png")
    for words in COMMANDS:
        with open("/dev/full", "wb") as full:
            ended = trial.vdsr(*words, stdout=full)
        trial.expect(ended.code == 6, f"{words}: exit code {ended.code}")
        trial.expect(len(ended.err.splitlines()) <= 2, ended.err)


@fault("the reader of standard output has gone", times=5)
def reader_gone(trial: Trial) -> None:
    trial.picture("a.png")
    for words in (*COMMANDS, ("upscale", "a.png", "-o", "-", "-m", trial.model)):
        reader, writer = os.pipe()
        os.close(reader)
        ended = trial.vdsr(*words, stdout=writer)
        os.close(writer)
        trial.expect(ended.code in (0, 141), f"{words}: exit code {ended.code}")
        trial.expect(not ended.err, ended.err)


@fault("the working directory is deleted")
def deleted_folder(trial: Trial) -> None:
    photo = trial.picture("a.png")
    place = trial.folder / "gone"
    for words in (*COMMANDS, ("upscale", str(photo), "-m", trial.model, "-o", "b.png")):
        place.mkdir()
        ended = trial.vdsr(*words, preexec_fn=lambda: _enter_and_remove(str(place)))
        trial.expect(ended.code in (0, 2, 3, 6), f"{words}: exit code {ended.code}")


def _enter_and_remove(place: str) -> None:
    os.chdir(place)
    os.rmdir(place)
