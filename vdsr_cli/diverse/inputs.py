"""The inputs of a run of ``vdsr sample-diverse``: the noise of each sample, and the mask."""

from pathlib import Path

import torch
from torch import Tensor

from vdsr_cli.diverse.records import DiverseRequest
from vdsr_cli.errors import InputError, UsageError
from vdsr_cli.images import Picture, read_picture
from vdsr_cli.sampling.engine import SampleNoise
from vdsr_cli.sampling.latents import (
    LatentGrid,
    MaskedNoise,
    WalkNoise,
    count_latents,
    layer_angles,
    load_latents,
)
from vdsr_cli.sampling.noise import NoiseField

DEFAULT_SAMPLES = 5


def choose_noises(
    request: DiverseRequest, grid: LatentGrid, mask: Tensor | None
) -> list[SampleNoise]:
    """The noise of each sample: of the seed or of a file, then masked or walked as asked.

    Raises:
        InputError: latents that cannot be used.
        UsageError: more samples are wanted than the file of latents holds.
    """
    drawn = _plain_noises(request, grid)
    if request.walk is not None:
        return _walk_noises(drawn, request, grid)
    if mask is None:
        return drawn
    base, *others = drawn
    return [base, *(MaskedNoise(noise, base, mask, grid.shapes) for noise in others)]


def count_samples(request: DiverseRequest) -> int:
    """How many pictures a temperature will have, before any are picked.

    Raises:
        InputError: latents that cannot be used.
        UsageError: more samples are wanted than the file of latents holds.
    """
    drawn = _count_drawn(request)
    return drawn if request.walk is None else request.walk.steps


def _count_drawn(request: DiverseRequest) -> int:
    """How many samples of noise are needed: those on a walk come from two of them."""
    wanted = request.samples
    if request.walk is not None:
        wanted = max(request.walk.start, request.walk.end) + 1
    if request.from_latents is None:
        return wanted or DEFAULT_SAMPLES
    stored = count_latents(request.from_latents)
    if wanted is not None and wanted > stored:
        raise UsageError(f"{request.from_latents} holds {stored} samples, not {wanted}")
    return wanted or stored


def _plain_noises(request: DiverseRequest, grid: LatentGrid) -> list[SampleNoise]:
    count = _count_drawn(request)
    if request.from_latents is None:
        return [NoiseField(seed=request.settings.seed, sample=i) for i in range(count)]
    return list(load_latents(request.from_latents, grid)[:count])


def _walk_noises(
    noises: list[SampleNoise], request: DiverseRequest, grid: LatentGrid
) -> list[SampleNoise]:
    assert request.walk is not None
    start, end = noises[request.walk.start], noises[request.walk.end]
    angles = layer_angles(start, end, grid)
    last = request.walk.steps - 1
    return [WalkNoise(start, end, step / last, angles) for step in range(last + 1)]


def read_mask(path: Path, picture: Picture, scale: int) -> Tensor:
    """The mask of a result: (H, W) bool, set where the file is brighter than mid-grey.

    Args:
        path: of the size of the input or of the result.

    Raises:
        InputError: it cannot be read, or is of another size.
    """
    mask = read_picture(path).rgb[0].mean(0) > 0.5
    height, width = picture.height * scale, picture.width * scale
    if tuple(mask.shape) == (picture.height, picture.width):
        mask = mask.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    if tuple(mask.shape) != (height, width):
        raise InputError(
            f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]} pixels",
            hint=f"make it {picture.width}x{picture.height} or {width}x{height}",
        )
    if not bool(torch.any(mask)):
        raise InputError(f"{path}: the mask is black throughout; white is what is drawn anew")
    return mask
