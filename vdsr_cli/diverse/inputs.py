"""The inputs of a run of ``vdsr sample-diverse``: the noise of each sample, and the mask."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vdsr_cli.diverse.records import DiverseRequest
from vdsr_cli.errors import InputError, UsageError
from vdsr_cli.images import Picture, read_picture
from vdsr_cli.loading import LoadedModel
from vdsr_cli.sampling.engine import SampleNoise
from vdsr_cli.sampling.latents import (
    LatentGrid,
    MaskedNoise,
    WalkNoise,
    count_latents,
    latents_header,
    layer_angles,
    load_latents,
)
from vdsr_cli.sampling.noise import NoiseField
from vdsr_cli.weights import load_records

DEFAULT_SAMPLES = 5


def drawn_noises(request: DiverseRequest, grid: LatentGrid) -> list[SampleNoise]:
    """The noise of each sample that is drawn: of the seed or of a file.

    Raises:
        InputError: latents that cannot be used.
        UsageError: more samples are wanted than the file of latents holds.
    """
    count = _count_drawn(request)
    if request.from_latents is None:
        return [*_fields(request.settings.seed, count)]
    return list(load_latents(request.from_latents, grid)[:count])


def seed_of(drawn: Sequence[SampleNoise], request: DiverseRequest, grid: LatentGrid) -> int | None:
    """The seed that gives the samples drawn: of latents the one that their file names, if it does
    give them, else None."""
    if request.from_latents is None:
        return request.settings.seed
    seed = latents_header(request.from_latents).get("seed")
    if type(seed) is not int:
        return None
    is_given = all(
        torch.allclose(grid.draw(noise, shape), grid.draw(field, shape), rtol=0, atol=1e-5)
        for noise, field in zip(drawn, _fields(seed, len(drawn)), strict=True)
        for shape in grid.shapes
    )
    return seed if is_given else None


def check_latents(path: Path, loaded: LoadedModel) -> tuple[str, ...]:
    """Notes on the model that a file of latents names, where it may be another.

    Raises:
        InputError: it is another of the published ones, or there is no such file.
    """
    name = latents_header(path).get("model")
    if not isinstance(name, str) or name == loaded.name:
        return ()
    if loaded.record is not None and name in load_records():
        raise InputError(
            f"{path}: its latents are of {name}, not of {loaded.name}",
            hint="give the --model that drew them",
        )
    return (f"{path}: its latents are of {name}, which may be another model",)


def choose_noises(
    drawn: list[SampleNoise], request: DiverseRequest, grid: LatentGrid, mask: Tensor | None
) -> list[SampleNoise]:
    """The noise of each sample: as it is drawn, or masked or walked as asked."""
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


def _fields(seed: int, count: int) -> list[NoiseField]:
    return [NoiseField(seed=seed, sample=index) for index in range(count)]


def _walk_noises(
    noises: list[SampleNoise], request: DiverseRequest, grid: LatentGrid
) -> list[SampleNoise]:
    assert request.walk is not None
    start, end = noises[request.walk.start], noises[request.walk.end]
    angles = layer_angles(start, end, grid)
    last = request.walk.steps - 1
    return [WalkNoise(start, end, step / last, angles) for step in range(last + 1)]


def read_mask(path: Path, picture: Picture, scale: int, max_pixels: int) -> Tensor:
    """The mask of a result: (H, W) bool, set where the file is brighter than mid-grey.

    Args:
        path: of the size of the input or of the result.
        max_pixels: the limit of inputs; a mask may have as many as the result.

    Raises:
        InputError: it cannot be read, or is of another size.
    """
    height, width = picture.height * scale, picture.width * scale
    mask = read_picture(path, max_pixels=max(max_pixels, height * width)).rgb[0].mean(0) > 0.5
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
