"""Outputs that are written while they are made: the same bytes, killed or not, whole or not."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vdsr_cli.images import PictureFile, read_picture
from vdsr_cli.paths import Source
from vdsr_cli.runtime import Runtime
from vdsr_cli.services.engine import SamplingSettings
from vdsr_cli.services.loading import LoadedModel
from vdsr_cli.services.upscale import UpscaleRequest, upscale_file, upscale_picture

CPU = Runtime(device=torch.device("cpu"), dtype=torch.float32)
SETTINGS = SamplingSettings(temperature=0.8, tile=32, overlap=16, batch_size=1)


@pytest.fixture(scope="module")
def loaded(tiny_model) -> LoadedModel:
    card = {"degradation": "bicubic"}
    return LoadedModel(name="tiny", model=tiny_model, record=None, card=card, parameters=1)


@pytest.fixture
def often(monkeypatch):
    """A journal at every occasion, and many of them."""
    monkeypatch.setattr("vdsr_cli.images.draft.JOURNAL_EVERY_S", 0.0)
    monkeypatch.setattr("vdsr_cli.images.segments._SEGMENT_BYTES", 3000)


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


class Killed(BaseException):
    """What ends a run between two puts."""


def interrupt_after(monkeypatch, puts: int) -> None:
    real, done = PictureFile.put_rows, []

    def put_rows(self, *rows):
        if len(done) == puts:
            raise Killed
        done.append(1)
        real(self, *rows)

    monkeypatch.setattr(PictureFile, "put_rows", put_rows)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_streamed_is_unstreamed(loaded, tmp_path, scale, mode, suffix):
    source = save_input(tmp_path / "a.png", 50, 20, mode=mode)
    assert run(source, tmp_path / f"b{suffix}", loaded, scale=scale).status == "done"
    request = UpscaleRequest(settings=SETTINGS, scale=scale)
    canvas = upscale_picture(read_picture(source), loaded, request, CPU)
    canvas.save(tmp_path / f"c{suffix}")
    assert (tmp_path / f"b{suffix}").read_bytes() == (tmp_path / f"c{suffix}").read_bytes()
    with Image.open(tmp_path / f"b{suffix}") as written:
        assert np.array_equal(np.asarray(written).reshape(canvas.levels().shape), canvas.levels())


CASES = [
    (".png", {"scale": 4}, "RGB", 150),
    (".tif", {"scale": 4}, "RGBA", 120),
    (".png", {"scale": 4, "consistency": False}, "RGB", 120),
    (".png", {"scale": 8}, "RGB", 96),
    (".png", {"scale": 2}, "L", 100),
]


@pytest.mark.parametrize(("suffix", "options", "mode", "height"), CASES)
def test_interrupted_at_every_strip(
    loaded, tmp_path, monkeypatch, often, suffix, options, mode, height
):
    source = save_input(tmp_path / "a.png", height, 20, mode=mode)
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
    assert len(rows) > 2
    assert result.notes == (f"gone on with from row {rows[-1]} of {height * options['scale']}",)
    assert parts.read_bytes() == whole.read_bytes()
    assert list(tmp_path.glob("parts*")) == [parts]
