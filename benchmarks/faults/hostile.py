"""Run folders, trees of folders and names of files that nobody sane would make."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from runner import Trial, fault

NAMES = (b"two\nlines.png", b"caf\xe9 \xff.png", b"\x1b[31m.png", b"tab\t.png", b"--dash.png")


def archive(pickle: bytes, *, compression: int = zipfile.ZIP_STORED, zeros: int = 0) -> bytes:
    """A checkpoint's archive with this pickle in it, and a record of zeros."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as made:
        made.writestr("archive/data.pkl", pickle)
        made.writestr("archive/data/0", bytes(zeros))
    return stream.getvalue()


@fault("checkpoints of a few bytes that ask for gigabytes, or run code")
def hostile_checkpoints(trial: Trial) -> None:
    contents = {
        "a buffer": b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        "code": b"cos\nsystem\n(S'touch hacked'\ntR.",
        "zeros, compressed": archive(
            b"\x80\x02}.", compression=zipfile.ZIP_DEFLATED, zeros=1_200_000_000
        ),
        "sets": archive(b"\x80\x04" + b"\x8f" * 4_000_000 + b"."),
        "lists": archive(b"\x80\x02" + b"]" * 4_000_000 + b"."),
    }
    for name, content in contents.items():
        run = trial.folder / "run"
        run.mkdir(exist_ok=True)
        (run / "last.pt").write_bytes(content)
        ended = trial.vdsr("train", "export", "run", "-o", "out.safetensors")
        trial.expect(ended.code == 4, f"{name}: exit code {ended.code}")
        trial.expect(ended.memory_mb < 800, f"{name}: {ended.memory_mb:.0f} MB", kind="memory")
    trial.expect(not (trial.folder / "hacked").exists(), "code has run")


def train(trial: Trial, *words: object) -> tuple[object, ...]:
    """A training of one step."""
    options = ("--from", trial.model, "--steps", 1, "--batch", 1, "--lr-size", 8, "--val-every", 0)
    return ("train", "vdvae-sr", "in", *options, "--out", "run", "--device", "cpu", "-q", *words)


@fault("two trainings in one folder; seeds of any size; a log of nonsense; pictures of NaN")
def trainings(trial: Trial) -> None:
    trial.picture("in/a.png", 64, 64)
    first, second = (trial.start(*train(trial, "--steps", 200)) for _ in range(2))
    first_ended, second_ended = trial.end(first), trial.end(second)
    codes = sorted((first_ended.code, second_ended.code))
    trial.expect(codes == [0, 6], f"two at once: exit codes {codes}")
    notes = trial.folder / "run" / ".vdsr-notes.txt"
    notes.write_text("mine")
    log = trial.folder / "run" / "log.jsonl"
    log.write_bytes(b'[1]\n{"step": "x"}\nnull\n\xff\n' + json.dumps({"step": 1}).encode() + b"\n{")
    with trial.guarded(notes):
        for seed in (2**63, 2**64, 10**30):
            ended = trial.vdsr(*train(trial, "--steps", 201, "--seed", seed))
            trial.expect(ended.code == 0, f"seed {seed}: exit code {ended.code}")
    Image.fromarray(np.full((64, 64), np.nan, np.float32)).save(trial.folder / "in" / "nan.tiff")
    ended = trial.vdsr(*train(trial, "--steps", 202))
    is_told = ended.code == 0 and "left out" in ended.err and "nan.tiff" in ended.err
    trial.expect(is_told, f"NaN: {ended.code} {ended.err}")


@fault("1,200 folders in one another")
def deep_folders(trial: Trial) -> None:
    content = trial.picture("plain.png").read_bytes()
    levels = [trial.folder.joinpath(*["d"] * depth) for depth in range(1, 1201)]
    for level in levels:
        os.mkdir(level)
    (levels[-1] / "a.png").write_bytes(content)
    for inputs in (("d",), ("d", "plain.png")):
        ended = trial.vdsr("upscale", "-r", *inputs, "-o", "out/", "--dry-run")
        trial.expect(ended.code == 0 and b"a_x4.png" in ended.out, f"exit code {ended.code}")
    (levels[-1] / "a.png").unlink()
    for level in reversed(levels):
        os.rmdir(level)


@fault("names that are no text, or that a terminal obeys")
def odd_names(trial: Trial) -> None:
    content = trial.picture("plain.png").read_bytes()
    for name in NAMES:
        path = trial.folder / os.fsdecode(name)
        path.write_bytes(content)
        given = f"./{path.name}"
        for words in (
            ("upscale", given, "-o", "up/"),
            ("sample-diverse", given, "-n", 2, "-o", "many/", "--report", "r.html", "--overwrite"),
        ):
            ended = trial.vdsr(*words, "-m", trial.model)
            trial.expect(ended.code == 0, f"{name!r}: exit code {ended.code}")
            is_plain = not {b"\x1b", b"\t"} & {ended.out[i : i + 1] for i in range(len(ended.out))}
            trial.expect(is_plain, f"{name!r}: {ended.out!r}")


@fault("pictures that vanish while a run is under way", times=5)
def vanishing(trial: Trial) -> None:
    paths = [trial.picture(f"in/{index:03}.png") for index in range(30)]
    child = trial.start("upscale", "in", "-o", "out", "-m", trial.model, "--json")
    assert child.stdout is not None
    child.stdout.readline()
    for path in trial.chance.sample(paths[15:], 5):
        path.unlink()
    ended = trial.end(child)
    rows = [json.loads(line) for line in ended.out.splitlines()]
    trial.expect(len(rows) == 29, f"{len(rows)} more rows of 29", kind="lost")
    trial.expect(ended.code in (0, 3), f"exit code {ended.code}")
    names = {Path(row["input"]).name for row in rows}
    trial.expect(len(names) == len(rows), "a picture came twice")
