"""Unconditional priors in use: one interface to OpenAI's VDVAE and to the compact one.

    name, file or run ──► checkpoint ──► network ─┬─► PublishedPrior    one size, a mixture
                                                  └─► CompactPrior      any size, one logistic

What needs no encoder loads none: it is a quarter of a published file, and one file lacks a part.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from vdsr_cli.errors import UsageError
from vdsr_cli.models.compact_prior import CompactVDVAE
from vdsr_cli.models.dmol import CHANNELS_PER_COMPONENT, dmol_pixels, to_image
from vdsr_cli.models.logistic import logistic_pixels, negative_log_likelihood
from vdsr_cli.models.protocol import Elbo, LatentShape, NoiseSource
from vdsr_cli.models.registry import build_model
from vdsr_cli.models.upstream import ENCODER, check_published, check_state, encoder_defect
from vdsr_cli.models.vdvae import VDVAE, distortion
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.engine import PIXEL_LAYER
from vdsr_cli.sampling.noise import NoiseField
from vdsr_cli.training.start import read_network
from vdsr_cli.weights import PUBLISHED_ARCHITECTURE, Header, load_records, read_header
from vdsr_cli.weights.fetch import Progress

COMPONENT_LAYER = -2
"""The noise field's layer for the choice among a mixture's components (``--pixels sample``)."""
LOW_BIT_NOTE = (
    "trained on 5 bits, grey levels floored to multiples of 8: its pictures are given the 3.5 "
    "levels that they lack on average"
)

_ARCHITECTURES = frozenset({PUBLISHED_ARCHITECTURE, "compact-vdvae"})

Logistic = Callable[[int, int], Tensor]
"""Takes a layer of the noise field and a number of channels to logistic noise (B, C, H, W)."""


class Prior(Protocol):
    """p(picture): draws pictures (B, 3, H, W) in [0, 1], and scores given ones."""

    @property
    def model(self) -> nn.Module:
        """The network itself."""

    @property
    def side_px(self) -> int | None:
        """The side of the one size of picture it knows; None where any will do."""

    @property
    def cell_px(self) -> int:
        """Sides of pictures are multiples of this."""

    @property
    def latent_shapes(self) -> list[LatentShape]:
        """Every stochastic layer, coarse to fine."""

    @property
    def is_low_bit(self) -> bool:
        """Whether its likelihood is of 5 bits."""

    def widest_map(self, height: int, width: int) -> int:
        """The numbers of the largest feature map of one picture: what memory goes by."""

    def sample(
        self, batch: int, size: tuple[int, int], noise: NoiseSource | None, temperature: float
    ) -> Tensor:
        """The likelihood's parameters of so many pictures; ``noise`` None is the mean path."""

    def pixels(self, parameters: Tensor, logistic: Logistic | None) -> Tensor:
        """The likelihood's mean, or a draw from it; of a 5-bit model centred."""

    def posterior(self, image: Tensor, noise: NoiseSource) -> tuple[Elbo, Tensor]:
        """The parts of the ELBO of 8-bit pictures, and the likelihood's parameters behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPrior:
    """OpenAI's VDVAE; without its encoder where that was not asked for."""

    model: VDVAE

    @property
    def side_px(self) -> int | None:
        """The configuration's picture size."""
        return self.model.config.image_size

    @property
    def cell_px(self) -> int:
        """The same: the coarsest latent is of the whole picture."""
        return self.model.config.image_size

    @property
    def latent_shapes(self) -> list[LatentShape]:
        """Every stochastic layer, coarse to fine."""
        return self.model.latent_shapes

    @property
    def is_low_bit(self) -> bool:
        """Whether it is ffhq256, or another of its kind."""
        return self.model.config.low_bit

    def widest_map(self, height: int, width: int) -> int:
        """Over the resolutions of the decoder; the size is always the one it knows."""
        config = self.model.config
        sides = {layer.resolution for layer in config.decoder_layers}
        return max(config.width_at(side) * side**2 for side in sides)

    def sample(
        self, batch: int, size: tuple[int, int], noise: NoiseSource | None, temperature: float
    ) -> Tensor:
        """(batch, 10 K, S, S) float32."""
        return self.model.sample(batch, noise, temperature)

    def pixels(self, parameters: Tensor, logistic: Logistic | None) -> Tensor:
        """As the published code, but for its truncation to 8 bits; of a 5-bit model centred."""
        noise = None
        if logistic is not None:
            components = parameters.shape[1] // CHANNELS_PER_COMPONENT
            drawn = logistic(PIXEL_LAYER, 3), logistic(COMPONENT_LAYER, components)
            noise = torch.cat(drawn, dim=1)
        return to_image(dmol_pixels(parameters, noise, low_bit=self.is_low_bit))

    def posterior(self, image: Tensor, noise: NoiseSource) -> tuple[Elbo, Tensor]:
        """Of a 5-bit model, the likelihood of the floored picture."""
        parameters, rate = self.model.posterior(image, noise)
        return Elbo(distortion(image, parameters, self.model.config), rate), parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactPrior:
    """The compact VDVAE, fully convolutional."""

    model: CompactVDVAE

    side_px = None
    is_low_bit = False

    @property
    def cell_px(self) -> int:
        """The coarsest cell."""
        return self.model.config.levels[0].cell

    @property
    def latent_shapes(self) -> list[LatentShape]:
        """Every stochastic layer, coarse to fine."""
        return self.model.latent_shapes

    def widest_map(self, height: int, width: int) -> int:
        """Over the levels."""
        levels = self.model.config.levels
        return max(lv.width * (height // lv.cell) * (width // lv.cell) for lv in levels)

    def sample(
        self, batch: int, size: tuple[int, int], noise: NoiseSource | None, temperature: float
    ) -> Tensor:
        """(batch, 6 or 9, H, W) float32."""
        return self.model.sample(batch, size, noise, temperature)

    def pixels(self, parameters: Tensor, logistic: Logistic | None) -> Tensor:
        """Noise as ``vdsr upscale`` draws it."""
        noise = None if logistic is None else logistic(PIXEL_LAYER, 3)
        return to_image(logistic_pixels(parameters, noise))

    def posterior(self, image: Tensor, noise: NoiseSource) -> tuple[Elbo, Tensor]:
        """Of 256 grey levels."""
        parameters, rate = self.model.posterior(image, noise)
        nll = negative_log_likelihood(2 * image.float() - 1, parameters)
        return Elbo(nll, rate), parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPrior:
    """A placed prior, as the user named it."""

    name: str
    prior: Prior


def is_prior(name: str) -> bool:
    """Whether a name, a file or a run is of an unconditional prior; fetches nothing.

    What cannot be told without a download, such as an address, is taken for none.
    """
    record, path = load_records().get(name), Path(name).expanduser()
    if record is not None:
        return record.architecture in _ARCHITECTURES
    if path.suffix == ".safetensors" and path.is_file():
        return read_header(path).architecture in _ARCHITECTURES
    return path.exists() and read_network(name).architecture in _ARCHITECTURES


def load_prior(
    name: str, runtime: Runtime, *, has_encoder: bool = False, progress: Progress | None = None
) -> LoadedPrior:
    """The prior of a name, a weights file, a published pickle, a run folder or its checkpoint.

    Args:
        name: as the user gave it.
        runtime: where to place it.
        has_encoder: whether pictures will be encoded: without, a published encoder is not loaded.
        progress: called while a download arrives.

    Raises:
        WeightsError: missing, damaged, or not of its own configuration.
        UsageError: another kind of network.
    """
    checkpoint = read_network(name, progress=progress)
    if checkpoint.architecture not in _ARCHITECTURES:
        raise UsageError(
            f"{name} is a {checkpoint.architecture}, not an unconditional prior",
            hint="vdvae-x4-prior and the openai/ models are, and runs of vdsr train vdvae",
        )
    with torch.device("meta"):
        model = build_model(checkpoint.architecture, checkpoint.config, stored=checkpoint.numbers)
    state = {key: value.float() for key, value in checkpoint.state.items()}
    if isinstance(model, VDVAE) and not has_encoder:
        del model.encoder
        state = {key: value for key, value in state.items() if not key.startswith(ENCODER)}
    check_state(name, model, state, published=checkpoint.config.get("published"))
    model.load_state_dict(state, strict=True, assign=True)
    placed = runtime.place(model)
    if isinstance(placed, VDVAE):
        return LoadedPrior(name=name, prior=PublishedPrior(model=placed))
    return LoadedPrior(name=name, prior=CompactPrior(model=cast(CompactVDVAE, placed)))


def defect_of(header: Header) -> str | None:
    """What a published prior's file lacks, for a person; None of a whole one, or of another.

    Raises:
        WeightsError: a file that cannot even generate.
    """
    published = header.config.get("published")
    if header.architecture != PUBLISHED_ARCHITECTURE or published is None:
        return None
    shapes = {key: facts.shape for key, facts in header.tensors.items()}
    lacking = check_published(published, shapes)
    return encoder_defect(lacking) if lacking else None


def noise_of(
    fields: Sequence[NoiseField],
    size: tuple[int, int],
    device: torch.device,
    *,
    origin: tuple[int, int] = (0, 0),
) -> NoiseSource:
    """The latents' noise of some samples: (samples, channels, H / cell, W / cell) of each layer.

    ``origin`` is where in a larger picture the pixels begin, row and column in whole cells.
    """

    def draw(shape: LatentShape) -> Tensor:
        spans = zip(origin, size, strict=True)
        rows, columns = (_cells(start, length, shape.cell, device) for start, length in spans)
        drawn = [field.normal(shape.layer, rows, columns, shape.channels) for field in fields]
        return torch.stack(drawn).permute(0, 3, 1, 2)

    return draw


def logistic_of(
    fields: Sequence[NoiseField], size: tuple[int, int], device: torch.device
) -> Logistic:
    """The pixels' noise of some samples."""

    def draw(layer: int, channels: int) -> Tensor:
        rows, columns = (_cells(0, length, 1, device) for length in size)
        drawn = [field.logistic(layer, rows, columns, channels) for field in fields]
        return torch.stack(drawn).permute(0, 3, 1, 2)

    return draw


def _cells(start: int, length: int, cell: int, device: torch.device) -> Tensor:
    first = start // cell
    return torch.arange(first, first + length // cell, dtype=torch.int32, device=device)
