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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add, or_
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from vdsr_cli.bench.data import Dataset, Failure, Pair, discover, read_pixels
from vdsr_cli.bench.likelihood import (
    PIECE_PX,
    Tally,
    lossless_bits,
    palette_bits,
    pieces,
    takes_palette,
    weighted_bits,
)
from vdsr_cli.bench.methods import row_names
from vdsr_cli.bench.report import DatasetFacts, PictureScore, Report
from vdsr_cli.bench.run import Events, peak_memory_mib
from vdsr_cli.errors import DeviceError, InputError, VdsrError
from vdsr_cli.images.levels import to_levels
from vdsr_cli.images.resize import resized_crop
from vdsr_cli.loading import LoadedPrior
from vdsr_cli.metrics.fidelity import psnr_of
from vdsr_cli.models.blocks import drawn_rates
from vdsr_cli.models.dmol import LOW_BIT_NOTE, to_image
from vdsr_cli.models.protocol import LatentShape, Prior
from vdsr_cli.runtime import Batches, Runtime
from vdsr_cli.sampling.noise import NoiseField, noise_of
from vdsr_cli.services.generate import likely_batch
from vdsr_cli.weights import load_records

LIKELIHOOD = "likelihood"
"""The report's name of this protocol."""

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


def run_prior_bench(
    request: PriorBenchRequest, priors: Sequence[LoadedPrior], runtime: Runtime, events: Events
) -> Report:
    """Scores every picture; one that cannot be scored is a failure in the report.

    Raises:
        DeviceError: a picture does not fit into memory.
    """
    report = Report(protocol=LIKELIHOOD, scale=None)
    for dataset in request.datasets:
        report.notes += dataset.notes
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
    fail = partial(events.fail, report)
    side, shapes = loaded.model.side_px, loaded.model.latent_shapes
    batch = 1 if side is None else likely_batch(loaded.model, (side, side), runtime)
    for names, pictures in _batches(_fitted(dataset, loaded, fail), batch):
        codecs = [lossless_bits(picture) for picture in pictures]
        for seed in request.seeds:
            tallies = score_batch(loaded.model, pictures, seed, runtime)
            tighter = _weighted(loaded.model, pictures, seed, request.weights, runtime)
            inside = _in_palettes(loaded.model, pictures, tallies, seed, runtime)
            for name, tally, *more in zip(names, tallies, inside, tighter, codecs, strict=True):
                score = PictureScore(
                    dataset=dataset.name,
                    picture=name,
                    method=loaded.name,
                    temperature=None,
                    seed=seed,
                    megapixels=tally.dimensions / 3e6,
                    scores=reduce(or_, more, _scores(tally, shapes)),
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
    prior: Prior,
    pictures: Tensor,
    seed: int,
    runtime: Runtime,
    *,
    sample: int = 0,
    **options: Tensor,
) -> list[Tally]:
    """The sums of each picture of (B, 3, H, W) uint8, at one of the draws of the posterior;
    ``options`` of the prior's distortion. Raises DeviceError where one does not fit into memory."""
    field = NoiseField(seed=seed, sample=sample)

    def score(chosen: range) -> list[Tally]:
        chosen_pictures = pictures[chosen.start : chosen.stop]
        return _tallies(prior, chosen_pictures, field, runtime, **options)

    def too_large() -> DeviceError:
        return DeviceError("a picture does not fit into memory", hint="try --device cpu")

    batches = Batches(len(pictures)).run(range(len(pictures)), score, too_large)
    return [tally for batch in batches for tally in batch]


def _scores(tally: Tally, shapes: Sequence[LatentShape]) -> dict[str, float]:
    """Those of the tally, ``nats_per_dim``, and ``psnr_reconstruction`` in dB."""
    return tally.scores(shapes) | {
        "nats_per_dim": tally.nats / tally.dimensions,
        "psnr_reconstruction": psnr_of(tally.squared_error / tally.dimensions),
    }


def _in_palettes(
    prior: Prior, pictures: Tensor, tallies: Sequence[Tally], seed: int, runtime: Runtime
) -> list[dict[str, float]]:
    """``palette_bits`` of each picture, of a prior that takes palettes."""
    if not takes_palette(prior):
        return [{} for _ in pictures]
    return [
        {"palette_bits": bits_in_palette(prior, picture, tally, seed, runtime)}
        for picture, tally in zip(pictures, tallies, strict=True)
    ]


def bits_in_palette(
    prior: Prior, picture: Tensor, tally: Tally, seed: int, runtime: Runtime
) -> float:
    """:func:`~vdsr_cli.bench.likelihood.palette_bits` under a prior that takes palettes."""

    def inside(palette: Tensor) -> Tally:
        on_device = palette.to(runtime.device)
        return score_batch(prior, picture[None], seed, runtime, palette=on_device)[0]

    return palette_bits(picture, tally, inside)


def _weighted(
    prior: Prior, pictures: Tensor, seed: int, weights: int, runtime: Runtime
) -> list[dict[str, float]]:
    """``bits_iw`` of each picture, from so many importance weights; nothing for 0."""
    if not weights:
        return [{} for _ in pictures]
    with drawn_rates(cast(nn.Module, prior)):
        drawn = [score_batch(prior, pictures, seed, runtime, sample=k) for k in range(weights)]
    return [weighted_bits(each) for each in zip(*drawn, strict=True)]


@torch.inference_mode()
def _tallies(
    prior: Prior, pictures: Tensor, field: NoiseField, runtime: Runtime, **options: Tensor
) -> list[Tally]:
    step = max(prior.cell_px, PIECE_PX // prior.cell_px * prior.cell_px)
    parts = (
        _tallies_of_piece(prior, piece, origin, field, runtime, **options)
        for origin, piece in pieces(pictures, step)
    )
    return [reduce(add, each) for each in zip(*parts, strict=True)]


def _tallies_of_piece(
    prior: Prior,
    piece: Tensor,
    origin: tuple[int, int],
    field: NoiseField,
    runtime: Runtime,
    **options: Tensor,
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
            prior.distortion(unit, parameters, **options).double().tolist(),
            rate.double().cpu().unbind(1),
            error.tolist(),
            strict=True,
        )
    ]
