"""Locales, clocks, names and a device without memory: what a run is not to depend on."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

from vdsr_cli.models.compact import CompactVDVAESR

ODD_NAMES = [
    b"two\nlines.png",
    b"--dash.png",
    b"-o.png",
    b"[bold].png",
    b"*.png",
    b" both ends .png ",
    b"ends in a space .png",
    b"caf\xe9 \xff.png",
    "ü€😀.png".encode(),
    b"tab\t\x1b[31m.png",
    b"n" * 248 + b".png",
]


@pytest.fixture
def named(tmp_path, save_picture):
    """``named(name)``: a picture of that name, given in bytes, below the working folder."""
    content = save_picture(tmp_path / "plain.png").read_bytes()

    def make(name: bytes):
        path = tmp_path / os.fsdecode(name)
        try:
            path.write_bytes(content)
        except OSError:
            pytest.skip("this disk does not take that name")
        return path

    return make


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_names(vdsr, tmp_path, monkeypatch, named, tiny_path, name):
    """One valid line of JSON each, done or refused, and the output under its own name."""
    monkeypatch.chdir(tmp_path)
    path = named(name)
    ended = vdsr("upscale", "-m", tiny_path, "--json", "-o", "out/", "--", path.name)
    (line,) = ended.out.splitlines()
    row = json.loads(line)
    assert row["input"] == path.name
    assert all(line.isprintable() for line in ended.lines)
    if ended.code:
        assert ended.code == 6 and "too long" in ended.err and row["status"] == "failed"
    else:
        with Image.open(row["output"]) as image:
            assert image.size == (48, 32)
    assert not list((tmp_path / "out").glob("*.part*"))


@pytest.mark.parametrize("name", [n for n in ODD_NAMES if len(n) < 200])
def test_names_of_many_outputs(vdsr, tmp_path, monkeypatch, named, tiny_path, name):
    """On the sheet, in the report and on stdout, where a name is one line that nothing obeys."""
    monkeypatch.chdir(tmp_path)
    path = named(name)
    words = [f"./{path.name}", "-n", 2, "-m", tiny_path, "--dtype", "float32"]
    words += ["-o", "out/", "--report", "report.html"]
    planned = vdsr("sample-diverse", *words, "--dry-run")
    ended = vdsr("sample-diverse", *words)
    assert ended.code == planned.code == 0, ended.err
    for out in (planned.out, ended.out):
        assert b"\x1b" not in out and b"\t" not in out
    assert len(planned.out.splitlines()) == len(list((tmp_path / "out").iterdir())) + 1
    assert len(ended.out.splitlines()) == len(planned.out.splitlines()) + 1
    (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("format", ["png", "jpg"])
def test_an_output_of_the_longest_name(vdsr, tmp_path, tiny_path, save_picture, format):
    save_picture(tmp_path / "a.png")
    for length in (243, 246, 250, 251):
        output = tmp_path / "out" / f"{'n' * length}.{format}"
        assert vdsr("upscale", tmp_path / "a.png", "-m", tiny_path, "-o", output).code == 0
        assert list(output.parent.iterdir()) == [output]
        output.unlink()


ENVIRONMENTS = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "nowhere/at-all"},
    {"LC_ALL": "de_DE.UTF-8", "PYTHONIOENCODING": "cp1252", "TZ": "Pacific/Kiritimati"},
]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=str)
def test_locales(tmp_path, tiny_path, named, environment):
    """The same bytes, and names come out as they are on the disk, in any of them."""
    named(os.fsencode("ü€.png"))
    words = [b"upscale", b"-m", os.fsencode(tiny_path), b"-t", b"0.8", os.fsencode("ü€.png")]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "PYTHONIO"))}
    command = [os.fsencode(sys.executable), b"-m", b"vdsr_cli", *words]
    ended = subprocess.run(
        command, env={**clean, **environment}, cwd=tmp_path, capture_output=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith(b" s)\n")
    assert len(ended.stdout.splitlines()) == 1
    assert os.path.exists(tmp_path / "ü€_x4.png")


def test_a_stream_without_our_letters_gets_escapes(monkeypatch):
    """Such as the ± of a table: it is no reason to lose the table."""
    import io

    from vdsr_cli.cli import app

    monkeypatch.setattr(sys, "argv", ["vdsr", "--version"])
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit):
        app.main()
    before = len(out.buffer.getvalue())
    out.write("1 ±é\udce9\udcff.")
    assert out.buffer.getvalue()[before:] == b"1 \\xb1\\xe9\xe9\xff."


def test_a_clock_that_is_set_back(vdsr, tmp_path, tiny_path, save_picture, monkeypatch):
    """Nothing is measured by the time of day, and no result depends on it."""
    save_picture(tmp_path / "a.png", 40, 60)
    words = ["upscale", tmp_path / "a.png", "-m", tiny_path, "--json"]
    first = json.loads(vdsr(*words, "-o", tmp_path / "1.png").out)
    moments = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr(time, "time", lambda: float(next(moments)))
    second = json.loads(vdsr(*words, "-o", tmp_path / "2.png").out)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    assert min(first["seconds"], second["seconds"]) >= 0


# A device whose memory runs out


@pytest.fixture
def run_out(monkeypatch):
    """``run_out(k)``: the first k calls of the model find no memory; gives the batches."""

    def inject(calls: int) -> list[int]:
        real, batches = CompactVDVAESR.means, []

        def means(self, lr, *arguments, **options):
            batches.append(lr.shape[0] * lr.shape[2] * lr.shape[3])
            if len(batches) <= calls:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
            return real(self, lr, *arguments, **options)

        monkeypatch.setattr(CompactVDVAESR, "means", means)
        return batches

    return inject


@pytest.mark.parametrize("calls", [1, 2])
def test_memory_that_runs_out_costs_the_batch_alone(
    vdsr, tmp_path, tiny_path, save_picture, run_out, calls
):
    save_picture(tmp_path / "a.png", 200, 100)  # so wide that the batch does not decide the rows
    words = ["upscale", tmp_path / "a.png", "-m", tiny_path, "--tile", 32, "--batch-size"]
    assert vdsr(*words, 8 >> calls, "-o", tmp_path / "whole.png").code == 0
    batches = run_out(calls)
    assert vdsr(*words, 8, "-o", tmp_path / "out" / "a.png").code == 0
    assert batches[calls] < batches[0], "it is halved"
    assert (tmp_path / "out" / "a.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_5_no_memory_for_one_tile(vdsr, tmp_path, tiny_path, save_picture, run_out):
    """The picture fails with the documented code; the next one is none the worse."""
    save_picture(tmp_path / "a.png", 60, 40)
    save_picture(tmp_path / "b.png", 60, 40)
    run_out(1)
    ended = vdsr(
        "upscale", tmp_path / "a.png", tmp_path / "b.png", "-m", tiny_path, "--tile", 32,
        "--batch-size", 1, "-o", tmp_path / "out/", "--json",
    )  # fmt: skip
    first, second = map(json.loads, ended.out.splitlines())
    assert ended.code == 5 and first["status"] == "failed" and second["status"] == "done"
    assert "does not fit into memory" in ended.err and "hint: try" in ended.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b_x4.png"]
