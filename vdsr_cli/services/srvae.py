"""The use cases of srVAE: its operations on small crops, drawn as sheets, and its scores.

Reconstruction, interpolation and scores are of the VAE it is compared with too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vdsr_cli.config import torch_seed
from vdsr_cli.errors import InputError, UsageError
from vdsr_cli.figures.contact_sheet import Entry, contact_sheet, enlarged
from vdsr_cli.images.levels import to_levels
from vdsr_cli.images.resize import bicubic
from vdsr_cli.metrics import FEWEST_PICTURES, InceptionFeatures, frechet_distance, psnr_y
from vdsr_cli.metrics.learned import choose_metrics, load_learned
from vdsr_cli.models.distributions import importance_weighted_nll
from vdsr_cli.models.dmol import CHANNELS_PER_COMPONENT, dmol_mean, dmol_sample
from vdsr_cli.models.flow_vae import FlowVAE
from vdsr_cli.models.protocol import LatentShape, NoiseSource
from vdsr_cli.models.srvae import SCALE, SRVAE, Autoencoder, Bound
from vdsr_cli.training.data import CropSpec, PictureStore, find_pictures
from vdsr_cli.training.objectives import to_unit_range

PSNR_CAP = 60.0
"""A crop whose luma is met more nearly than this, such as a flat one, counts as this."""

DEFAULT_CROPS = 512

_BATCH = 64
_SHOWN_PX = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How an operation draws.

    Attributes:
        is_sampled: pixels are drawn from the likelihood instead of its mean.
    """

    temperature: float = 0.8
    seed: int = 0
    is_sampled: bool = False


AT_THE_MEAN = Drawing(temperature=0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crops:
    """hr (N, 3, S, S) and lr (N, 3, S / 2, S / 2), uint8."""

    hr: Tensor
    lr: Tensor

    def batches(self) -> "list[Crops]":
        """The same, some at a time."""
        pairs = zip(self.hr.split(_BATCH), self.lr.split(_BATCH), strict=True)  # type: ignore[no-untyped-call]
        return [Crops(hr=hr, lr=lr) for hr, lr in pairs]


def take_crops(sources: Sequence[Path], *, count: int | None, size_px: int, seed: int) -> Crops:
    """Random crops of pictures, in proportion to their area, with LR of their true surroundings;
    of a set of pictures of that very size, such as CIFAR-10, each whole and once.

    Args:
        count: how many; None for all whole pictures, or :data:`DEFAULT_CROPS`.

    Raises:
        InputError: a picture cannot be read, or none is large enough.
    """
    lr_size = size_px // SCALE
    store = PictureStore(find_pictures(sources), scale=SCALE, min_lr_size=lr_size)
    generator = torch.Generator().manual_seed(torch_seed(seed))
    if bool((store.sizes == lr_size).all()):
        chosen = torch.randperm(len(store.sizes), generator=generator)[:count]
        return Crops(hr=_wholes(store.hr, size_px)[chosen], lr=_wholes(store.lr, lr_size)[chosen])
    spec = CropSpec(batch=count or DEFAULT_CROPS, lr_size=lr_size, scale=SCALE)
    hr, lr = store.batch(spec, generator)
    return Crops(hr=hr.contiguous(), lr=lr.contiguous())


def _wholes(pixels: Tensor, side: int) -> Tensor:
    """(N side side, 3) -> (N, 3, side, side)."""
    return pixels.view(-1, side, side, 3).permute(0, 3, 1, 2)


class Drawer:
    """A model and one stream of random numbers; its methods are the paper's operations."""

    def __init__(self, model: Autoencoder, drawing: Drawing) -> None:
        self.model, self.drawing = model, drawing
        self.generator = torch.Generator().manual_seed(torch_seed(drawing.seed))
        self.device = next(cast(nn.Module, model).parameters()).device

    def generate(self, count: int) -> Crops:
        """Pictures out of nothing: lr first, then hr given it."""
        noise = self._noise(count, self.model.config.hr_size)
        choice = torch.rand(count, generator=self.generator).to(self.device)
        temperature = self.drawing.temperature
        lr, parameters = self._srvae.generate(noise, choice, temperature, self._pixels)
        return Crops(hr=self._picture(parameters), lr=to_levels(lr).cpu())

    def super_resolve(self, crops: Crops) -> Tensor:
        """hr from lr alone: (N, 3, S, S) uint8."""
        noise, lr = self._noise(len(crops.lr), crops.hr.shape[3]), self._unit(crops.lr)
        return self._picture(self._srvae.super_resolve(lr, noise, self.drawing.temperature))

    def reconstruct(self, crops: Crops) -> Tensor:
        """hr from its own code z and its lr: (N, 3, S, S) uint8."""
        noise, lr = self._noise(len(crops.lr), crops.hr.shape[3]), self._unit(crops.lr)
        hr = self._unit(crops.hr)
        return self._picture(self.model.reconstruct(hr, lr, noise, self.drawing.temperature))

    def reconstruct_generatively(self, crops: Crops) -> Tensor:
        """hr from the code u of lr, lr itself being drawn again: (N, 3, S, S) uint8."""
        noise, lr = self._noise(len(crops.lr), crops.hr.shape[3]), self._unit(crops.lr)
        temperature = self.drawing.temperature
        drawn = self._srvae.reconstruct_generatively(lr, noise, temperature, self._pixels)
        return self._picture(drawn[1])

    def pictures(self, count: int) -> Tensor:
        """Pictures out of nothing, of either model: (count, 3, S, S) uint8."""
        if not isinstance(self.model, FlowVAE):
            return self.generate(count).hr
        side = self.model.side_px
        noise, temperature = self._noise(count, side), self.drawing.temperature
        return self._picture(self.model.sample(count, (side, side), noise, temperature))

    def interpolate(self, crops: Crops, others: Crops, steps: int) -> list[Tensor]:
        """From crops to others, ``steps`` even steps between the means of their codes."""
        ends = [self.model.codes(self._unit(c.hr), self._unit(c.lr)) for c in (crops, others)]
        shares = torch.linspace(0, 1, steps).tolist()
        between = [tuple(a.lerp(b, t) for a, b in zip(*ends, strict=True)) for t in shares]
        return [self._picture(self.model.decode(codes, self._pixels)) for codes in between]

    def bound(self, crops: Crops) -> Bound:
        """The ELBO's parts at one draw of u and z."""
        noise = self._noise(len(crops.lr), crops.hr.shape[3])
        return self.model.bound(self._unit(crops.hr), self._unit(crops.lr), noise)

    @property
    def _srvae(self) -> SRVAE:
        """The model, where an operation is srVAE's alone."""
        return cast(SRVAE, self.model)

    def _unit(self, pixels: Tensor) -> Tensor:
        return to_unit_range(pixels.to(self.device))

    def _noise(self, batch: int, size_px: int) -> NoiseSource:
        def draw(shape: LatentShape) -> Tensor:
            side = size_px // shape.cell
            drawn = torch.randn(batch, shape.channels, side, side, generator=self.generator)
            return drawn.to(self.device)

        return draw

    def _pixels(self, parameters: Tensor) -> Tensor:
        """A picture in [-1, 1] from a likelihood's parameters."""
        if not self.drawing.is_sampled:
            return dmol_mean(parameters)
        batch, channels, height, width = parameters.shape

        def uniform(count: int) -> Tensor:
            drawn = torch.rand(batch, count, height, width, generator=self.generator)
            return drawn.to(self.device)

        return dmol_sample(parameters, uniform(channels // CHANNELS_PER_COMPONENT), uniform(3))

    def _picture(self, parameters: Tensor) -> Tensor:
        return to_levels((self._pixels(parameters) + 1) / 2).cpu()


Operation = Callable[[Drawer, Crops], Tensor]

OPERATIONS: Mapping[str, Operation] = {
    "super-resolution": Drawer.super_resolve,
    "reconstruction": Drawer.reconstruct,
    "generative reconstruction": Drawer.reconstruct_generatively,
}
"""Operations on given pictures, by name."""


@torch.inference_mode()
def draw_generated(model: SRVAE, drawing: Drawing, *, count: int) -> NDArray[np.uint8]:
    """A sheet of pictures out of nothing, each beside its lr: (H, W, 3) uint8."""
    entries = _generated(Drawer(model, drawing), count)
    across = 2 * max(1, round(math.sqrt(count / 2)))
    rows = [entries[start : start + across] for start in range(0, len(entries), across)]
    return contact_sheet(rows, title=f"srVAE: generated at temperature {drawing.temperature:g}")


@torch.inference_mode()
def draw_operation(
    model: Autoencoder, crops: Crops, name: str, drawing: Drawing, *, samples: int
) -> NDArray[np.uint8]:
    """A sheet with a row a crop: hr, lr, bicubic, the operation at its mean, and ``samples`` draws.

    The labels tell the PSNR of the luma against hr.
    """
    operation, drawer = OPERATIONS[name], Drawer(model, drawing)
    columns = {
        "bicubic": _bicubic(crops),
        "at the mean": operation(Drawer(model, AT_THE_MEAN), crops),
        **{f"sample {i + 1}": operation(drawer, crops) for i in range(samples)},
    }
    rows = [_row(crops, columns, row) for row in range(len(crops.hr))]
    return contact_sheet(rows, title=f"srVAE: {name}, samples at {drawing.temperature:g}, dB")


@torch.inference_mode()
def draw_interpolation(model: Autoencoder, crops: Crops, *, steps: int) -> NDArray[np.uint8]:
    """A sheet with a row for every two crops: the first, ``steps`` pictures between the means of
    their codes, both ends included, and the second; an odd one is left out. Raises InputError where
    there are no two."""
    paired = len(crops.hr) // 2 * 2
    if not paired:
        raise InputError("two pictures are needed to interpolate between")
    first, second = (Crops(hr=crops.hr[i:paired:2], lr=crops.lr[i:paired:2]) for i in (0, 1))
    between = Drawer(model, AT_THE_MEAN).interpolate(first, second, steps)
    shares = torch.linspace(0, 1, steps).tolist()
    rows = [
        [
            _entry("HR", first.hr[row]),
            *(_entry(f"{t:.2f}", made[row]) for t, made in zip(shares, between, strict=True)),
            _entry("HR", second.hr[row]),
        ]
        for row in range(len(first.hr))
    ]
    return contact_sheet(rows, title="Interpolation between the codes of two pictures")


@torch.inference_mode()
def draw_figure(model: SRVAE, crops: Crops, drawing: Drawing) -> NDArray[np.uint8]:
    """The four operations on one sheet: a row a crop with the three that start from it, and a row
    of pictures out of nothing. The labels tell the PSNR of the luma against hr."""
    drawer = Drawer(model, drawing)
    columns = {
        "bicubic": _bicubic(crops),
        "SR, mean": Drawer(model, AT_THE_MEAN).super_resolve(crops),
        "SR, sample": drawer.super_resolve(crops),
        "reconstr.": drawer.reconstruct(crops),
        "gen. rec.": drawer.reconstruct_generatively(crops),
    }
    rows = [_row(crops, columns, row) for row in range(len(crops.hr))]
    rows.append(_generated(drawer, len(rows[0]) // 2))
    return contact_sheet(
        rows,
        title=f"srVAE: super-resolution, reconstructions and, last, generation"
        f" at temperature {drawing.temperature:g}; dB",
    )


def load_inception(pictures: int, folder: Path | None) -> InceptionFeatures:
    """The features that FID compares, out of a folder, the cache or a download.

    Raises:
        UsageError: too few pictures for an FID.
        WeightsError: their weights cannot be had.
    """
    if pictures < FEWEST_PICTURES:
        raise UsageError(f"--fid needs {FEWEST_PICTURES} pictures, there are {pictures}")
    learned = load_learned(choose_metrics("fid"), folder)
    if learned.inception is None:
        raise learned.missing["fid"]
    return learned.inception


@torch.inference_mode()
def score_srvae(
    model: Autoencoder,
    crops: Crops,
    drawing: Drawing,
    *,
    weights: int = 0,
    inception: InceptionFeatures | None = None,
) -> dict[str, Any]:
    """PSNR of the luma (mean over crops, dB, shaved by 2) and the likelihood of held-out crops.

    Args:
        weights: importance weights a crop for the likelihood; 0 for the ELBO alone.
        inception: features for the FID of as many pictures out of nothing, at temperature 1 and the
            likelihood's mean, against the crops; None for none.

    Returns:
        ``crops``; ``psnr`` of ``bicubic``, of srVAE's ``super_resolution`` at its mean and as a
        ``sample``, and of the ``reconstruction`` at its mean; srVAE's ``better_than_bicubic``, the
        share of crops on which the mean is; ``nats`` a crop of the ELBO's parts; ``elbo_bits`` and,
        with weights, ``iw_bits``, in bits a dimension of hr; ``fid``.
    """
    psnr: dict[str, list[float]] = {}
    nats: dict[str, list[Tensor]] = {}
    log_weights = []
    mean, drawer = Drawer(model, AT_THE_MEAN), Drawer(model, drawing)
    is_srvae = isinstance(model, SRVAE)
    for batch in crops.batches():
        made = {"bicubic": _bicubic(batch), "reconstruction": mean.reconstruct(batch)}
        if is_srvae:
            made |= {
                "super_resolution": mean.super_resolve(batch),
                "sample": drawer.super_resolve(batch),
            }
        for name, pictures in made.items():
            pairs = zip(pictures, batch.hr, strict=True)
            psnr.setdefault(name, []).extend(_psnr(picture, hr) for picture, hr in pairs)
        bound = drawer.bound(batch)
        for name in ("nll_x", "nll_y", "kl_z", "kl_u") if is_srvae else ("nll_x", "kl_z"):
            nats.setdefault(name, []).append(getattr(bound, name))
        drawn = [drawer.bound(batch).log_weight for _ in range(weights)]
        log_weights += [importance_weighted_nll(torch.stack(drawn))] if drawn else []
    in_bits = 1 / (crops.hr[0].numel() * math.log(2))
    means = {name: float(torch.cat(parts).mean()) for name, parts in nats.items()}
    figures: dict[str, Any] = {
        "crops": len(crops.hr),
        "psnr": {name: sum(values) / len(values) for name, values in psnr.items()},
        "nats": means,
        "elbo_bits": sum(means.values()) * in_bits,
    }
    if is_srvae:
        pairs = zip(psnr["super_resolution"], psnr["bicubic"], strict=True)
        figures["better_than_bicubic"] = sum(a > b for a, b in pairs) / len(crops.hr)
    if log_weights:
        figures["iw_bits"] = float(torch.cat(log_weights).mean()) * in_bits
    if inception is not None:
        figures["fid"] = _fid(Drawer(model, replace(drawing, temperature=1.0)), crops, inception)
    return figures


def _fid(drawer: Drawer, crops: Crops, inception: InceptionFeatures) -> float:
    """FID of as many pictures out of nothing as there are crops, against them."""
    drawn = [drawer.pictures(len(batch.hr)) for batch in crops.batches()]
    ours, theirs = (
        torch.stack([inception(picture) for picture in pictures])
        for pictures in (torch.cat(drawn), crops.hr)
    )
    return frechet_distance(ours, theirs)


def _bicubic(crops: Crops) -> Tensor:
    return torch.stack([bicubic(lr, SCALE) for lr in crops.lr])


def _psnr(picture: Tensor, hr: Tensor) -> float:
    return min(psnr_y(picture, hr, shave=SCALE), PSNR_CAP)


def _row(crops: Crops, columns: Mapping[str, Tensor], row: int) -> list[Entry]:
    """hr, lr, and what was made of them, with its PSNR."""
    hr = crops.hr[row]
    made = [
        _entry(f"{label} {_psnr(pictures[row], hr):.1f}", pictures[row])
        for label, pictures in columns.items()
    ]
    return [_entry("HR", hr), _entry("LR", crops.lr[row]), *made]


def _generated(drawer: Drawer, count: int) -> list[Entry]:
    """Pictures out of nothing: lr and hr in turn."""
    made = drawer.generate(count)
    pairs = zip(made.lr, made.hr, strict=True)
    return [entry for lr, hr in pairs for entry in (_entry("LR", lr), _entry("HR", hr))]


def _entry(label: str, picture: Tensor) -> Entry:
    rgb = picture.permute(1, 2, 0).numpy()
    return Entry(label=label, rgb=enlarged(rgb, _SHOWN_PX, _SHOWN_PX))
