"""A, its transpose, the inverse of A A', and the projection onto the pictures that degrade to lr.

Beyond the edges of a picture A sees their pixels repeated, or its mirror image: see
:class:`~vdsr_cli.config.Edges`.

All of them are separable, and along one axis each is a banded matrix. A band is applied block by
block as small dense matrices: on a CPU that is several times faster than a convolution of one
channel, and the blocks at the borders need no case of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from vdsr_cli.config import Edges

REACH = 2
"""LR samples beyond its own that an LR sample's degradation, or an HR pixel's share of A', sees."""
SOLVE_REACH = 4
"""LR samples to each side in :func:`solve_gram_nearly`."""
HALO = 16
"""LR samples to each side that the inverse of A A' is cut off at: its rows fall to a third or
faster from sample to sample, so that what is cut off is below float32's rounding."""


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


def _within(positions: Tensor, length: int, edges: Edges) -> Tensor:
    """Positions along an axis, those outside it brought in."""
    if edges is Edges.repeat:
        return positions.clamp(0, length - 1)
    positions = positions % (2 * length)
    return positions.minimum(2 * length - 1 - positions)


def _reduction(length: int, scale: int, edges: Edges) -> Tensor:
    """A along an axis of ``length`` LR samples: (length, length * scale) float64."""
    taps = reduction_taps(scale)
    first = torch.arange(length).unsqueeze(1) * scale - (len(taps) - scale) // 2
    columns = _within(first + torch.arange(len(taps)), length * scale, edges)
    matrix = torch.zeros(length, length * scale, dtype=torch.float64)
    return matrix.scatter_add_(1, columns, taps.expand(length, -1))


def _spread(length: int, scale: int, edges: Edges) -> Tensor:
    """A' along an axis: (length * scale, length) float64."""
    return _reduction(length, scale, edges).T


def _gram_inverse(length: int, scale: int, edges: Edges) -> Tensor:
    """(A A')^-1 along an axis: (length, length) float64."""
    inverse: Tensor = torch.linalg.inv(
        _reduction(length, scale, edges) @ _spread(length, scale, edges)
    )
    return inverse


def _short_gram_inverse(length: int, scale: int, edges: Edges) -> Tensor:
    """The middle of :func:`_gram_inverse` as a filter of few taps: (length, length) float64, its
    rows summing to the scale."""
    middle = 8 * SOLVE_REACH
    near = slice(middle - SOLVE_REACH, middle + SOLVE_REACH + 1)
    taps = _gram_inverse(2 * middle + 1, scale, edges)[middle, near]
    taps = scale * taps / taps.sum()
    first = torch.arange(length).unsqueeze(1) - SOLVE_REACH
    columns = _within(first + torch.arange(len(taps)), length, edges)
    matrix = torch.zeros(length, length, dtype=torch.float64)
    return matrix.scatter_add_(1, columns, taps.expand(length, -1))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Band:
    """A banded operator along one axis.

    Attributes:
        matrix: of an axis of so many LR samples, at a scale, with edges; float64.
        reach: LR samples to each side beyond which its entries vanish.
        block: LR samples applied at a time.
        takes_hr, gives_hr: whether its columns, its rows are HR pixels.
    """

    matrix: Callable[[int, int, Edges], Tensor]
    reach: int
    block: int
    takes_hr: bool = False
    gives_hr: bool = False


_REDUCE = _Band(matrix=_reduction, reach=REACH, block=16, takes_hr=True)
_SPREAD = _Band(matrix=_spread, reach=REACH, block=16, gives_hr=True)
_SOLVE = _Band(matrix=_gram_inverse, reach=HALO, block=32)
_SOLVE_NEARLY = _Band(matrix=_short_gram_inverse, reach=SOLVE_REACH, block=32)


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def _matrix(
    band: _Band, length: int, scale: int, edges: Edges, dtype: torch.dtype, device: torch.device
) -> Tensor:
    return band.matrix(length, scale, edges).to(device, dtype).contiguous()


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _blocks(
    band: _Band, length: int, scale: int, edges: Edges, dtype: torch.dtype, device: torch.device
) -> list[tuple[slice, slice, Tensor]]:
    """An operator along an axis of so many LR samples, block by block: what it takes, what it
    gives, and the matrix from one to the other."""
    step_in, step_out = (scale if is_hr else 1 for is_hr in (band.takes_hr, band.gives_hr))
    blocks = []
    for top in range(0, length, band.block):
        bottom = min(top + band.block, length)
        low, high = max(0, top - band.reach), min(length, bottom + band.reach)
        # The window's matrix is a whole picture's: rows that its false borders touch are not used.
        matrix = _matrix(band, high - low, scale, edges, dtype, device)
        block = matrix[(top - low) * step_out : (bottom - low) * step_out]
        here, there = slice(low * step_in, high * step_in), slice(top * step_out, bottom * step_out)
        blocks.append((here, there, block))
    return blocks


def _apply(band: _Band, pixels: Tensor, scale: int, edges: Edges, *, vertical: bool) -> Tensor:
    """One axis of an operator on (..., H, W)."""
    step_in, step_out = (scale if is_hr else 1 for is_hr in (band.takes_hr, band.gives_hr))
    height, width = pixels.shape[-2:]
    length = (height if vertical else width) // step_in
    size = (length * step_out, width) if vertical else (height, length * step_out)
    blocks = _blocks(band, length, scale, edges, pixels.dtype, pixels.device)
    if pixels.requires_grad:  # which writing into a part of a tensor would lose
        parts = [
            block @ pixels[..., here, :] if vertical else pixels[..., here] @ block.T
            for here, _, block in blocks
        ]
        return torch.cat(parts, dim=-2 if vertical else -1)
    out = pixels.new_empty(*pixels.shape[:-2], *size)
    for here, there, block in blocks:
        if vertical:
            torch.matmul(block, pixels[..., here, :], out=out[..., there, :])
        else:
            torch.matmul(pixels[..., here], block.T, out=out[..., there])
    return out


def _both(first: _Band, pixels: Tensor, scale: int, edges: Edges, *, vertical: bool) -> Tensor:
    """Both axes of an operator, the vertical one first or last."""
    once = _apply(first, pixels, scale, edges, vertical=vertical)
    return _apply(first, once, scale, edges, vertical=not vertical)


def degrade(hr: Tensor, scale: int, edges: Edges = Edges.repeat) -> Tensor:
    """A: (..., H, W) of any float dtype and range -> (..., H / scale, W / scale), not rounded.

    H and W are multiples of the scale.
    """
    return _both(_REDUCE, hr, scale, edges, vertical=True)


def degrade_8bit(hr: Tensor, scale: int, edges: Edges = Edges.repeat) -> Tensor:
    """A on 8-bit pictures as the benchmarks' files were made: uint8 (B, C, H, W) -> uint8.

    Rounded and clamped to 0..255 after the vertical and again after the horizontal pass.
    """
    planes = hr.double()
    for vertical in (True, False):
        # Halves go up, as MATLAB's uint8() does; the bias absorbs float64 noise on exact halves.
        reduced = _apply(_REDUCE, planes, scale, edges, vertical=vertical)
        planes = (reduced + 0.5 + 1e-9).floor().clamp(0, 255)
    return planes.to(torch.uint8)


def degrade_adjoint(lr: Tensor, scale: int, edges: Edges = Edges.repeat) -> Tensor:
    """A': (..., h, w) -> (..., h * scale, w * scale), with <A hr, lr> = <hr, A' lr>."""
    return _both(_SPREAD, lr, scale, edges, vertical=False)


def solve_gram(residual: Tensor, scale: int, edges: Edges = Edges.repeat) -> Tensor:
    """(A A')^-1 on (..., h, w), its cost linear in the size; see :data:`HALO`."""
    return _both(_SOLVE, residual, scale, edges, vertical=True)


def solve_gram_nearly(residual: Tensor, scale: int, edges: Edges = Edges.repeat) -> Tensor:
    """(A A')^-1 on (..., h, w) to a few per cent, from ``SOLVE_REACH`` neighbours a side.

    Exact for constant residuals away from the borders; enough for a step of an iteration, and so
    short-sighted that the iteration works on strips.
    """
    return _both(_SOLVE_NEARLY, residual, scale, edges, vertical=True)


def project(sr: Tensor, lr: Tensor, scale: int, edges: Edges = Edges.repeat) -> Tensor:
    """The nearest picture that degrades to ``lr``: sr + A+ (lr - A sr), A+ = A' (A A')^-1.

    (..., H, W) and (..., H / scale, W / scale) of one range; not clamped. This is CVDVAE's
    consistency step (Prost 2024) with the degradation of the training pairs.
    """
    lacking = lr - degrade(sr, scale, edges)
    return sr + degrade_adjoint(solve_gram(lacking, scale, edges), scale, edges)


def project_crop(sr: Tensor, lr: Tensor, scale: int) -> Tensor:
    """:func:`project` for a crop whose LR has surroundings that the crop lacks; differentiable.

    The residual of the outer :data:`REACH` LR samples, which the surroundings had a share in,
    counts as zero. Arguments and result are those of :func:`project`; no gradient reaches ``lr``.
    """
    projected: Tensor = _CropProjection.apply(sr, lr, scale)  # type: ignore[no-untyped-call]
    return projected


class _CropProjection(torch.autograd.Function):
    """sr + A' (A A')^-1 M (lr - A sr), M the mask of the inner samples."""

    @staticmethod
    def forward(ctx: Any, sr: Tensor, lr: Tensor, scale: int) -> Tensor:
        ctx.scale = scale
        residual = _inner(lr - degrade(sr, scale))
        return sr + degrade_adjoint(solve_gram(residual, scale), scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        solved = _inner(solve_gram(degrade(gradient, ctx.scale), ctx.scale))
        return gradient - degrade_adjoint(solved, ctx.scale), None, None


def _inner(residual: Tensor) -> Tensor:
    """(..., h, w) with its outer :data:`REACH` samples zero."""
    inner = torch.zeros_like(residual)
    middle = (..., slice(REACH, -REACH), slice(REACH, -REACH))
    inner[middle] = residual[middle]
    return inner
