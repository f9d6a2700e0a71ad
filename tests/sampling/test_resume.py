"""Outputs that are written while they are made: the same bytes, killed or not, whole or not."""

import io
import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loaded import CPU, smooth
from PIL import Image

from vdsr_cli.config import Temperatures
from vdsr_cli.images import PictureFile, read_picture
from vdsr_cli.loading import LoadedModel
from vdsr_cli.paths import Source
from vdsr_cli.sampling.engine import SamplingSettings, plan_for, sample_strips
from vdsr_cli.sampling.fingerprint import fingerprint
from vdsr_cli.sampling.noise import NoiseField
from vdsr_cli.sampling.pipeline import draw_canvases
from vdsr_cli.sampling.strips import StripSource, projected_strips, resized_strips, sampled_strips
from vdsr_cli.services.upscale import UpscaleRequest, plan_picture, upscale_file

SETTINGS = SamplingSettings(temperature=0.8, tile=16, overlap=4, batch_size=1)


@pytest.fixture(scope="module")
def loaded(tiny_model) -> LoadedModel:
    card = {"degradation": "bicubic"}
    return LoadedModel(name="tiny", model=tiny_model, record=None, card=card, parameters=1)


@pytest.fixture
def often(monkeypatch):
    """A journal at every occasion, and many of them."""
    monkeypatch.setattr("vdsr_cli.consistency.strips._BLOCK_ROWS", 0)
    monkeypatch.setattr("vdsr_cli.images.resumable.JOURNAL_EVERY_S", 0.0)
    monkeypatch.setattr("vdsr_cli.images.segments._SEGMENT_BYTES", 700)


def save_input(path: Path, height: int, width: int, *, mode: str = "RGB") -> Path:
    rough = torch.rand(1, len(mode), 5, 4, generator=torch.Generator().manual_seed(1))
    smooth = F.interpolate(rough, size=(height, width), mode="bicubic").clamp(0, 1)[0]
    levels = (smooth * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(levels.squeeze() if mode == "L" else levels, mode=None).save(path)
    return path


def run(path: Path, output: Path, loaded: LoadedModel, **options):
    request = UpscaleRequest(**{"settings": SETTINGS, **options})
    streams = {"stdin": io.BytesIO(), "stdout": io.BytesIO()}
    return upscale_file(Source(path=path), output, loaded, request, CPU, **streams)


def test_what_is_resumed_was_drawn_at_the_same_temperatures(loaded, tmp_path):
    picture = read_picture(save_input(tmp_path / "a.png", 8, 8))

    def identity(temperature):
        settings = asdict(replace(SETTINGS, temperature=temperature))
        return fingerprint(picture, loaded, CPU, settings)

    kinds = (0.5, Temperatures("0.5,16:0.5"), Temperatures("0.5,16:0.2"), Temperatures("0.5,8:0.2"))
    assert len(set(map(identity, kinds))) == len(kinds)
    assert identity(Temperatures("8:1,16:0.5")) == identity(Temperatures("16:0.5,8:1"))


class Killed(BaseException):
    """Ends a run between two puts."""


def interrupt_after(monkeypatch, puts: int) -> None:
    real, done = PictureFile.put_rows, []

    def put_rows(self, *rows):
        if len(done) == puts:
            raise Killed
        done.append(1)
        real(self, *rows)

    monkeypatch.setattr(PictureFile, "put_rows", put_rows)


KINDS = [(2, "L", ".png"), (2.5, "RGBA", ".tif"), (4, "RGBA", ".png"), (4, "L", ".tif")]


@pytest.mark.parametrize(("scale", "mode", "suffix"), [*KINDS, (8, "RGB", ".png")])
def test_streamed_is_unstreamed(loaded, tmp_path, scale, mode, suffix):
    source = save_input(tmp_path / "a.png", 40, 12, mode=mode)
    assert run(source, tmp_path / f"b{suffix}", loaded, scale=scale).status == "done"
    request = UpscaleRequest(settings=SETTINGS, scale=scale)
    picture = read_picture(source)
    [canvas] = draw_canvases(picture, plan_picture(picture, loaded, request, CPU), CPU)
    canvas.save(tmp_path / f"c{suffix}")
    assert (tmp_path / f"b{suffix}").read_bytes() == (tmp_path / f"c{suffix}").read_bytes()
    with Image.open(tmp_path / f"b{suffix}") as written:
        assert np.array_equal(np.asarray(written).reshape(canvas.levels().shape), canvas.levels())


CASES = [
    (".png", {"scale": 4}, "RGB", 130),
    (".tif", {"scale": 4}, "RGBA", 130),
    (".png", {"scale": 4, "consistency": False}, "RGB", 60),
    (".png", {"scale": 8}, "RGB", 130),
    (".png", {"scale": 2}, "L", 120),
]


@pytest.mark.parametrize(("suffix", "options", "mode", "height"), CASES)
def test_interrupted_at_every_strip(
    loaded, tmp_path, monkeypatch, often, suffix, options, mode, height
):
    source = save_input(tmp_path / "a.png", height, 15, mode=mode)
    whole, parts = tmp_path / f"whole{suffix}", tmp_path / f"parts{suffix}"
    assert run(source, whole, loaded, **options).status == "done"
    rows: list[int] = []
    result = None
    while result is None:
        with monkeypatch.context() as patch:
            # The first put of a run that goes on is what a strip has left behind a segment's end.
            interrupt_after(patch, puts=3 if rows else 1)
            try:
                result = run(source, parts, loaded, **options)
            except Killed:
                assert not parts.exists()
                journal = json.loads((tmp_path / f"parts{suffix}.part.json").read_text())
                assert not rows or journal["state"]["rows"] > rows[-1], "it gets ahead"
                rows.append(journal["state"]["rows"])
    assert result.status == "done"
    assert len(rows) > 1
    assert result.notes == (
        f"continued an earlier run from row {rows[-1]} of {height * options['scale']}",
    )
    assert parts.read_bytes() == whole.read_bytes()
    assert list(tmp_path.glob("parts*")) == [parts]


# Sources that begin in their middle


def assert_same_from_anywhere(source: StripSource) -> int:
    """Whatever strip a source begins with, the strips are the same, bit for bit.

    Returns how often it was drawn from."""
    whole = list(source.draw(0))
    assert [strip.shape[2] for strip in whole] == list(np.diff(source.tops))
    some = {1, 2, len(whole) // 2, len(whole) - 2, len(whole) - 1} & set(range(1, len(whole)))
    for first in some:
        later = list(source.draw(first))
        assert len(later) == len(whole) - first
        assert all(torch.equal(a, b) for a, b in zip(later, whole[first:], strict=True))
    return 1 + len(some)


def cut_up(picture: torch.Tensor, rows: int) -> StripSource:
    """A picture in strips of so many rows."""
    tops = (*range(0, picture.shape[1], rows), picture.shape[1])
    strips = picture.unsqueeze(0).split(rows, dim=2)
    return StripSource(tops=tops, draw=lambda first: iter(strips[first:]))


@pytest.mark.parametrize(
    ("height", "output"), [(40, "mean"), (43, "sample"), (32, "mean"), (9, "mean")]
)
def test_sampling_from_any_strip_on(tiny_model, height, output):
    """Heights where the last row of tiles overlaps more than one other, too."""
    settings = SamplingSettings(temperature=0.8, tile=16, overlap=8, batch_size=2, output=output)
    told: list[int] = []
    noises = [NoiseField(seed=0, sample=0)]
    lr, plan = smooth(height, 8), plan_for(tiny_model, height, 8, settings)
    source = sampled_strips(tiny_model, lr, plan, settings, noises, CPU, told.append)
    draws = assert_same_from_anywhere(source)
    assert sum(told) == plan.tiles * draws, "tiles that are left out count"


@pytest.mark.parametrize(("stride", "scale"), [(10, 2), (24, 4), (48, 3)])
def test_projecting_from_any_strip_on(stride, scale, often):
    lr = torch.rand(3, 150, 9, generator=torch.Generator().manual_seed(0))
    sr = torch.rand(3, 150 * scale, 9 * scale, generator=torch.Generator().manual_seed(1))
    source = projected_strips(cut_up(sr, rows=stride * scale), lr, scale)
    assert len(source.tops) > 3
    assert_same_from_anywhere(source)
    # Cuts that are no multiples of the scale, as resizing leaves them.
    assert_same_from_anywhere(projected_strips(cut_up(sr, rows=61), lr, scale))


@pytest.mark.parametrize(
    ("before", "after"), [((400, 30), (200, 15)), ((400, 30), (273, 41)), ((90, 7), (211, 7))]
)
@pytest.mark.parametrize("rows", [5, 64, 1000])
def test_resizing_in_strips_is_torchs(before, after, rows):
    picture = torch.rand(3, *before, generator=torch.Generator().manual_seed(0))
    source = resized_strips(cut_up(picture, rows=rows), *after)
    wanted = F.interpolate(picture[None], size=after, mode="bicubic", antialias=True)
    torch.testing.assert_close(torch.cat(list(source.draw(0)), 2), wanted, rtol=0, atol=1e-4)
    assert_same_from_anywhere(source)


def test_cropping_from_any_strip_on():
    picture = torch.rand(3, 50, 9)
    for beyond, aside in [(3, 2), (7, 0), (8, 1), (24, 4)]:
        source = cut_up(picture, rows=7).cropped(beyond, aside)
        expected = picture[None, :, beyond : 50 - beyond, aside : 9 - aside]
        assert torch.equal(torch.cat(list(source.draw(0)), 2), expected)
        assert_same_from_anywhere(source)


def test_cutting_anew_keeps_the_rows():
    picture = torch.rand(3, 50, 2)
    source = cut_up(picture, rows=7)
    for tops in [(0, 50), (0, 1, 2, 30, 50), (0, 7, 14, 49, 50)]:
        again = source.recut(tops)
        assert torch.equal(torch.cat(list(again.draw(0)), 2)[0], picture)
        assert_same_from_anywhere(again)
    for row in (0, 6, 7, 49):
        pieces = list(source.rows_from(row))
        assert pieces[0][0] == row
        assert torch.equal(torch.cat([piece for _, piece in pieces], 2)[0], picture[:, row:])
    assert list(source.rows_from(50)) == []


def test_a_strip_of_its_own_is_that_of_the_engine(tiny_model):
    lr = smooth(60, 16)
    strips = sample_strips(tiny_model, lr, SETTINGS, CPU)
    noises = [NoiseField(seed=0, sample=0)]
    plan = plan_for(tiny_model, 60, 16, SETTINGS)
    source = sampled_strips(tiny_model, lr, plan, SETTINGS, noises, CPU, lambda tiles: None)
    assert source.tops[:-1] == tuple(strip.top for strip in strips)


# What ends a run that no exception ends

CHILD = """
import sys
import vdsr_cli.consistency.strips as strips
import vdsr_cli.images.resumable as draft, vdsr_cli.images.segments as segments
draft.JOURNAL_EVERY_S, segments._SEGMENT_BYTES, strips._BLOCK_ROWS = 0.0, 700, 0
from vdsr_cli.cli.app import main
sys.argv = ["vdsr", *sys.argv[1:]]
main()
"""


def start_child(*arguments: object) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", CHILD, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_killed_in_the_middle(vdsr, tiny_path, tmp_path, often):
    source, parts = save_input(tmp_path / "a.png", 240, 15), tmp_path / "parts.png"
    options = ["--model", tiny_path, "--tile", 16, "--overlap", 4, "--batch-size", 1]
    assert vdsr("upscale", source, *options, "-o", tmp_path / "whole.png").code == 0
    with start_child("upscale", source, *options, "-o", parts) as child:
        journal, limit = tmp_path / "parts.png.part.json", time.monotonic() + 300
        while not journal.exists() and child.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert child.returncode == -signal.SIGKILL, "it was at work"
    assert not parts.exists() and journal.exists()
    ended = vdsr("upscale", source, *options, "-o", parts)
    assert ended.code == 0 and "continued an earlier run from row" in ended.err
    assert parts.read_bytes() == (tmp_path / "whole.png").read_bytes()
    assert list(tmp_path.glob("parts*")) == [parts]


CHANGES = [["--seed", 1], ["--temperature", 0.5], ["--no-consistency"], ["--pixels", "sample"]]


@pytest.mark.parametrize("change", [*CHANGES, "input", None], ids=str)
def test_another_job_is_not_gone_on_with(vdsr, tiny_path, tmp_path, monkeypatch, often, change):
    source, output = save_input(tmp_path / "a.png", 60, 8), tmp_path / "b.png"
    command = [
        "upscale",
        source,
        "--model",
        tiny_path,
        "--tile",
        32,
        "--batch-size",
        1,
        "-o",
        output,
    ]
    with monkeypatch.context() as patch:
        interrupt_after(patch, puts=1)
        with pytest.raises(Killed):
            vdsr(*command)
    if change == "input":
        with Image.open(source) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(source)
    changes = change if isinstance(change, list) else []
    ended = vdsr(*command, *changes)
    assert ended.code == 0
    assert ("discarded" if change else "continued") in ended.err
    assert vdsr(*command, *changes, "-o", tmp_path / "c.png").code == 0
    assert output.read_bytes() == (tmp_path / "c.png").read_bytes()


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))
"""


def test_6_a_disk_that_is_full_in_the_middle(tiny_path, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "CHILD", FULL + CHILD)
    source = save_input(tmp_path / "a.png", 160, 16)
    options = ["--model", tiny_path, "--tile", 16, "--overlap", 4, "--batch-size", 1]
    with start_child("upscale", source, *options, "-o", tmp_path / "b.png") as child:
        _, err = child.communicate(timeout=300)
    assert child.returncode == 6
    assert b"b.png: cannot be written: the file is too big for the disk" in err
    assert b"resumes" in err and b"Traceback" not in err
    assert not (tmp_path / "b.png").exists()


HUNGRY = """
import resource, sys
from pathlib import Path
import torch
from vdsr_cli.images import Frame, Metadata, open_picture_file
from vdsr_cli.sampling.strips import StripSource, projected_strips

height, width = int(sys.argv[2]), 1024
lr = torch.full((3, height // 4, width // 4), 0.5)
tops = (*range(0, height, 192), height)
def draw(first):
    for top, bottom in zip(tops[first:], tops[first + 1:]):
        yield torch.full((1, 3, bottom - top, width), 0.25)
source = projected_strips(StripSource(tops=tops, draw=draw), lr, 4)
frame = Frame(height=height, width=width, like=Metadata(bit_depth=16), cell=4)
path = Path(sys.argv[1])
with open_picture_file(path, frame, format="tiff", identity=lambda: "") as file:
    for top, rows in source.rows_from(0):
        file.put_rows(top, rows[0])
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""


def test_memory_does_not_grow_with_the_output(tmp_path):
    """Six times the height costs the longer input, not the 75 MB more of integers, or their
    floats, which are twice that."""

    def peak(height: int) -> int:
        command = [sys.executable, "-c", HUNGRY, str(tmp_path / f"{height}.tif"), str(height)]
        return int(subprocess.run(command, check=True, capture_output=True).stdout)

    short, tall = peak(192 * 13), peak(192 * 78)
    input_bytes = 192 * 65 // 4 * 256 * 3 * 4
    assert tall - short < input_bytes + 20e6
