"""PSNR and SSIM against the HR picture, and LR-PSNR against the input; all in float64.

"Y" is BT.601 luma in studio range, not rounded; ``shave`` pixels are left out at each border.
"""

import math
from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from vdsr_cli.config import Edges
from vdsr_cli.consistency import degrade_8bit
from vdsr_cli.consistency.degradation import REACH

SSIM_WINDOW = 11
"""Pixels across, of the Gaussian window of :func:`ssim_y`."""
_PEAK = 255.0


def luma(pixels: Tensor) -> Tensor:
    """Y = 16 + 65.481 R + 128.553 G + 24.966 B, RGB in 0..1: uint8 (3, H, W) -> float64 (H, W)."""
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64)
    scaled: Tensor = torch.tensordot(weights, pixels.double() / 255, dims=1)
    return scaled + 16


def psnr_y(sr: Tensor, hr: Tensor, *, shave: int) -> float:
    """PSNR of the luma in dB, peak 255; infinite for equal pictures."""
    return _psnr(_shaved(luma(sr), shave), _shaved(luma(hr), shave))


def psnr_rgb(sr: Tensor, hr: Tensor, *, shave: int) -> float:
    """PSNR over the three channels in dB, peak 255."""
    return _psnr(_shaved(sr, shave), _shaved(hr, shave))


def lr_psnr(
    sr: Tensor, lr: Tensor, scale: int, edges: Edges = Edges.repeat, periodic: str = ""
) -> float:
    """PSNR in dB, RGB, of the picture degraded again to 8 bits against the LR input, uint8;
    ``periodic`` names the axes, of x and y, along which it goes on at its opposite edge."""
    for dim, axis in enumerate("yx", start=1):
        if axis in periodic:
            around = torch.arange(-REACH * scale, sr.shape[dim] + REACH * scale) % sr.shape[dim]
            sr = sr.index_select(dim, around)
    reduced = degrade_8bit(sr.unsqueeze(0), scale, edges)[0]
    top, left = (REACH if axis in periodic else 0 for axis in "yx")
    return _psnr(reduced[:, top : top + lr.shape[1], left : left + lr.shape[2]], lr)


def mean_psnr(psnrs: Sequence[float]) -> float:
    """Mean in dB, the field's for PSNR against HR, of those that are finite: a picture that is met
    exactly would make it infinite. Infinite where all are, NaN of none."""
    finite = [psnr for psnr in psnrs if math.isfinite(psnr)]
    return fmean(finite) if finite else max(psnrs, default=math.nan)


def pooled_psnr(psnrs: Sequence[float]) -> float:
    """PSNR in dB of the mean of the squared errors that the given ones stand for, which is 0 for an
    infinite one; infinite where all are."""
    error = fmean(10 ** (-psnr / 10) for psnr in psnrs)
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim_y(sr: Tensor, hr: Tensor, *, shave: int) -> float:
    """SSIM of the luma (Wang et al. 2004): 11x11 Gaussian of sigma 1.5, valid positions only,
    K = 0.01 and 0.03, L = 255."""
    position = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    taps = torch.exp(-(position**2) / (2 * 1.5**2))
    return _ssim(_shaved(luma(sr), shave), _shaved(luma(hr), shave), taps / taps.sum())


def ssim_rgb(sr: Tensor, hr: Tensor, *, shave: int) -> float:
    """SSIM as scikit-image has it by default, the mean of the three channels: uniform 7x7 window,
    sample covariances (divided by 48), valid positions only."""
    taps = torch.full((7,), 1 / 7, dtype=torch.float64)
    sr, hr = _shaved(sr, shave).double(), _shaved(hr, shave).double()
    channels = [_ssim(a, b, taps, unbias=49 / 48) for a, b in zip(sr, hr, strict=True)]
    return sum(channels) / len(channels)


def _shaved(plane: Tensor, shave: int) -> Tensor:
    return plane[..., shave : plane.shape[-2] - shave, shave : plane.shape[-1] - shave]


def _psnr(a: Tensor, b: Tensor) -> float:
    return psnr_of((a.double() - b.double()).square().mean().item())


def psnr_of(mse: float) -> float:
    """PSNR in dB of a mean squared error in grey levels; infinite for none."""
    return math.inf if mse == 0 else 10 * math.log10(_PEAK**2 / mse)


def _ssim(a: Tensor, b: Tensor, taps: Tensor, *, unbias: float = 1.0) -> float:
    """Mean SSIM of two float64 planes under a separable window; ``unbias`` scales covariances."""
    mean_a, mean_b, aa, bb, ab = _windowed(torch.stack([a, b, a * a, b * b, a * b]), taps)
    c1, c2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
    variances = unbias * (aa - mean_a**2 + bb - mean_b**2)
    covariance = unbias * (ab - mean_a * mean_b)
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity /= (mean_a**2 + mean_b**2 + c1) * (variances + c2)
    return float(similarity.mean())


def _windowed(maps: Tensor, taps: Tensor) -> Tensor:
    """(N, H, W) -> weighted means over every window that lies inside, both axes.

    A sum of shifted views: several times as fast as a float64 convolution.
    """
    for axis in (1, 2):
        length = maps.shape[axis] - len(taps) + 1
        total = maps.narrow(axis, 0, length) * taps[0]
        for offset, tap in enumerate(taps.tolist()[1:], start=1):
            total.add_(maps.narrow(axis, offset, length), alpha=tap)
        maps = total
    return maps
