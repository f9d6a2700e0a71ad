"""The degradation A, and what it takes to stay faithful to it.

A is antialiased bicubic reduction: the cubic with a = -0.5 widened by the scale, half-pixel
centres, edge pixels repeated at the borders. It makes the training pairs, scores LR-PSNR and
defines the consistency projection, so that all three mean the same thing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def cubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5, elementwise; zero from distance 2 on."""
    d = distance.abs()
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def reduction_taps(scale: int) -> Tensor:
    """The taps of one axis, float64, sum 1: 4 * scale of them (4 * scale - 1 for an odd scale).

    LR sample i is centred on HR coordinate ``scale * i + (scale - 1) / 2``, so the taps cover HR
    samples ``scale * i - pad`` to ``scale * i + scale - 1 + pad`` with pad = (taps - scale) / 2.
    """
    count = 4 * scale - scale % 2
    offsets = torch.arange(count, dtype=torch.float64) - (count - 1) / 2
    taps = cubic(offsets / scale)
    return taps / taps.sum()


def _reduce_axis(pixels: Tensor, scale: int, *, vertical: bool) -> Tensor:
    """One pass of A along one axis of (N, 1, H, W)."""
    taps = reduction_taps(scale).to(pixels)
    pad = (len(taps) - scale) // 2
    if vertical:
        padded = F.pad(pixels, (0, 0, pad, pad), mode="replicate")
        return F.conv2d(padded, taps.view(1, 1, -1, 1), stride=(scale, 1))
    padded = F.pad(pixels, (pad, pad, 0, 0), mode="replicate")
    return F.conv2d(padded, taps.view(1, 1, 1, -1), stride=(1, scale))


def degrade(hr: Tensor, scale: int) -> Tensor:
    """A: (B, C, H, W) of any float dtype and range -> (B, C, H / scale, W / scale), not rounded.

    H and W are multiples of the scale.
    """
    planes = hr.flatten(0, 1).unsqueeze(1)
    reduced = _reduce_axis(_reduce_axis(planes, scale, vertical=True), scale, vertical=False)
    return reduced.view(*hr.shape[:2], *reduced.shape[2:])


def degrade_8bit(hr: Tensor, scale: int) -> Tensor:
    """A on 8-bit pictures as the benchmarks' files were made: uint8 (B, C, H, W) -> uint8.

    Rounded and clamped to 0..255 after the vertical and again after the horizontal pass.
    """
    planes = hr.flatten(0, 1).unsqueeze(1).double()
    for vertical in (True, False):
        # Halves go up, as MATLAB's uint8() does; the small bias absorbs float64 noise on exact halves.
        reduced = _reduce_axis(planes, scale, vertical=vertical)
        planes = (reduced + 0.5 + 1e-9).floor().clamp(0, 255)
    return planes.view(*hr.shape[:2], *planes.shape[2:]).to(torch.uint8)
