"""The likelihood of HR pictures under a model: the ELBO in bits per dimension.

    bits    = (distortion + sum of rates) / (3 H W ln 2)        Chira 2022, eq. 5
    bits_iw = -log(1/K sum_k p(hr, z_k) / q(z_k)) / (3 H W ln 2)    Burda et al. 2015, eq. 8

The posterior is drawn once, or K times, its noise read from the noise field, so that a seed gives a
figure. Beside them stands what lossless WebP, and JPEG XL where its extra is installed, make of the
same pixels: bounds that know nothing of the LR picture.

Codecs send a picture of at most 256 colours, one in grey or of a GIF, as its palette and the index
of each pixel. ``palette_bits`` is what a model makes of it in the same way: the colours, and each
pixel with its likelihood divided by its sum over them. Of other pictures it is the bound itself.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from io import BytesIO
from operator import add
from typing import cast

import torch
from torch import Tensor, nn

from vdsr_cli.bench.data import Scene
from vdsr_cli.images import encode_levels
from vdsr_cli.images.extras import has_extra
from vdsr_cli.models.blocks import drawn_rates
from vdsr_cli.models.distributions import importance_weighted_nll
from vdsr_cli.models.protocol import LatentShape, LikelihoodModel
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.noise import NoiseField, noise_of

PIECE_PX = 512
"""HR side of the pieces that are scored by themselves, to bound the memory."""

PALETTE = 256
"""The most colours of a palette."""
_BITS_A_COLOUR, _BITS_OF_THEIR_NUMBER = 24, 8
_WEBP_LONGEST_PX = 16_383


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tally:
    """Sums over the dimensions of a picture, or of pieces of one, at one draw of the posterior.

    Attributes:
        dimensions: how many there are, 3 H W.
        distortion: -log p(picture | z), nats.
        rates: KL of each layer, nats, (layers,) float64.
        squared_error: of a reconstruction, in squared grey levels; 0 where there is none.
    """

    dimensions: int
    distortion: float
    rates: Tensor
    squared_error: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            dimensions=self.dimensions + other.dimensions,
            distortion=self.distortion + other.distortion,
            rates=self.rates + other.rates,
            squared_error=self.squared_error + other.squared_error,
        )

    @property
    def nats(self) -> float:
        """The negative ELBO."""
        return self.distortion + self.rates.sum().item()

    @property
    def bits_per_dim(self) -> float:
        """The negative ELBO in bits per dimension."""
        return self.nats / (self.dimensions * math.log(2))

    def scores(self, shapes: Sequence[LatentShape]) -> dict[str, float]:
        """``bits_per_dim``, the negative ELBO; its parts ``distortion_bits`` and ``rate_bits``; the
        rate of each level as ``rate_bits_cell_16``, by the cell's side in HR pixels."""
        bits = 1 / (self.dimensions * math.log(2))
        scores = {
            "bits_per_dim": self.bits_per_dim,
            "distortion_bits": self.distortion * bits,
            "rate_bits": self.rates.sum().item() * bits,
        }
        for shape, rate in zip(shapes, self.rates.tolist(), strict=True):
            key = f"rate_bits_cell_{shape.cell}"
            scores[key] = scores.get(key, 0.0) + rate * bits
        return scores


def weighted_bits(drawn: Sequence[Tally]) -> dict[str, float]:
    """``bits_iw`` of a picture, from as many importance weights as draws of its posterior, whose
    rates are those of the draw."""
    log_weights = -torch.tensor([[tally.nats] for tally in drawn], dtype=torch.float64)
    nats = importance_weighted_nll(log_weights).item()
    return {"bits_iw": nats / (drawn[0].dimensions * math.log(2))}


def palette_of(picture: Tensor) -> Tensor | None:
    """The colours of (3, H, W) uint8, (K, 3) in [-1, 1]; None of more than 256."""
    red, green, blue = picture.int()
    packed = torch.unique(red << 16 | green << 8 | blue)
    if len(packed) > PALETTE:
        return None
    colours = torch.stack([packed >> 16, packed >> 8 & 255, packed & 255], 1)
    return colours.float() / 127.5 - 1


def palette_bits(picture: Tensor, tally: Tally, inside: Callable[[Tensor], Tally]) -> float:
    """Bits per dimension of (3, H, W) uint8 over its palette, which is included; of one without,
    those of its tally. ``inside`` draws the tally over a palette (K, 3)."""
    palette, sent = palette_of(picture), 0
    if palette is not None:
        tally = inside(palette)
        sent = _BITS_A_COLOUR * len(palette) + _BITS_OF_THEIR_NUMBER
    return tally.bits_per_dim + sent / tally.dimensions


def pieces(pictures: Tensor, step: int) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """The squares that tile (..., H, W), smaller at its ends: first row and column, and pixels."""
    for top in range(0, pictures.shape[-2], step):
        for left in range(0, pictures.shape[-1], step):
            yield (top, left), pictures[..., top : top + step, left : left + step]


def elbo_bits(
    model: LikelihoodModel, scene: Scene, *, seed: int, runtime: Runtime, weights: int = 0
) -> dict[str, float]:
    """:func:`bound_bits`, and :func:`lossless_bits` of the same pixels."""
    scores = bound_bits(model, scene, seed=seed, runtime=runtime, weights=weights)
    return scores | _lossless_of(scene, *_whole_cells(model, scene)) if scores else {}


@torch.inference_mode()
def bound_bits(
    model: LikelihoodModel, scene: Scene, *, seed: int, runtime: Runtime, weights: int = 0
) -> dict[str, float]:
    """Bits per dimension of a scene's HR picture, cropped to whole cells of the coarsest level, or
    to whole pictures of a model that knows one size.

    Args:
        weights: importance weights of ``bits_iw``; 0 for none.

    Returns:
        Those of :meth:`Tally.scores`, ``palette_bits`` of models that take a palette, and
        ``bits_iw``. Nothing of a picture that is too small.
    """
    height, width = _whole_cells(model, scene)
    if height * width == 0:
        return {}
    hr, (_, step) = scene.hr[:, :height, :width], _grid(model, scene.scale)

    def drawn(sample: int, **options: Tensor) -> Tally:
        field = NoiseField(seed=seed, sample=sample)
        parts = (
            _tally(model, scene, *piece, field, runtime, options) for piece in pieces(hr, step)
        )
        return reduce(add, parts)

    tally = drawn(0)
    scores = tally.scores(model.latent_shapes)
    if takes_palette(model):
        scores["palette_bits"] = palette_bits(
            hr, tally, lambda palette: drawn(0, palette=palette.to(runtime.device))
        )
    if weights:
        with drawn_rates(cast(nn.Module, model)):
            scores |= weighted_bits([drawn(sample) for sample in range(weights)])
    return scores


@lru_cache(maxsize=1)
def _lossless_of(scene: Scene, height: int, width: int) -> dict[str, float]:
    """Those of a scene's first rows and columns, kept for the next model and seed."""
    return lossless_bits(scene.hr[:, :height, :width])


def lossless_bits(picture: Tensor) -> dict[str, float]:
    """``webp_bits`` and ``jxl_bits``, those a dimension of a picture (3, H, W) uint8 in a lossless
    file, all of which is counted.

    WebP is of method 4, whose slowest, 6, saves another 1 to 2 % on Set5 and Set14; JPEG XL of
    effort 7. WebP is left out of a picture that is too large for it, JPEG XL without its extra.
    """
    scores = {}
    if max(picture.shape) <= _WEBP_LONGEST_PX:
        scores["webp_bits"] = _file_bits(picture, "webp")
    if has_extra("jxl"):
        scores["jxl_bits"] = _file_bits(picture, "jxl")
    return scores


def _file_bits(picture: Tensor, format: str) -> float:
    file = BytesIO()
    encode_levels(file, picture.permute(1, 2, 0).contiguous().numpy(), format=format, quality=100)
    return 8 * len(file.getvalue()) / picture.numel()


def takes_palette(model: object) -> bool:
    """Whether a model's likelihood can be normalised over a palette."""
    return getattr(model, "takes_palette", False)


def _whole_cells(model: LikelihoodModel, scene: Scene) -> tuple[int, int]:
    """Height and width that a scene's HR picture is cropped to."""
    cell, _ = _grid(model, scene.scale)
    height, width = (side // cell * cell for side in scene.hr.shape[1:])
    return height, width


def _grid(model: LikelihoodModel, scale: int) -> tuple[int, int]:
    """The multiple that HR sides are cut to, and the side of the pieces that are scored."""
    fixed: int | None = getattr(model, "fixed_tile", None)
    cell = scale * (fixed or model.lr_multiple)
    return cell, cell if fixed else max(cell, PIECE_PX // cell * cell)


def _tally(
    model: LikelihoodModel,
    scene: Scene,
    origin: tuple[int, int],
    hr: Tensor,
    field: NoiseField,
    runtime: Runtime,
    options: Mapping[str, Tensor],
) -> Tally:
    """The sums of one piece, uint8 (3, H, W), of a scene; ``options`` of the model's likelihood."""
    top, left = (first // scene.scale for first in origin)
    high, wide = (side // scene.scale for side in hr.shape[1:])
    lr = scene.lr[:, top : top + high, left : left + wide]
    target = (hr.unsqueeze(0).float() / 127.5 - 1).to(runtime.device)
    unit = (lr.unsqueeze(0).float() / 255).to(runtime.device)
    noise = noise_of([field], (hr.shape[1], hr.shape[2]), runtime.device, origin=origin)
    is_low = runtime.dtype != torch.float32
    with torch.autocast(runtime.device.type, dtype=runtime.dtype, enabled=is_low):
        elbo = model.elbo_and_mean(target, unit, noise, **options)[0]
    return Tally(
        dimensions=hr.numel(),
        distortion=elbo.distortion.double().sum().item(),
        rates=elbo.rate.double().sum(1).cpu(),
    )
