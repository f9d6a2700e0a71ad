"""The likelihood of pictures under unconditional priors, for ``vdsr bench --model openai/ffhq256``.

    picture ─► fitted to the prior ─► q(z | picture) ─┬─► distortion + rate, nats and bits
                                                      └─► the mean picture ─► PSNR

    bits = (distortion + sum of rates) / (3 H W ln 2)

**Fitting.** A published prior knows one size: the shorter side is resized to it by Pillow's
bilinear filter, as FFHQ-256 was made of larger pictures, and the centre cropped; a picture of that
size is scored as it is, and one that would have to be enlarged is not scored. The compact prior
takes a picture at its own size, cropped from the top left to whole cells.

The posterior is drawn once, from the noise field of the seed, the same for every picture: a
picture's figure does not depend on the set and the batch that it stands in.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from vdsr_cli.bench.data import Dataset, Failure, Pair, discover, read_pixels
from vdsr_cli.bench.likelihood import webp_bits
from vdsr_cli.bench.methods import row_names
from vdsr_cli.bench.report import DatasetFacts, PictureScore, Report
from vdsr_cli.bench.run import Events, peak_memory_mib
from vdsr_cli.errors import DeviceError, InputError, VdsrError
from vdsr_cli.images.levels import to_levels
from vdsr_cli.images.resize import resized_crop
from vdsr_cli.loading import LoadedPrior
from vdsr_cli.models.blocks import drawn_rates
from vdsr_cli.models.distributions import importance_weighted_nll
from vdsr_cli.models.dmol import LOW_BIT_NOTE, to_image
from vdsr_cli.models.protocol import LatentShape, Prior
from vdsr_cli.runtime import Runtime, is_out_of_memory
from vdsr_cli.sampling.noise import NoiseField, noise_of
from vdsr_cli.services.generate import likely_batch
from vdsr_cli.weights import load_records

LIKELIHOOD = "likelihood"
"""What the report calls this protocol."""

_TILE_PX = 512
"""Side of the pieces in which the compact prior scores a large picture, to bound the memory."""
_LAYOUT_SCALE = 4
"""Data sets are found as those of this scale; their LR pictures are not looked at."""
_LOW_BIT_BINS = "32 bins that overlap a little flatter its likelihood, as published"


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorBenchRequest:
    """Scores to make: the pictures of data sets, with each prior and seed; with ``weights``
    importance weights beside the ELBO, 0 for none."""

    datasets: Sequence[Dataset]
    seeds: tuple[int, ...] = (0,)
    weights: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tally:
    """Sums over the dimensions of a picture, or of pieces of one.

    Attributes:
        dimensions: how many there are, 3 H W.
        distortion: -log p(picture | z), nats.
        rates: KL of each layer, nats, (layers,) float64.
        squared_error: of the reconstruction, in squared grey levels.
    """

    dimensions: int
    distortion: float
    rates: Tensor
    squared_error: float

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            dimensions=self.dimensions + other.dimensions,
            distortion=self.distortion + other.distortion,
            rates=self.rates + other.rates,
            squared_error=self.squared_error + other.squared_error,
        )

    def scores(self, shapes: Sequence[LatentShape]) -> dict[str, float]:
        """``nats_per_dim`` and ``bits_per_dim``, the negative ELBO; its parts ``distortion_bits``
        and ``rate_bits``, of each level ``rate_bits_cell_16``; ``psnr_reconstruction`` in dB."""
        nats = (self.distortion + self.rates.sum().item()) / self.dimensions
        to_bits = 1 / (self.dimensions * math.log(2))
        mse = self.squared_error / self.dimensions
        scores = {
            "nats_per_dim": nats,
            "bits_per_dim": nats / math.log(2),
            "distortion_bits": self.distortion * to_bits,
            "rate_bits": self.rates.sum().item() * to_bits,
            "psnr_reconstruction": 10 * math.log10(255**2 / mse) if mse else math.inf,
        }
        for shape, rate in zip(shapes, self.rates.tolist(), strict=True):
            key = f"rate_bits_cell_{shape.cell}"
            scores[key] = scores.get(key, 0.0) + rate * to_bits
        return scores


def run_prior_bench(
    request: PriorBenchRequest, priors: Sequence[LoadedPrior], runtime: Runtime, events: Events
) -> Report:
    """Scores every picture; one that cannot be scored is a failure in the report.

    Raises:
        DeviceError: a batch does not fit into memory.
    """
    report = Report(protocol=LIKELIHOOD, scale=None)
    for dataset in request.datasets:
        steps = len(dataset.pairs) * len(priors) * len(request.seeds)
        events.on_start(dataset.name, steps)
        for name, loaded in zip(row_names([p.name for p in priors]), priors, strict=True):
            named = replace(loaded, name=name)
            _run_prior(dataset, named, request, runtime, report, events)
        scored = {score.picture for score in report.pictures if score.dataset == dataset.name}
        if scored:
            facts = DatasetFacts(name=dataset.name, path=str(dataset.path), pictures=len(scored))
            report.datasets.append(facts)
    report.notes += [note for loaded in priors for note in notes_of(loaded)]
    report.peak_memory_mib = peak_memory_mib(runtime)
    return report


def find_datasets(paths: Sequence[Path]) -> list[Dataset]:
    """The data sets in files and folders; raises InputError for a path without pictures."""
    return discover(paths, _LAYOUT_SCALE)


def notes_of(loaded: LoadedPrior) -> list[str]:
    """Notes for the reader of a prior's figures."""
    notes = []
    record = load_records().get(loaded.name)
    for score in record.scores if record else ():
        notes.append(f"{loaded.name}: {score.value:g} {score.metric} on {score.data}, as published")
    if loaded.model.is_low_bit:
        notes += [f"{loaded.name}: {LOW_BIT_NOTE}", f"{loaded.name}: {_LOW_BIT_BINS}"]
    return notes


def _run_prior(
    dataset: Dataset,
    loaded: LoadedPrior,
    request: PriorBenchRequest,
    runtime: Runtime,
    report: Report,
    events: Events,
) -> None:
    def fail(failure: Failure) -> None:
        report.failures.append(failure)
        events.on_failure(failure)

    side, shapes = loaded.model.side_px, loaded.model.latent_shapes
    batch = 1 if side is None else likely_batch(loaded.model, (side, side), runtime)
    for names, pictures in _batches(_fitted(dataset, loaded, fail), batch):
        webp = [webp_bits(picture) for picture in pictures]
        for seed in request.seeds:
            tallies = score_batch(loaded.model, pictures, seed, runtime)
            tighter = _weighted(loaded.model, pictures, seed, request.weights, runtime)
            for name, tally, iw, coded in zip(names, tallies, tighter, webp, strict=True):
                score = PictureScore(
                    dataset=dataset.name,
                    picture=name,
                    method=loaded.name,
                    temperature=None,
                    seed=seed,
                    megapixels=tally.dimensions / 3e6,
                    scores=tally.scores(shapes) | iw | coded,
                )
                report.pictures.append(score)
                events.on_score(score)


def _fitted(
    dataset: Dataset, loaded: LoadedPrior, on_failure: Callable[[Failure], None]
) -> Iterator[tuple[str, Tensor]]:
    """Names and pictures (3, H, W) uint8; those that cannot be scored are reported."""
    for pair in dataset.pairs:
        try:
            yield pair.name, fit(read_pixels(pair.hr), loaded.model, pair)
        except VdsrError as error:
            on_failure(
                Failure.of(error, dataset=dataset.name, picture=pair.name, method=loaded.name)
            )


def fit(picture: Tensor, prior: Prior, pair: Pair) -> Tensor:
    """A picture (3, H, W) uint8 as the prior takes it; see the module's docstring.

    Raises:
        InputError: it is too small.
    """
    shorter, needed = min(picture.shape[1:]), prior.cell_px
    if shorter < needed:
        raise InputError(
            f"{pair.hr}: {picture.shape[2]}x{picture.shape[1]} is too small for this prior, "
            f"a side needs {needed} pixels"
        )
    if prior.side_px is not None:
        return resized_crop(picture, prior.side_px)
    height, width = (side // prior.cell_px * prior.cell_px for side in picture.shape[1:])
    return picture[:, :height, :width]


def _batches(
    pictures: Iterator[tuple[str, Tensor]], most: int
) -> Iterator[tuple[list[str], Tensor]]:
    """Names and (B, 3, H, W) of ``most`` pictures, all of one size unless ``most`` is 1."""
    while chunk := list(itertools.islice(pictures, most)):
        names, tensors = zip(*chunk, strict=True)
        yield list(names), torch.stack(tensors)


def score_batch(
    prior: Prior, pictures: Tensor, seed: int, runtime: Runtime, *, sample: int = 0
) -> list[Tally]:
    """The sums of each picture of (B, 3, H, W) uint8, at one of the draws of the posterior; raises
    DeviceError for want of memory."""
    try:
        return _tallies(prior, pictures, NoiseField(seed=seed, sample=sample), runtime)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"{len(pictures)} pictures at once do not fit into memory", hint="try --device cpu"
        ) from error


def _weighted(
    prior: Prior, pictures: Tensor, seed: int, weights: int, runtime: Runtime
) -> list[dict[str, float]]:
    """``bits_iw`` of each picture, from so many importance weights; nothing for 0."""
    if not weights:
        return [{} for _ in pictures]
    with drawn_rates(cast(nn.Module, prior)):
        drawn = [score_batch(prior, pictures, seed, runtime, sample=k) for k in range(weights)]
    nats = [[tally.distortion + tally.rates.sum().item() for tally in row] for row in drawn]
    bounds = importance_weighted_nll(-torch.tensor(nats, dtype=torch.float64))
    to_bits = 1 / (pictures[0].numel() * math.log(2))
    return [{"bits_iw": bound * to_bits} for bound in bounds.tolist()]


@torch.inference_mode()
def _tallies(prior: Prior, pictures: Tensor, field: NoiseField, runtime: Runtime) -> list[Tally]:
    total: list[Tally] | None = None
    step = max(prior.cell_px, _TILE_PX // prior.cell_px * prior.cell_px)
    for top in range(0, pictures.shape[2], step):
        for left in range(0, pictures.shape[3], step):
            piece = pictures[:, :, top : top + step, left : left + step]
            part = _tallies_of_piece(prior, piece, (top, left), field, runtime)
            total = [a + b for a, b in zip(total, part, strict=True)] if total else part
    return total or []


def _tallies_of_piece(
    prior: Prior, piece: Tensor, origin: tuple[int, int], field: NoiseField, runtime: Runtime
) -> list[Tally]:
    height, width = piece.shape[2:]
    noise = noise_of([field], (height, width), runtime.device, origin=origin)
    unit = (piece.float() / 255).to(runtime.device)

    def shared(shape: LatentShape) -> Tensor:
        return noise(shape).expand(len(piece), -1, -1, -1)

    parameters, rate = prior.posterior(unit, shared)
    reconstruction = to_levels(to_image(prior.pixels(parameters, None))).cpu()
    error = (reconstruction.double() - piece.double()).square().sum(dim=(1, 2, 3))
    return [
        Tally(dimensions=3 * height * width, distortion=d, rates=rates, squared_error=e)
        for d, rates, e in zip(
            prior.distortion(unit, parameters).double().tolist(),
            rate.double().cpu().unbind(1),
            error.tolist(),
            strict=True,
        )
    ]
