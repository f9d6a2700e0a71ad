"""`vdsr upscale` over a folder: the manifest, failures tried again, runs that are ended."""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from vdsr_cli.cli.upscale import MANIFEST_NAME


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """An empty folder, an empty cache, no network."""
    monkeypatch.setenv("VDSR_HOME", str(tmp_path.parent / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def upscale(vdsr, tiny_path):
    """``upscale("shots", ...)`` with the tests' model."""
    return lambda *arguments: vdsr("upscale", "--model", tiny_path, *arguments)


@pytest.fixture
def shots(save_picture) -> Path:
    """A folder of three pictures, the second of them broken."""
    Path("shots").mkdir()
    for index, name in enumerate(("1.png", "2.png", "3.png")):
        save_picture(Path("shots", name), seed=index)
    Path("shots/2.png").write_bytes(b"broken")
    return Path("shots")


def lines(path: str = f"out/{MANIFEST_NAME}") -> list[tuple[str, str]]:
    records = map(json.loads, Path(path).read_text().splitlines())
    return [(Path(record["input"]).name, record["status"]) for record in records]


def test_what_failed_is_recorded_and_tried_again(upscale, shots, save_picture):
    assert upscale("shots", "-o", "out").code == 3
    assert lines() == [("1.png", "done"), ("2.png", "failed"), ("3.png", "done")]
    save_picture(shots / "2.png")
    save_picture(shots / "4.png")
    again = upscale("shots", "-o", "out", "--retry-failed", "--json")
    assert again.code == 0
    assert [json.loads(line)["input"] for line in again.out.splitlines()] == ["shots/2.png"]
    assert lines()[3:] == [("2.png", "done")] and not Path("out/4_x4.png").exists()
    assert upscale("shots", "-o", "out", "--retry-failed").out == b""


def test_the_manifest_may_be_elsewhere(upscale, shots):
    assert upscale("shots", "--manifest", "kept/here.jsonl").code == 3
    assert len(lines("kept/here.jsonl")) == 3
    assert not list(shots.glob("*.jsonl"))
    assert upscale("shots/1.png", "-o", "1.png", "--manifest", "one.jsonl").code == 0
    assert lines("one.jsonl") == [("1.png", "done")]


def test_what_several_folders_and_patterns_hold_beside_pictures_is_counted(upscale, shots):
    Path("shots/notes.txt").touch()
    Path("more").mkdir()
    Path("more/1.png").write_bytes(Path("shots/1.png").read_bytes())
    Path("more/read.me").touch()
    ended = upscale("shots", "more", "more/*", "-o", "out", "--manifest", "all.jsonl")
    assert ended.lines[-1] == "vdsr: 3 done, 1 failed, 2 skipped (unknown format)"
    skipped = [name for name, status in lines("all.jsonl") if status == "skipped"]
    assert sorted(skipped) == ["notes.txt", "read.me"]


@pytest.mark.parametrize("options", [(), ("--jobs", 1), ("--dry-run",)])
def test_every_folder_that_cannot_be_listed_is_told_beside_all_else(
    upscale, shots, save_picture, monkeypatch, options
):
    scandir = os.scandir

    def guarded(folder):
        if Path(folder).name in ("one", "two"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    for name in ("one", "two"):
        (shots / name).mkdir()
    save_picture(shots / "3_x4.png")
    (shots / "2.png").unlink()
    Path("out").mkdir()
    Path("out/1_x4.png").touch()
    monkeypatch.setattr(os, "scandir", guarded)
    ended = upscale("-r", shots, "-o", "out", *options)
    unread = [f"vdsr: shots/{name}: cannot be read: permission denied" for name in ("one", "two")]
    assert ended.code == 6 and ended.lines[-2:] == unread
    if options != ("--dry-run",):
        told = ["vdsr: 1 earlier outputs are not upscaled again", "vdsr: 1 done, 1 failed"]
        assert ended.lines[-4:-2] == told


def test_what_a_run_leaves_is_nothing_unknown_to_the_next(upscale, shots, save_picture):
    """Of one folder and of several, with its manifest and an output that is unfinished."""
    save_picture(shots / "2.png")
    Path("more").mkdir()
    assert upscale("shots", "-o", "shots").lines == ["vdsr: 3 done"]
    for name in ("1_x4.png.part", "1_x4.png.part.json", "others.png.part", "2_x4.json"):
        (shots / name).write_text("none")
        Path("more", name).write_text("none")
    ended = upscale("shots", "-o", "shots", "--skip-existing")
    assert ended.lines[-1] == "vdsr: 0 done, 3 skipped (exist), 2 skipped (unknown format)"
    save_picture(Path("more/9.png"))
    ended = upscale("shots", "more", "--skip-existing")
    assert ended.lines[-1] == "vdsr: 1 done, 3 skipped (exist), 4 skipped (unknown format)"


def test_one_picture_among_other_files_has_a_closing_line(upscale, shots):
    for name in ("2.png", "3.png"):
        (shots / name).unlink()
    assert upscale("shots", "-o", "out").err == ""
    (shots / "notes.txt").touch()
    ended = upscale("shots", "-o", "again")
    assert ended.lines == ["vdsr: 1 done, 1 skipped (unknown format)"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["shots/1.png", "--ray-address", "head:6379"], "--ray-address is of a cluster"),
        (["shots", "--retry-failed"], "needs a manifest"),
        (["-", "-o", "a.png", "--jobs", "2"], "one process"),
        (["shots/1.png", "-o", "-", "--jobs", "2"], "one process"),
    ],
)
def test_2_what_does_not_go_together(upscale, shots, options, words):
    ended = upscale(*options)
    assert ended.code == 2 and words in ended.lines[0] and len(ended.lines) == 2


posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes are POSIX's")


@pytest.fixture
def started(start_vdsr, tiny_path, save_picture):
    """A run with one worker that has made one picture and waits for the bytes of the next."""
    save_picture(Path("1.png"))
    os.mkfifo("2.png")
    child = start_vdsr(
        "upscale", "-m", tiny_path, "1.png", "2.png", "-o", "out", "--jobs", 1, "--json",
        "--manifest", "m.jsonl", start_new_session=True,
    )  # fmt: skip
    assert json.loads(child.stdout.readline())["status"] == "done"
    pipe = os.open("2.png", os.O_WRONLY)
    yield child
    os.close(pipe)


def of_session(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(folder.name))
    return found


@posix
@pytest.mark.parametrize(
    ("number", "times", "reaches", "code"),
    [
        (signal.SIGINT, 4, os.killpg, 130),
        (signal.SIGTERM, 1, os.kill, 143),
        (signal.SIGTERM, 2, os.killpg, 143),
    ],
)
def test_a_signal_ends_the_workers(started, number, times, reaches, code):
    """At once, however often it comes and whom it reaches."""
    for _ in range(times):
        with contextlib.suppress(ProcessLookupError):
            reaches(started.pid, number)
        time.sleep(0.02)
    out, err = started.communicate(timeout=60)
    assert started.returncode == code
    assert out == b"" and b"Traceback" not in err and len(err.splitlines()) <= 1, err
    deadline = time.monotonic() + 5  # a killed process takes a moment to go
    while (left := of_session(started.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []
    assert lines("m.jsonl") == [("1.png", "done")]
    assert os.listdir("out") == ["1_x4.png"]


@posix
def test_a_killed_run_goes_on(started, upscale, save_picture):
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    Path("2.png").unlink()
    save_picture(Path("2.png"))
    with Path("m.jsonl").open("a") as manifest:
        manifest.write('{"input": "/torn')
    options = ("1.png", "2.png", "-o", "out", "--manifest", "m.jsonl", "--skip-existing")
    assert upscale(*options).code == 0
    assert lines("m.jsonl") == [("1.png", "done"), ("2.png", "done")]
    assert sorted(os.listdir("out")) == ["1_x4.png", "2_x4.png"]
