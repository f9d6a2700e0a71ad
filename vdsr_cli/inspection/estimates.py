"""Estimates from the pixels of a picture of noise, blur and compression: tensors in, numbers out.

windows ─┬─► luma ─┬─► second differences both ways ─► noise: their deviation in blocks of 8x8
         │         ├─► the same at half the size ────► coarse: what texture has there, noise lacks
         │         ├─► second differences across ────► grid, periodicity: edges of JPEG's blocks
         │         └─► DCT on that grid and off it ──► zeros: coefficients that quantising removed
         └─► colour differences ─────────────────────► colour noise: texture has grey edges

The residual of noise is that of Immerkaer (1996): texture raises it too, hence its distribution
over blocks, whose low end is noise alone, and its like at half the size.
"""

import math
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from vdsr_cli.inspection.windows import windows_of
from vdsr_cli.jpeg_tables import dct_matrix

LEAST_SIDE: Final = 32
"""The smallest side that is estimated, in pixels."""

_BLOCK: Final = 8
_SHARES: Final = (0.05, 0.1, 0.25, 0.5, 0.75, 0.95)
_TO_LUMA: Final = (0.299, 0.587, 0.114)
_TO_DEVIATION: Final = math.sqrt(math.pi / 2) / 6
"""From the mean size of the residual, whose weights have the norm 6, to a deviation."""
_LOW_END_OF_NOISE: Final = 0.85
"""The tenth percentile over blocks of pure noise, as a share of its deviation."""
_FEWEST_BLOCKS: Final = 8
_BINS: Final = 512
_PERIODS: Final = (5.0, 14.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """Measurements of a picture.

    Attributes:
        noise: deviation of what is finer than texture's gradients, in grey levels of luma, at
            the shares ``_SHARES`` of blocks; blocks with black or white in them are left out.
        colour_noise: the same of the differences of red and blue to green, over the square root
            of 2: of colour noise, the deviation of each channel.
        coarse: as ``noise``, of the picture at half its size.
        flat: share of blocks with no deviation at all.
        clipped: share of blocks with black or white in them.
        telling: share of blocks that are neither.
        grid: logarithm of the second differences on the strongest phase of 8 pixels over those
            on the others, in the weaker and in the stronger direction.
        periodicity: height of the spectrum of second differences above its surroundings, in
            nepers: at a period of 8 pixels, and the most at another of 5 to 14.
        zeros: share of DCT coefficients that are next to nothing on the strongest phase, middle
            and high frequencies, and the logarithms of these over those off that phase.
    """

    noise: tuple[float, ...]
    colour_noise: tuple[float, ...]
    coarse: tuple[float, ...]
    flat: float
    clipped: float
    telling: float
    grid: tuple[float, float]
    periodicity: tuple[float, float]
    zeros: tuple[float, float, float, float]

    @property
    def noise_level(self) -> float:
        """The deviation of the noise in grey levels, at most: fine texture everywhere is in it."""
        return max(self.noise[1], self.colour_noise[1]) / _LOW_END_OF_NOISE

    @property
    def features(self) -> tuple[float, ...]:
        """The features of a classifier, deviations as logarithms."""
        levels = (*self.noise, *self.colour_noise, *self.coarse)
        logarithms = (math.log(level + 0.1) for level in levels)
        shares = (self.flat, self.clipped)
        return (*logarithms, *shares, *self.grid, *self.periodicity, *self.zeros)


@torch.inference_mode()
def estimate(rgb: Tensor) -> Estimates | None:
    """Measures (3, h, w) in [0, 1] by windows; None where a side is below ``LEAST_SIDE``."""
    return None if min(rgb.shape[1:]) < LEAST_SIDE else _measure(windows_of(rgb))


def _measure(windows: Tensor) -> Estimates:
    """Measures (n, 3, h, w) in grey levels, whose corners share their phase of 8 pixels."""
    red, green, blue = windows.unbind(1)
    luma = torch.einsum("c,nchw->nhw", windows.new_tensor(_TO_LUMA), windows)
    deviations = _deviations(luma)
    is_flat, is_within = deviations < 0.02, _is_within_range(luma)
    colours = (_deviations(red - green) + _deviations(blue - green)) / math.sqrt(8)
    halved = F.avg_pool2d(luma.unsqueeze(1), 2).squeeze(1)
    across, down = _second_differences(luma), _second_differences(luma.transpose(1, 2))
    (stronger_x, x), (stronger_y, y) = _phase(across), _phase(down)
    return Estimates(
        noise=_distribution(deviations[is_within]),
        colour_noise=_distribution(colours[is_within]),
        coarse=_distribution(_deviations(halved, _BLOCK // 2).flatten()),
        flat=float(is_flat.float().mean()),
        clipped=1 - float(is_within.float().mean()),
        telling=float((is_within & ~is_flat).float().mean()),
        grid=(min(stronger_x, stronger_y), max(stronger_x, stronger_y)),
        periodicity=_periodicity(across, down),
        zeros=_zeros(luma, y, x),
    )


def _deviations(plane: Tensor, block: int = _BLOCK) -> Tensor:
    """(n, h, w) -> (n, rows, columns), one of each block."""
    across = plane[:, :, 2:] + plane[:, :, :-2] - 2 * plane[:, :, 1:-1]
    both = across[:, 2:] + across[:, :-2] - 2 * across[:, 1:-1]
    return F.avg_pool2d(both.abs().unsqueeze(1), block).squeeze(1) * _TO_DEVIATION


def _is_within_range(luma: Tensor) -> Tensor:
    """Which of the blocks of :func:`_deviations` have neither black nor white in them."""
    inner = luma[:, 1:-1, 1:-1].unsqueeze(1)
    darkest, brightest = -F.max_pool2d(-inner, _BLOCK), F.max_pool2d(inner, _BLOCK)
    return ((darkest > 1) & (brightest < 254)).squeeze(1)


def _distribution(values: Tensor) -> tuple[float, ...]:
    """At ``_SHARES``; of too few values, nothing."""
    if len(values) < _FEWEST_BLOCKS:
        return (0.0,) * len(_SHARES)
    ordered = values.sort().values
    places = [round(share * (len(ordered) - 1)) for share in _SHARES]
    return tuple(ordered[places].tolist())


def _second_differences(luma: Tensor) -> Tensor:
    """(n, h, w) -> (n, w - 2): their mean size in each column, strong edges held down."""
    sizes = (luma[:, :, 2:] + luma[:, :, :-2] - 2 * luma[:, :, 1:-1]).abs()
    most = 2 * sizes.mean((1, 2), keepdim=True) + 0.3
    return sizes.minimum(most).mean(1)


def _phase(columns: Tensor) -> tuple[float, int]:
    """How much the strongest phase of 8 pixels stands out, and the column that blocks begin at.

    An edge between two blocks shows in the two columns beside it.
    """
    whole = columns.shape[1] // _BLOCK * _BLOCK
    phases = columns[:, :whole].reshape(-1, _BLOCK).mean(0)
    pairs = (phases + phases.roll(-1)) / 2
    best = int(pairs.argmax())
    others = (pairs.sum() - pairs[best]) / (_BLOCK - 1)
    return float(((pairs[best] + 0.05) / (others + 0.05)).log()), (best + 2) % _BLOCK


def _periodicity(across: Tensor, down: Tensor) -> tuple[float, float]:
    heights = (_spectrum(across) + _spectrum(down)) / 2
    slow, fast = (round(_BINS / period) for period in reversed(_PERIODS))
    own = _BINS // _BLOCK
    is_own = torch.zeros(len(heights), dtype=torch.bool)
    is_own[own - 4 : own + 5] = True
    others = heights.masked_fill(is_own, -math.inf)[slow : fast + 1]
    return float(heights[own - 1 : own + 2].max()), float(others.max())


def _spectrum(columns: Tensor) -> Tensor:
    """(n, w) -> the logarithm of its power, the mean of n, above the median of its surroundings."""
    relative = columns / (columns.mean(1, keepdim=True) + 0.05)
    centred = relative - relative.mean(1, keepdim=True)
    tapered = centred * torch.hann_window(columns.shape[1], periodic=False)
    power = torch.fft.rfft(tapered, n=_BINS, dim=1).abs().square().mean(0)
    logarithm = (power + 1e-6).log()
    surroundings = F.pad(logarithm.view(1, 1, -1), (40, 40), mode="reflect").view(-1)
    above: Tensor = logarithm - surroundings.unfold(0, 81, 1).median(1).values
    return above


def _zeros(luma: Tensor, top: int, left: int) -> tuple[float, float, float, float]:
    half = _BLOCK // 2
    middle, high = _zero_shares(luma[:, top:, left:])
    others = _zero_shares(luma[:, (top + half) % _BLOCK :, (left + half) % _BLOCK :])
    pairs = zip((middle, high), others, strict=True)
    gains = [math.log((on + 0.02) / (off + 0.02)) for on, off in pairs]
    return middle, high, gains[0], gains[1]


def _zero_shares(luma: Tensor) -> tuple[float, float]:
    """Shares of the middle and the high coefficients, of blocks that are not flat."""
    rows, columns = (side // _BLOCK for side in luma.shape[1:])
    cut = luma[:, : rows * _BLOCK, : columns * _BLOCK]
    cells = cut.reshape(-1, rows, _BLOCK, columns, _BLOCK).transpose(2, 3)
    # Of blocks of 8x8 pixels, read row by row.
    transform = torch.kron(dct_matrix(), dct_matrix())
    sizes = (cells.reshape(-1, _BLOCK * _BLOCK) @ transform.T).abs()
    active = sizes[sizes[:, 1:].amax(1) > 4]
    if len(active) < _FEWEST_BLOCKS // 2:
        return 1.0, 1.0
    order = torch.arange(_BLOCK).view(-1, 1) + torch.arange(_BLOCK)
    is_zero = (active < 0.7).float().mean(0).view(_BLOCK, _BLOCK)
    is_middle, is_high = (order >= 2) & (order < 5), order >= 5
    return float(is_zero[is_middle].mean()), float(is_zero[is_high].mean())
