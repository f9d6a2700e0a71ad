"""The likelihood of HR pictures under a model: the ELBO in bits per dimension.

    bits    = (distortion + sum of rates) / (3 H W ln 2)        Chira 2022, eq. 5
    bits_iw = -log(1/K sum_k p(hr, z_k) / q(z_k)) / (3 H W ln 2)    Burda et al. 2015, eq. 8

The posterior is drawn once, or K times, its noise read from the noise field, so that a seed gives a
figure. Beside them stands what lossless WebP makes of the same pixels: a bound that knows nothing
of the LR picture.
"""

import math
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import cast

import torch
from torch import Tensor, nn

from vdsr_cli.bench.data import Scene
from vdsr_cli.images import encode_levels
from vdsr_cli.models.blocks import drawn_rates
from vdsr_cli.models.distributions import importance_weighted_nll
from vdsr_cli.models.protocol import Elbo, LatentShape, LikelihoodModel, NoiseSource
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.noise import NoiseField

_WEBP_LONGEST_PX = 16_383
_TILE_PX = 512
"""HR side of the pieces that are scored by themselves, to bound the memory."""

Piece = tuple[int, int, Tensor, Tensor]
"""HR row and column of a part of a picture, and the part itself in HR and LR."""


@torch.inference_mode()
def elbo_bits(
    model: LikelihoodModel, scene: Scene, *, seed: int, runtime: Runtime, weights: int = 0
) -> dict[str, float]:
    """Bits per dimension of a scene's HR picture, cropped to whole cells of the coarsest level, or
    to whole pictures of a model that knows one size.

    Args:
        weights: importance weights of ``bits_iw``; 0 for none.

    Returns:
        ``bits_per_dim``, the negative ELBO; its parts ``distortion_bits`` and ``rate_bits``; the
        rate of each level as ``rate_bits_cell_16``, by the cell's side in HR pixels; ``bits_iw``;
        and ``webp_bits`` of the same pixels. Nothing of a picture that is too small.
    """
    cell, step = _grid(model, scene.scale)
    height, width = (side // cell * cell for side in scene.hr.shape[1:])
    if height * width == 0:
        return {}
    hr = scene.hr[:, :height, :width]
    pieces = list(_pieces(hr, scene.lr, scene.scale, step))
    bits = 1 / (hr.numel() * math.log(2))

    def drawn(sample: int) -> tuple[float, list[float]]:
        return _sums(model, pieces, NoiseField(seed=seed, sample=sample), runtime)

    distortion, rates = drawn(0)
    scores = {
        "bits_per_dim": (distortion + sum(rates)) * bits,
        "distortion_bits": distortion * bits,
        "rate_bits": sum(rates) * bits,
    }
    for shape, rate in zip(model.latent_shapes, rates, strict=True):
        key = f"rate_bits_cell_{shape.cell}"
        scores[key] = scores.get(key, 0.0) + rate * bits
    if weights:
        with drawn_rates(cast(nn.Module, model)):
            nats = [[d + sum(r)] for d, r in map(drawn, range(weights))]
        log_weights = -torch.tensor(nats, dtype=torch.float64)
        scores["bits_iw"] = importance_weighted_nll(log_weights).item() * bits
    return scores | webp_bits(hr)


def webp_bits(picture: Tensor) -> dict[str, float]:
    """``webp_bits``, those a dimension of a picture (3, H, W) uint8 in a lossless WebP file, all of
    which is counted; nothing of a picture that is too large for WebP.

    Of its method 4; the slowest, 6, saves another 1 to 2 % on Set5 and Set14.
    """
    if max(picture.shape) > _WEBP_LONGEST_PX:
        return {}
    file = BytesIO()
    encode_levels(file, picture.permute(1, 2, 0).numpy(), format="webp", quality=100)
    return {"webp_bits": 8 * len(file.getvalue()) / picture.numel()}


def _grid(model: LikelihoodModel, scale: int) -> tuple[int, int]:
    """The multiple that HR sides are cut to, and the side of the pieces that are scored."""
    fixed: int | None = getattr(model, "fixed_tile", None)
    cell = scale * (fixed or model.lr_multiple)
    return cell, cell if fixed else max(cell, _TILE_PX // cell * cell)


def _pieces(hr: Tensor, lr: Tensor, scale: int, step: int) -> Iterator[Piece]:
    """The uint8 HR and LR parts that tile a picture."""
    for top in range(0, hr.shape[1], step):
        for left in range(0, hr.shape[2], step):
            part = hr[:, top : top + step, left : left + step]
            high, wide = part.shape[1] // scale, part.shape[2] // scale
            row, column = top // scale, left // scale
            yield top, left, part, lr[:, row : row + high, column : column + wide]


def _sums(
    model: LikelihoodModel, pieces: Sequence[Piece], field: NoiseField, runtime: Runtime
) -> tuple[float, list[float]]:
    """Distortion and the rate of each layer over a picture, in nats."""
    distortion, rates = 0.0, torch.zeros(len(model.latent_shapes), dtype=torch.float64)
    for top, left, hr, lr in pieces:
        elbo = _elbo(model, hr, lr, _noise(field, top, left, hr, runtime.device), runtime)
        distortion += elbo.distortion.double().sum().item()
        rates += elbo.rate.double().sum(1).cpu()
    return distortion, rates.tolist()


def _noise(field: NoiseField, top: int, left: int, hr: Tensor, device: torch.device) -> NoiseSource:
    def draw(shape: LatentShape) -> Tensor:
        rows = _positions(top, hr.shape[1], shape.cell, device)
        columns = _positions(left, hr.shape[2], shape.cell, device)
        drawn = field.normal(shape.layer, rows, columns, shape.channels)
        return drawn.permute(2, 0, 1).unsqueeze(0)

    return draw


def _positions(first: int, length: int, cell: int, device: torch.device) -> Tensor:
    start = first // cell
    return torch.arange(start, start + length // cell, dtype=torch.int32, device=device)


def _elbo(
    model: LikelihoodModel, hr: Tensor, lr: Tensor, noise: NoiseSource, runtime: Runtime
) -> Elbo:
    target = (hr.unsqueeze(0).float() / 127.5 - 1).to(runtime.device)
    unit = (lr.unsqueeze(0).float() / 255).to(runtime.device)
    is_low = runtime.dtype != torch.float32
    with torch.autocast(runtime.device.type, dtype=runtime.dtype, enabled=is_low):
        return model.elbo_and_mean(target, unit, noise)[0]
