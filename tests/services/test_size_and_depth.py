"""The size and the depth that are asked for are those of the output."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loaded import CPU
from PIL import Image

from vdsr_cli.config import TargetSize
from vdsr_cli.errors import InputError, UsageError
from vdsr_cli.images import read_picture
from vdsr_cli.loading import LoadedModel
from vdsr_cli.sampling.engine import SamplingSettings
from vdsr_cli.sampling.pipeline import draw_rows, plan_upscale
from vdsr_cli.services.auto import AutoBySize


@given(st.integers(20, 4000), st.integers(20, 4000), st.integers(1, 16))
def test_the_side_that_is_named_is_exact(height, width, factor):
    size = width * factor
    assert TargetSize(width=size).of(height, width)[1] == size
    assert TargetSize(height=height * factor).of(height, width)[0] == height * factor
    assert max(TargetSize(longest=max(height, width) * factor).of(height, width)) == factor * max(
        height, width
    )


def test_the_aspect_is_kept():
    assert TargetSize(width=1000).of(60, 80) == (750, 1000)
    assert TargetSize(width=1000, height=300).of(60, 80) == (300, 400)
    high, wide = TargetSize(megapixels=0.5).of(60, 80)
    assert high * wide == pytest.approx(500_000, rel=0.003)
    assert wide / high == pytest.approx(4 / 3, rel=0.005)


@pytest.mark.parametrize(
    ("asked", "times"),
    [
        ({"width": 79}, "0.9875"),
        ({"longest": 1281}, "16.01"),
        ({"megapixels": 2}, "20.41"),
        ({"height": 10**400}, "inf"),
        ({"megapixels": 1e308}, "inf"),
        ({"megapixels": math.inf}, "inf"),
    ],
)
def test_what_is_no_enlargement_is_refused(asked, times):
    with pytest.raises(InputError, match=f"80x60 pixels, of which .* is {times} times"):
        TargetSize(**asked).of(60, 80)


def test_an_output_has_one_size():
    for sides in ({}, {"width": 9, "longest": 9}, {"megapixels": 1.0, "height": 2}):
        with pytest.raises(UsageError):
            TargetSize(**sides)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--width", 301], (301, 226)),
        (["--height", 61], (81, 61)),
        (["--longest", 320], (320, 240)),
        (["--width", 900, "--height", 650], (867, 650)),
    ],
    ids=str,
)
def test_outputs_have_that_size(tmp_path, vdsr, tiny_path, options, expected):
    source = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).save(source)
    options = [*options, "--suffix", "-big", "-m", tiny_path, "-t", 0]
    ended = vdsr("upscale", source, *options)
    assert ended.code == 0, ended.err
    with Image.open(tmp_path / "a-big.png") as image:
        assert image.size == expected


def test_inputs_are_kept_and_named_in_errors(tmp_path, vdsr, tiny_path):
    source = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(source)
    before = source.read_bytes()
    options = ["-m", tiny_path, "--suffix", "", "--overwrite"]
    assert vdsr("upscale", tmp_path, *options).code == 2
    assert vdsr("upscale", tmp_path, *options, "-o", f"{tmp_path}/").code == 2
    assert source.read_bytes() == before
    ended = vdsr("upscale", source, "-m", tiny_path, "--longest", 4)
    assert (ended.code, "a.png: it has 8x8 pixels" in ended.err) == (3, True)
    assert vdsr("upscale", source, "--scale", 2, "--width", 20).code == 2
    assert vdsr("upscale", source, "--depth", 12).code == 2


def test_16_bits_come_of_8_by_one_rounding(tmp_path, vdsr, tiny_path, tiny_model):
    source, out = tmp_path / "a.png", tmp_path / "out.png"
    ramp = np.linspace(100, 110, 48 * 48).reshape(48, 48)
    Image.fromarray(ramp.round().astype(np.uint8)).convert("RGB").save(source)
    options = ["-m", tiny_path, "-t", 0, "--depth", 16, "--no-consistency", "--dtype", "float32"]
    ended = vdsr("upscale", source, "-o", out, *options)
    assert ended.code == 0, ended.err
    levels = read_picture(out).rgb[0]
    loaded = LoadedModel(name="tiny", model=tiny_model, record=None, card={}, parameters=1)
    settings, picture = SamplingSettings(temperature=0.0), read_picture(source)
    plan = plan_upscale(picture, loaded, settings, CPU, scale=4, consistency=False)
    exact = torch.cat([rows.rgb[0] for rows in draw_rows(picture, plan, CPU)], dim=1).clamp(0, 1)
    assert (levels - exact).abs().max() <= 0.51 / 65535
    assert vdsr("upscale", out, "-o", tmp_path / "8.png", *options[:4], "--depth", 8).code == 0
    with Image.open(tmp_path / "8.png") as image:
        assert image.mode == "RGB"


def test_the_model_follows_from_the_size(tmp_path):
    asked = []

    def load(name):
        asked.append(name)
        return LoadedModel(name=name, model=None, record=None, card={}, parameters=1)

    source = tmp_path / "a.png"
    smooth = np.add.outer(np.arange(160), np.arange(160)) // 2
    Image.fromarray(smooth.astype(np.uint8)).convert("RGB").save(source)
    for longest, model in ((300, "vdvae-sr-x2"), (640, "vdvae-sr-x4"), (1200, "vdvae-sr-x8")):
        AutoBySize(TargetSize(longest=longest), load).choose(read_picture(source))
        assert model in asked
