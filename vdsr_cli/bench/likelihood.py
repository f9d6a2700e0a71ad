"""The likelihood of HR pictures under a model: the ELBO in bits per dimension.

    bits = (distortion + sum of rates) / (3 H W ln 2)        Chira 2022, eq. 5

The posterior is drawn once, its noise read from the noise field, so that a seed gives a figure.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from vdsr_cli.bench.data import Scene
from vdsr_cli.models.protocol import Elbo, LatentShape, LikelihoodModel, NoiseSource
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.noise import NoiseField

_TILE_PX = 512
"""HR side of the pieces that are scored by themselves, to bound the memory."""


@torch.inference_mode()
def elbo_bits(
    model: LikelihoodModel, scene: Scene, *, seed: int, runtime: Runtime
) -> dict[str, float]:
    """Bits per dimension of a scene's HR picture, cropped to whole cells of the coarsest level.

    Returns:
        ``bits_per_dim``, the negative ELBO; its parts ``distortion_bits`` and ``rate_bits``; and
        the rate of each level as ``rate_bits_cell_16``, by the cell's side in HR pixels.
    """
    shapes = model.latent_shapes
    distortion, rates, dimensions = 0.0, torch.zeros(len(shapes), dtype=torch.float64), 0
    for top, left, hr, lr in _pieces(scene, model.lr_multiple):
        noise = _noise(NoiseField(seed=seed), top, left, hr, runtime.device)
        elbo = _elbo(model, hr, lr, noise, runtime)
        distortion += elbo.distortion.double().sum().item()
        rates += elbo.rate.double().sum(1).cpu()
        dimensions += hr.numel()
    if dimensions == 0:
        return {}
    bits = 1 / (dimensions * math.log(2))
    scores = {
        "bits_per_dim": (distortion + rates.sum().item()) * bits,
        "distortion_bits": distortion * bits,
        "rate_bits": rates.sum().item() * bits,
    }
    for shape, rate in zip(shapes, rates.tolist(), strict=True):
        key = f"rate_bits_cell_{shape.cell}"
        scores[key] = scores.get(key, 0.0) + rate * bits
    return scores


def _pieces(scene: Scene, lr_multiple: int) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """HR row and column, and the uint8 HR and LR parts from there, that tile the picture."""
    cell = lr_multiple * scene.scale
    step = max(cell, _TILE_PX // cell * cell)
    height, width = (side // cell * cell for side in scene.hr.shape[1:])
    for top in range(0, height, step):
        for left in range(0, width, step):
            hr = scene.hr[:, top : min(top + step, height), left : min(left + step, width)]
            high, wide = hr.shape[1] // scene.scale, hr.shape[2] // scene.scale
            row, column = top // scene.scale, left // scene.scale
            yield top, left, hr, scene.lr[:, row : row + high, column : column + wide]


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
