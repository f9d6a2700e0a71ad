"""The use of the shipped models: on a held-out photograph each beats what one would use else."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vdsr_cli.consistency import degrade_8bit
from vdsr_cli.metrics import psnr_rgb, ssim_y

STREET = Path(__file__).parents[1] / "data" / "street.png"


def pixels(path: Path) -> Tensor:
    """(3, H, W) uint8."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


def save_lr(path: Path, scale: int, *, noise: float = 0.0, quality: int | None = None) -> None:
    """The photograph reduced, then noisy and compressed, as PNG."""
    reduced = degrade_8bit(pixels(STREET).unsqueeze(0), scale)[0].permute(1, 2, 0).numpy()
    spread = np.random.default_rng(0).normal(0, noise, reduced.shape)
    picture = Image.fromarray((reduced + spread).round().clip(0, 255).astype(np.uint8))
    if quality is not None:
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality)
        picture = Image.open(file)
    picture.save(path)


@pytest.fixture
def upscaled(tmp_path, vdsr):
    """``upscaled(model)``: what a model makes of ``lr.png`` at temperature 0, or bicubic (None)."""

    def make(model: str | None) -> Tensor:
        lr, out = tmp_path / "lr.png", tmp_path / "out.png"
        side = pixels(STREET).shape[-1]
        if model is None:
            with Image.open(lr) as picture:
                picture.resize((side, side), Image.Resampling.BICUBIC).save(out)
        else:
            options = ["-m", model, "--scale", side // pixels(lr).shape[-1], "--temperature", 0]
            ended = vdsr("upscale", lr, *options, "-o", out, "--overwrite")
            assert ended.code == 0, ended.err
        return pixels(out)

    return make


@pytest.mark.parametrize(
    ("model", "scale", "gain"),
    [
        ("vdvae-sr-x4", 4, 0.9),
        ("vdvae-sr-x4-tiny", 4, 0.8),
        ("cvdvae-x4", 4, 0.6),
        ("vdvae-sr-x2", 2, 1.5),
        ("vdvae-sr-x8", 8, 0.8),
    ],
)
def test_a_reduced_photograph_gains_over_bicubic(tmp_path, upscaled, model, scale, gain):
    save_lr(tmp_path / "lr.png", scale)
    hr = pixels(STREET)
    ours, bicubic = (psnr_rgb(upscaled(name), hr, shave=scale) for name in (model, None))
    assert ours > bicubic + gain


def test_a_noisy_compressed_photograph_gains_over_the_default_model(tmp_path, upscaled):
    save_lr(tmp_path / "lr.png", 4, noise=8, quality=50)
    hr = pixels(STREET)
    names = ("vdvae-sr-x4-real", "vdvae-sr-x4", None)
    real, default, bicubic = (upscaled(name) for name in names)
    assert psnr_rgb(real, hr, shave=4) > psnr_rgb(default, hr, shave=4) + 0.3
    assert psnr_rgb(real, hr, shave=4) > psnr_rgb(bicubic, hr, shave=4) + 0.3
    assert ssim_y(real, hr, shave=4) > ssim_y(default, hr, shave=4) + 0.02
