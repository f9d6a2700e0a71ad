"""Which layer of an unconditional VDVAE decides what: Prost 2024, appendix A.

    code i:   z ~ p(z), its first k layers kept
    draws l:  x_l ~ p(x | z_<k)                                                     (17)
    U_k^s   = mean over codes and pairs l < m of ||H_s x_l - H_s x_m||_2 / sqrt(size)   (15), (18)

H_s is the reduction by s of the training pairs; pixels are in grey levels, 0..255. U_0 is how far
apart independent pictures are; where U_k^s is next to nothing, the first k layers alone decide the
picture's reduction by s, and a CVDVAE at that scale need condition no more of them. What the paper
prints as a sum is a mean.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from vdsr_cli.config import Temperature
from vdsr_cli.consistency import degrade
from vdsr_cli.errors import UsageError
from vdsr_cli.figures.plot import Figure, Panel, draw_figure
from vdsr_cli.metrics import pairwise_rms
from vdsr_cli.models.protocol import LatentShape, NoiseSource, Prior, refuse_unknown_levels
from vdsr_cli.sampling.noise import NoiseField, noise_of, pixel_noise

NEGLIGIBLE = 0.5
"""Grey levels below which the paper calls a distance negligible."""
DEFAULT_SIZE_PX = 128
"""Side of the pictures of a prior that takes any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayersRequest:
    """The measurements to make.

    Attributes:
        codes: latent codes, 50 in the paper.
        draws: pictures of each code and k, 5 in the paper.
        every: measure k = 0, every, 2 every, ... and all layers.
        size_px: side of the pictures, or None for the prior's own or ``DEFAULT_SIZE_PX``.
        temperature: factor on every latent's standard deviation, 1 in the paper.
        output: pixels are the likelihood's mean, so that all layers decide everything; or drawn.
    """

    scales: tuple[int, ...] = (1, 2, 4, 8, 16)
    codes: int = 50
    draws: int = 5
    every: int = 1
    size_px: int | None = None
    temperature: Temperature = 1.0
    seed: int = 0
    output: Literal["mean", "sample"] = "mean"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDistances:
    """U_k^s in grey levels.

    Attributes:
        fixed: the numbers k of fixed layers.
        cells: side in pixels of each layer's cell, coarse to fine.
        mean: U by k, then by s.
        error: standard error of that mean over the codes, likewise; None for one code.
    """

    scales: tuple[int, ...]
    fixed: tuple[int, ...]
    cells: tuple[int, ...]
    mean: tuple[tuple[float, ...], ...]
    error: tuple[tuple[float, ...], ...] | None

    def curve(self, scale: int) -> list[tuple[float, float]]:
        """(k, U_k^s) of one scale."""
        column = self.scales.index(scale)
        return [(k, row[column]) for k, row in zip(self.fixed, self.mean, strict=True)]

    def visible_layers(self, scale: int) -> int:
        """How many layers are no finer than the picture reduced by ``scale``: all that an LR
        encoder at that scale can serve."""
        return sum(cell >= scale for cell in self.cells)

    def left_open(self, scale: int) -> float | None:
        """U_k^s at k = ``visible_layers``: what an LR encoder cannot decide; None if unmeasured."""
        return dict(self.curve(scale)).get(self.visible_layers(scale))

    def negligible_from(self, scale: int) -> int | None:
        """The least measured k from which on U_k^s stays below ``NEGLIGIBLE``; None if nowhere."""
        curve = self.curve(scale)
        large = [index for index, (_, u) in enumerate(curve) if not u < NEGLIGIBLE]
        first = large[-1] + 1 if large else 0
        return int(curve[first][0]) if first < len(curve) else None

    def as_json(self) -> dict[str, Any]:
        """Everything, in plain values."""
        return {
            "cells": self.cells,
            "fixed": self.fixed,
            "scales": {
                str(scale): {
                    "distance": [row[column] for row in self.mean],
                    "standard_error": self.error and [row[column] for row in self.error],
                    "visible_layers": self.visible_layers(scale),
                    "left_open": self.left_open(scale),
                    "negligible_from": self.negligible_from(scale),
                }
                for column, scale in enumerate(self.scales)
            },
        }


def picture_size(prior: Prior, request: LayersRequest) -> int:
    """The side of the pictures, checked against the prior and the scales; raises UsageError."""
    step = prior.cell_px
    size = request.size_px or prior.side_px or DEFAULT_SIZE_PX
    if size % step or prior.side_px not in (None, size):
        kind = "" if prior.side_px else "a multiple of "
        raise UsageError(f"--size {size}: this prior's pictures have a side of {kind}{step}")
    unfit = [scale for scale in request.scales if size % scale]
    if unfit:
        raise UsageError(f"--scales: {unfit[0]} does not divide the pictures' side of {size}")
    return size


def fixed_counts(layers: int, every: int) -> tuple[int, ...]:
    """The numbers k of fixed layers to measure, from none to all."""
    return (*range(0, layers, every), layers)


@torch.inference_mode()
def measure_codes(prior: Prior, request: LayersRequest) -> Iterator[Tensor]:
    """The distances of one code after another: (len(fixed_counts), scales) float64.

    Raises:
        UsageError: pictures of that size cannot be had or reduced, or temperatures of levels that
            the prior does not have.
    """
    refuse_unknown_levels(request.temperature, prior)
    size = picture_size(prior, request)
    device = next(cast(nn.Module, prior).parameters()).device
    for code in range(request.codes):
        samples = range(code * request.draws, (code + 1) * request.draws)
        fields = [NoiseField(seed=request.seed, sample=sample) for sample in samples]
        noises = [noise_of(fields, (size, size), device)(shape) for shape in prior.latent_shapes]
        rows = []
        for fixed in fixed_counts(len(noises), request.every):
            pictures = _draw(prior, fix_first(noises, fixed), fields, size, request)
            rows.append([reduced_distance(pictures, scale) for scale in request.scales])
        yield torch.tensor(rows, dtype=torch.float64)


def summarise(prior: Prior, request: LayersRequest, codes: Sequence[Tensor]) -> LayerDistances:
    """U_k^s from the distances of each code."""
    stacked = torch.stack(list(codes))
    error = stacked.std(0) / math.sqrt(len(stacked)) if len(stacked) > 1 else None
    shapes = prior.latent_shapes
    return LayerDistances(
        scales=request.scales,
        fixed=fixed_counts(len(shapes), request.every),
        cells=tuple(shape.cell for shape in shapes),
        mean=_rows(stacked.mean(0)),
        error=None if error is None else _rows(error),
    )


def _rows(values: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values.tolist())


def fix_first(noises: Sequence[Tensor], fixed: int) -> NoiseSource:
    """The noise of draws that share their first ``fixed`` layers.

    Args:
        noises: of each layer, (draws, C, h, w). The first draw is the code itself: a latent is a
            function of the noise of its layer and of those above it, so that sharing the code's
            noise in the first layers is sharing their latents.
    """

    def source(shape: LatentShape) -> Tensor:
        noise = noises[shape.layer]
        return noise[:1].expand_as(noise) if shape.layer < fixed else noise

    return source


def reduced_distance(pictures: Tensor, scale: int) -> float:
    """The mean distance of pictures (draws, 3, H, W) reduced by ``scale``, in their own unit."""
    return pairwise_rms(degrade(pictures, scale) if scale > 1 else pictures)


def _draw(
    prior: Prior,
    noise: NoiseSource,
    fields: Sequence[NoiseField],
    size: int,
    request: LayersRequest,
) -> Tensor:
    """Pictures (draws, 3, size, size) in grey levels, 0..255, not rounded."""
    parameters = prior.sample(len(fields), (size, size), noise, request.temperature)
    logistic = None
    if request.output == "sample":
        channels, device = prior.pixel_noise_channels, parameters.device
        logistic = pixel_noise(fields, channels, (size, size), device)
    return (prior.pixels(parameters, logistic).clamp(-1, 1) + 1) * 127.5


def layers_figure(distances: LayerDistances) -> Figure:
    """The paper's figure 6, and the same on a logarithmic axis beside the negligible."""
    curves = {f"reduced by {scale}": distances.curve(scale) for scale in distances.scales}
    ends = [(float(distances.fixed[0]), NEGLIGIBLE), (float(distances.fixed[-1]), NEGLIGIBLE)]
    starts = {cell: distances.cells.index(cell) for cell in dict.fromkeys(distances.cells)}
    marks = {float(layer): f"{cell}" for cell, layer in starts.items()}
    title, x_title = "pairwise distance, grey levels", "fixed layers k; above: their cells' side"
    return draw_figure(
        [
            Panel(title=title, x_title=x_title, curves=curves, marks=marks),
            Panel(
                title=f"{title}, log",
                x_title=x_title,
                curves={**curves, f"{NEGLIGIBLE:g} grey levels": ends},
                is_log=True,
                marks=marks,
            ),
        ]
    )
