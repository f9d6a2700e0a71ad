"""Command lines of anything: every command, its options, and values that are sound or are not."""

import contextlib
import os
import signal
import stat
from collections.abc import Container, Iterator, Sequence
from enum import Enum
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from runner import Trial, fault
from warm import Fork, import_all

LINES_A_TRIAL = 50
LIMIT_S, SERVING_S = 5.0, 1.0
"""A line may ask for what takes for ever: after this it is told to end."""
ANYTHING = (
    "", "-", "--", "0", "1", "-1", "2", "4", "0.5", "1e-30", "1e999", "nan", "inf", "-inf", "0x10",
    "9" * 40, "9" * 5000, str(2**31), str(2**63), str(2**64), "auto", "none", "all", "true", "x",
    "\n", "\t", "\x1b[31m", "é", "\udcff", "%s", "{}", "[", "*", "**", "?", "~", "~nobody", "$HOME",
    "a,b", "0,0.8", ",", "=", "k=v", "k=0.5", "mean", "png", "jpg", "cpu", "cuda", "float32",
    "bicubic", "vdvae-sr-x4-tiny", "vdvae-x4-prior", "openai/cifar10", "hf://", "hf://a/b",
    "hf://a/b@c/d.safetensors", "memory://", "memory://x//y", "http://127.0.0.1:9/", "http://[",
    "1x1", "24x16", "64x64", "5%", "1MP", "1:2", "n" * 300,
)  # fmt: skip
NUMBERS = (*"0123468", "16", "24", "64", "100", "-1", "1000000", str(2**31), str(2**63 - 1))
FRACTIONS = ("0.1", "0.5", "0.8", "1.5", "2.7", "1e-9", "1e9")
PLACES = (
    "a.png", "b.jpg", "small.png", "bad.png", "empty.png", "notes.txt", "in", "in/", "in/*.png",
    "nothing.png", "hollow", "run", "run/last.pt", "bad.safetensors", "link.png", "loop",
    "dangling.png", "linked/a.png", "./a.png", "a.png/", "a.png/x", ".", "/dev/null", "/dev/full",
    "/proc/self/mem", "/dev/stdin", "out.png", "out", "out/", "new/deep/out.png",
    "rows.csv", "plot.svg", "r.html", "m.jsonl", "locked", "locked/x.png", "s.toml",
)  # fmt: skip
BASES: dict[str, Sequence[str]] = {
    "upscale": ("a.png", "-m", "MODEL"),
    "sample-diverse": ("a.png", "-m", "MODEL", "-n", "2"),
    "generate": ("-n", "1", "--size", "64x64"),
    "bench": ("in", "-m", "bicubic", "--metrics", "none"),
    "serve": ("--port", "0", "-m", "MODEL"),
    "train vdvae-sr": ("in", "--from", "MODEL", "--out", "run-1"),
    "train export": ("run", "-o", "out.safetensors"),
    "layers": ("--codes", "1"),
    "weights info": ("vdvae-sr-x4-tiny",),
    "weights path": ("vdvae-sr-x4-tiny",),
    "weights verify": ("vdvae-sr-x4-tiny",),
    "weights convert": ("run/last.pt", "-o", "out.safetensors"),
    "srvae super-resolve": ("in/c.png", "-o", "sheet.png"),
    "srvae reconstruct": ("in/c.png", "-o", "sheet.png"),
    "srvae generative-reconstruct": ("in/c.png", "-o", "sheet.png"),
    "srvae score": ("in",),
}
SHORT = ("--steps", "1", "--batch", "1", "--lr-size", "8", "--val-every", "0")
"""Options that keep a training short."""


@fault("command lines of anything", times=100)
def lines(trial: Trial) -> None:
    import_all()
    furnish(trial)
    own = contents(trial.folder)
    for _ in range(LINES_A_TRIAL):
        if trial.chance.random() < 0.3:
            remove_outputs(trial.folder, own)
        words, noted = line(trial), len(trial.wrongs)
        limit_s = SERVING_S if "serve" in words else LIMIT_S
        child = Fork(trial, *words)
        ended = child.end(limit_s=limit_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # what it has started
        trial.counts["told"] += ended.code == 143
        is_said = ended.code in (0, 143) or bool(ended.err.strip())
        trial.expect(is_said, f"exit code {ended.code} and no word")
        now = contents(trial.folder)
        for path in own:
            is_same = own[path] == now.get(path) or may_be_replaced(path, words)
            trial.expect(is_same, f"{path.name} was lost or changed", kind="lost")
        own = {path: now[path] for path in own if path in now}
        trial.wrongs[noted:] = [f"{text} by {words}" for text in trial.wrongs[noted:]]


def furnish(trial: Trial) -> None:
    """Files of the user: sound, damaged, linked and locked."""
    folder = trial.folder
    for name in ("a.png", "b.jpg", "in/c.png", "in/d.png"):
        trial.picture(name, 40, 32)
    trial.picture("small.png", 1, 1)
    (folder / "bad.png").write_bytes((folder / "a.png").read_bytes()[:80])
    (folder / "empty.png").touch()
    (folder / "notes.txt").write_text("dear diary")
    (folder / "s.toml").write_text("steps = 1\n[")
    (folder / "bad.safetensors").write_bytes(b"\xff" * 30)
    for name in ("hollow", "run", "locked"):
        (folder / name).mkdir()
    (folder / "run" / "last.pt").write_bytes(b"PK\3\4 no checkpoint")
    (folder / "link.png").symlink_to("a.png")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "linked").symlink_to(".")
    (folder / "locked").chmod(0o500)


def line(trial: Trial) -> list[str]:
    """A command, some of its options with values, and places."""
    chance = trial.chance
    name, options, takes_places = chance.choice(commands())
    if chance.random() < 0.4:
        most_used = [each for each in commands() if each[0] in ("upscale", "sample-diverse")]
        name, options, takes_places = chance.choice(most_used)
    words = [*name.split()]
    is_based = chance.random() < 0.9
    if is_based:
        base = BASES.get(name, ("in", "--out", "run-1") if name.startswith("train") else ())
        words += [trial.model if word == "MODEL" else word for word in base]
    for _ in range(chance.randrange(5) if options else 0):
        option = chance.choice(options)
        words.append(chance.choice([*option.opts, *option.secondary_opts]))
        if not option.is_flag:
            words.append(value(chance, option))
    if name.startswith("train") and name != "train export":
        words += SHORT
    if takes_places:
        more = chance.choice((0, 0, 0, 1, 2)) if is_based else chance.choice((0, 1, 2))
        words += [chance.choice(PLACES) for _ in range(more)]
    if chance.random() < 0.05:
        words.insert(chance.randrange(len(words) + 1), chance.choice(ANYTHING))
    return [word.replace("\0", "") for word in words]


@cache
def commands() -> list[tuple[str, list[Any], bool]]:
    """Every command by its words, with its options, and whether it takes other words."""
    import typer

    from vdsr_cli.cli.app import app

    def leaves(command: Any, words: str) -> Iterator[tuple[str, list[Any], bool]]:
        for name, below in getattr(command, "commands", {}).items():
            yield from leaves(below, f"{words} {name}".strip())
        if not hasattr(command, "commands"):
            options = [each for each in command.params if each.param_type_name == "option"]
            yield words, options, len(options) < len(command.params)

    return list(leaves(typer.main.get_command(app), ""))


def value(chance: Random, option: Any) -> str:
    """Mostly something of the option's type; of texts and paths, a place or anything."""
    kind = option.type_descriptor.annotation
    if chance.random() < 0.1:
        return chance.choice(ANYTHING)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return str(chance.choice([each.value for each in kind if each.value != "ray"]))
    if kind in (int, float):
        return chance.choice(NUMBERS if kind is int else (*NUMBERS, *FRACTIONS))
    return chance.choice(PLACES if chance.random() < 0.6 else ANYTHING)


def contents(folder: Path) -> dict[Path, object]:
    """Every file below a folder, links not followed."""
    found: dict[Path, object] = {}
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                found[path] = path.read_bytes()
            elif stat.S_ISLNK(mode):
                found[path] = os.readlink(path)
    return found


def remove_outputs(folder: Path, own: Container[Path]) -> None:
    """Removes files that are not the user's own."""
    for path in contents(folder):
        if path not in own:
            path.unlink()


def may_be_replaced(path: Path, words: Sequence[str]) -> bool:
    """Whether a line asks for that: with --overwrite, and the name behind an option."""
    options = {word for before, word in pairwise(words) if before.startswith("-")}
    return "--overwrite" in words and path.name in {Path(word).name for word in options}
