"""Real degradations: the tensors' JPEG is Pillow's, kernels keep the light, one seed one batch."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from vdsr_cli.metrics import psnr_rgb
from vdsr_cli.training.degradation import (
    FIRST,
    Pass,
    RealDegradation,
    _Draw,
    add_noise,
    blur,
    compress,
    gaussian_kernels,
    sinc_kernels,
)
from vdsr_cli.training.jpeg import jpeg
from vdsr_cli.training.randomness import StepRandom
from vdsr_cli.training.world import World

CPU = torch.device("cpu")


def checkered(side: int) -> torch.Tensor:
    """Squares of 64 and 192, 8 pixels wide: (side, side)."""
    squares = torch.arange(side) // 8 % 2
    return (64 + 128 * (squares ^ squares.unsqueeze(1))).to(torch.uint8)


def smooth(batch: int, side: int) -> torch.Tensor:
    """Pictures in [0, 1] on the grey levels."""
    rng = np.random.default_rng(0)
    rough = [Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)) for _ in range(batch)]
    large = [np.array(p.resize((side, side), Image.Resampling.BICUBIC)) for p in rough]
    return torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2) / 255


def draw(step: int = 0, batch: int = 64) -> _Draw:
    return _Draw(StepRandom(0, step, CPU), batch, CPU, World())


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_jpeg_is_pillows(quality):
    picture = smooth(1, 44)
    levels = (picture[0] * 255).round().to(torch.uint8)
    file = io.BytesIO()
    Image.fromarray(levels.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    theirs = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
    ours = (jpeg(picture, torch.tensor([quality]))[0] * 255).round().to(torch.uint8)
    loss, difference = (psnr_rgb(theirs, levels, shave=0), psnr_rgb(ours, theirs, shave=0))
    assert difference > loss + 4
    assert psnr_rgb(ours, levels, shave=0) == pytest.approx(loss, abs=0.6)


def test_each_picture_has_its_own_quality():
    pictures = smooth(1, 32).repeat(3, 1, 1, 1)
    out = jpeg(pictures, torch.tensor([30.0, 95.0, 30.0]))
    assert torch.equal(out[0], out[2]) and not torch.equal(out[0], out[1])
    errors = (out - pictures).abs().mean(dim=(1, 2, 3))
    assert errors[1] < 0.5 * errors[0]


def test_the_blocks_of_a_jpeg_begin_anywhere():
    picture = smooth(1, 64).repeat(2, 1, 1, 1)
    begins = set()
    for step in range(12):
        out = compress(picture, (10.0, 10.0), draw(step, batch=2))
        assert out.shape == picture.shape
        steps = (out[..., 1:] - out[..., :-1]).abs().mean(dim=(0, 1, 2))
        begins.add(int(torch.stack([steps[i::8].mean() for i in range(8)]).argmax()))
    assert len(begins) > 4


def test_one_batch_in_six_is_degraded_twice():
    hr = checkered(64).expand(4, 3, 64, 64)
    quiet = Pass(blur_probability=0.0, sigma=(1.0, 1.0), size=(0.5, 0.5), noise=0.0)
    once = RealDegradation(4, first=quiet, second=quiet)
    twice = RealDegradation(4, first=replace(quiet, noise=200.0), second=quiet)

    def is_noisier(step: int) -> bool:
        lr, calm = (each(hr, StepRandom(0, step, CPU)).float() for each in (twice, once))
        return bool((lr - calm).std() > 5)

    assert 28 < sum(map(is_noisier, range(240))) < 52


def test_one_picture_in_eight_is_reduced_and_nothing_else():
    """And three of four pictures without detail."""
    loud = Pass(blur_probability=0.0, sigma=(1.0, 1.0), size=(0.5, 0.5), noise=200.0)

    def clean(picture: torch.Tensor) -> int:
        hr = picture.expand(200, 3, 32, 32)
        lr = RealDegradation(4, first=loud, second=loud)(hr, StepRandom(0, 1, CPU))
        differences = (lr.float() - lr.float().median(0).values).abs()
        return int((differences.amax((1, 2, 3)) < 16).sum())

    assert 12 < clean(checkered(32)) < 42
    assert 130 < clean(torch.full((32, 32), 128, dtype=torch.uint8)) < 170


def test_kernels_keep_the_light():
    for kernels in (gaussian_kernels(FIRST, draw()), sinc_kernels(draw(), probability=0.8)):
        assert kernels.shape == (64, 21, 21)
        assert torch.allclose(kernels.sum(dim=(1, 2)), torch.ones(64), atol=1e-5)
    flat = torch.full((64, 3, 9, 9), 0.25)
    assert torch.allclose(blur(flat, gaussian_kernels(FIRST, draw())), flat, atol=1e-5)


def test_half_of_the_kernels_are_round_and_some_are_none():
    kernels = gaussian_kernels(FIRST, draw(batch=400))
    is_none = kernels[:, 10, 10] == 1
    is_round = (kernels - kernels.transpose(1, 2)).abs().amax(dim=(1, 2)) < 1e-6
    is_round &= (kernels - kernels.flip(1)).abs().amax(dim=(1, 2)) < 1e-6
    assert 10 < int(is_none.sum()) < 90
    assert 120 < int((is_round & ~is_none).sum()) < 280


def test_noise_is_bounded_and_differs_from_picture_to_picture():
    noisy = add_noise(torch.full((64, 3, 32, 32), 0.5), 20.0, draw())
    spread = noisy.flatten(1).std(dim=1) * 255
    assert spread.max() < 21 and spread.min() < 3 and spread.max() > 10


def test_a_step_has_one_degradation_and_the_next_another():
    hr = (smooth(4, 64) * 255).to(torch.uint8)
    degrade = RealDegradation(4)
    first, again, other = (degrade(hr, StepRandom(0, step, CPU)) for step in (1, 1, 2))
    assert first.shape == (4, 3, 16, 16) and first.dtype == torch.uint8
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_processes_share_the_degradations_of_one():
    hr = (smooth(4, 64) * 255).to(torch.uint8)
    whole = RealDegradation(4)(hr, StepRandom(0, 3, CPU))
    parts = [
        RealDegradation(4)(w.share(hr), StepRandom(0, 3, CPU), w)
        for w in (World(rank=0, size=2), World(rank=1, size=2))
    ]
    assert (torch.cat(parts).float() - whole.float()).abs().max() <= 1


def test_what_comes_out_still_is_the_picture():
    hr = (smooth(8, 64) * 255).to(torch.uint8)
    lr = torch.cat([RealDegradation(4)(hr, StepRandom(0, step, CPU)) for step in range(4)])
    small = torch.nn.functional.interpolate(hr.float(), scale_factor=0.25, mode="area").repeat(
        4, 1, 1, 1
    )
    error = (lr.float() - small).abs().mean(dim=(1, 2, 3))
    assert 1 < error.mean() < 25
