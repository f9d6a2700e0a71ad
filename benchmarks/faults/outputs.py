"""Files of the user in the way of an output: links, pipes, other names, races."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from runner import Trial, fault


def link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def second_name(path: Path, victim: Path) -> None:
    os.link(victim, path)


def own_file(path: Path, victim: Path) -> None:
    path.write_bytes(victim.read_bytes())


def pipe(path: Path, victim: Path) -> None:
    os.mkfifo(path)


WAYS: tuple[Callable[[Path, Path], None], ...] = (link, second_name, own_file, pipe)


@fault("something of the user's is called NAME.part or NAME.part.json", times=4)
def in_the_way(trial: Trial) -> None:
    photo, victim = trial.picture("s.png"), trial.folder / "victim.txt"
    victim.write_bytes(b"dear diary, " * 50)
    for name in ("s_x4.png.part", "s_x4.png.part.json"):
        for make in WAYS:
            taken = trial.folder / name
            make(taken, victim)
            before = taken.lstat()
            with trial.guarded(victim, taken):
                ended = trial.vdsr("upscale", photo, "-m", trial.model)
            trial.expect(ended.code == 6, f"{make.__name__} {name}: exit code {ended.code}")
            is_same = os.path.samestat(before, taken.lstat())
            trial.expect(is_same, f"{make.__name__} {name} was replaced", kind="lost")
            taken.unlink()


@fault("the output is an input by another name", times=2)
def aliases(trial: Trial) -> None:
    photo, later = trial.picture("a.png"), trial.picture("a_x4.png")
    (trial.folder / "linked").symlink_to(".")
    (trial.folder / "alias.png").symlink_to("a.png")
    for words in (
        ("a.png", "-o", "alias.png"),
        ("a.png", "-o", "linked/a.png"),
        ("a.png", "linked/a_x4.png"),
        ("linked/a.png", "a_x4.png"),
    ):
        with trial.guarded(photo, later):
            ended = trial.vdsr("upscale", *words, "-m", trial.model, "--overwrite")
        trial.expect(ended.code == 2, f"{words}: exit code {ended.code}")


@fault("other commands are told to write where a file is", times=2)
def other_commands(trial: Trial) -> None:
    trial.picture("set/a.png", 64, 64)
    taken = trial.folder / "taken.png"
    taken.write_bytes(b"dear diary")
    for words in (
        ("bench", "set", "-m", "bicubic", "--metrics", "none", "--csv", taken),
        ("layers", "--codes", 1, "--plot", taken),
        ("srvae", "generate", "-n", 1, "-o", taken),
        ("cnn-vae", "figure", "-o", taken),
        ("generate", "-n", 1, "-o", taken),
        ("sample-diverse", "set/a.png", "-n", 1, "--report", taken),
    ):
        with trial.guarded(taken):
            ended = trial.vdsr(*words)
        trial.expect(ended.code == 6, f"{words[0]}: exit code {ended.code}")


@fault("two runs race for one output", times=10)
def race(trial: Trial) -> None:
    """One of them has it, with its own bytes; the other says that it lost."""
    photo = trial.picture("a.png", 64, 64)
    suffix = trial.chance.choice([".png", ".jpg"])
    children = []
    for seed in (1, 2):
        words = ["upscale", photo, "-m", trial.model, "--seed", seed, "-t", 1]
        children.append(trial.start(*words, "-o", f"b{suffix}"))
        time.sleep(trial.chance.random() * 0.3)
    codes = [trial.end(child).code for child in children]
    trial.expect(sorted(codes) == [0, 6], f"{suffix}: exit codes {codes}")
    winner = 1 + codes.index(0) if 0 in codes else 1
    words = ["upscale", photo, "-m", trial.model, "--seed", winner, "-t", 1, "-o", f"c{suffix}"]
    trial.vdsr(*words)
    contents = [(trial.folder / f"{name}{suffix}").read_bytes() for name in "bc"]
    trial.expect(contents[0] == contents[1], "the output is not the winner's", kind="lost")


@fault("the manifest is another file", times=2)
def manifests(trial: Trial) -> None:
    photo, out = trial.picture("a.png"), trial.folder / "b.png"
    others = {
        "picture.png": photo.read_bytes(),
        "diary.txt": b"dear diary,\ntoday",
        "others.jsonl": b'{"input": "a"}\n{"input": "b"}',
    }
    for name, content in others.items():
        path = trial.folder / name
        path.write_bytes(content)
        with trial.guarded(path):
            words = ["upscale", photo, "-m", trial.model, "-o", out, "--manifest", path]
            ended = trial.vdsr(*words, "--overwrite")
        trial.expect(ended.code == 6, f"{name}: exit code {ended.code}")
    for device, code in (("/dev/null", 0), ("/dev/full", 6)):
        words = ["upscale", photo, "-m", trial.model, "-o", out, "--manifest", device]
        ended = trial.vdsr(*words, "--overwrite")
        trial.expect(ended.code == code, f"{device}: exit code {ended.code}")


@fault("modes of outputs", times=1)
def modes(trial: Trial) -> None:
    photo = trial.picture("a.png")
    for suffix in (".png", ".jpg"):
        old = trial.folder / f"old{suffix}"
        old.write_bytes(b"old")
        old.chmod(0o604)
        trial.vdsr("upscale", photo, "-m", trial.model, "-o", old, "--overwrite")
        trial.expect(old.stat().st_mode & 0o777 == 0o604, f"{old.name}: its mode changed")
        new = trial.folder / f"new{suffix}"
        trial.vdsr("upscale", photo, "-m", trial.model, "-o", new, umask=0o027)
        trial.expect(new.stat().st_mode & 0o777 == 0o640, f"{new.name}: not by the umask")


@fault("a full disk", times=2)
def full_disk(trial: Trial) -> None:
    """A limit on the size of files stands for it."""
    photo, old = trial.picture("a.png", 90, 90), trial.folder / "old.png"
    old.write_bytes(b"dear diary")
    with trial.guarded(old):
        words = ["upscale", photo, "-m", trial.model, "-o", old, "--overwrite"]
        ended = trial.vdsr(*words, preexec_fn=_limited)
    trial.expect(ended.code == 6, f"exit code {ended.code}")
    left = sorted(path.name for path in trial.folder.iterdir())
    trial.expect(left == ["a.png", "old.png"], f"left: {left}")


def _limited() -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
