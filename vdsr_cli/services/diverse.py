"""The use case of ``vdsr sample-diverse``: several pictures that one input may come from.

    Picture ─► noises (drawn, stored, masked or walked) ─► one SampleSet a temperature
                 ├─► the samples, or those picked;  mean and deviation ─► files
                 ├─► contact sheet, report
                 └─► distances, LR-PSNR of the files as they are ─► DiverseResult
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsr_cli.errors import InputError, OutputError, UsageError
from vdsr_cli.images import Canvas, Picture, read_picture, save_levels
from vdsr_cli.metrics import LPIPS, average_pairwise
from vdsr_cli.noise import NoiseField
from vdsr_cli.paths import Source
from vdsr_cli.runtime import Runtime
from vdsr_cli.services.diverse_records import (
    DiverseRequest,
    DiverseResult,
    OutputNames,
    PictureResult,
    SetFiles,
    SetResult,
)
from vdsr_cli.services.engine import SampleNoise, plan_picture, sample_strips
from vdsr_cli.services.latents import (
    LatentGrid,
    MaskedNoise,
    WalkNoise,
    latent_grid,
    layer_angles,
    load_latents,
    save_latents,
)
from vdsr_cli.services.loading import LoadedModel
from vdsr_cli.services.report import Figure, Layer, Report, write_report
from vdsr_cli.services.sample_set import SampleSet, Subject, draw_set
from vdsr_cli.services.sheet import Entry, contact_sheet, enlarged
from vdsr_cli.services.spread import LrFidelity, farthest, mean_of_pairs, medoid
from vdsr_cli.services.viridis import viridis

DEFAULT_SAMPLES = 5
LPIPS_FILE = "lpips_alex.safetensors"
_LPIPS_SMALLEST_PX = 64
_LEVELS = 255


def sample_diverse(
    source: Source,
    names: OutputNames,
    loaded: LoadedModel,
    request: DiverseRequest,
    runtime: Runtime,
    *,
    stdin: BinaryIO,
    on_start: Callable[[int], None] = lambda tiles: None,
    on_tiles: Callable[[int], None] = lambda tiles: None,
) -> DiverseResult:
    """Reads a picture, draws samples of what it may come from, and writes them.

    Args:
        source: what to read.
        names: what to write.
        on_start: told how many tiles there will be.
        on_tiles: told how many have just been finished.

    Raises:
        VdsrError: anything that goes wrong.
    """
    started = time.perf_counter()
    picture = read_picture(stdin if source.is_stdin else source.path, max_pixels=request.max_pixels)
    lr, model = picture.rgb[0], loaded.model
    grid = latent_grid(model, picture.height, picture.width, request.settings)
    drawn = _drawn_noises(request, grid)
    mask = _read_mask(request, picture, model.scale)
    noises = _final_noises(drawn, request, grid, mask)
    files = [names.of_set(request, t, len(noises)) for t in request.temperatures]
    if _is_all_there(files, names, request):
        return DiverseResult(input=str(source.path), status="skipped")
    plan = plan_picture(
        picture.height, picture.width, cell=model.lr_multiple, settings=request.settings
    )
    tiles = plan.tiles * (len(files) + (picture.alpha is not None))
    on_start(tiles)
    subject = Subject(
        lr=lr,
        alpha=_enlarged_alpha(picture, loaded, request, runtime, on_tiles),
        metadata=picture.metadata,
        is_projected=loaded.is_bicubic if request.consistency is None else request.consistency,
        mask=mask,
    )
    work = _Work(loaded, request, runtime, subject, noises, on_tiles)
    done = [
        work.make_set(t, paths) for t, paths in zip(request.temperatures, files, strict=True)
    ]
    sheet = names.sheet(request)
    facts = {"model": loaded.name, "seed": request.settings.seed, "input": source.path.name}
    if sheet is not None:
        save_levels(sheet, _make_sheet(done, subject, facts))
    if request.save_latents is not None:
        save_latents(request.save_latents, noises, grid, facts)
    result = DiverseResult(
        input=str(source.path),
        model=loaded.name,
        scale=model.scale,
        seed=request.settings.seed,
        width=grid_side(picture.width, model.scale),
        height=grid_side(picture.height, model.scale),
        tiles=tiles,
        consistency=subject.is_projected,
        mask=None if request.mask is None else str(request.mask),
        sets=tuple(result for result, _ in done),
        sheet=None if sheet is None else str(sheet),
        report=None if request.report is None else str(request.report),
        latents=None if request.save_latents is None else str(request.save_latents),
        seconds=round(time.perf_counter() - started, 3),
        notes=(*picture.notes, *work.notes),
    )
    if request.report is not None:
        write_report(request.report, _make_report(result, done, subject))
    return result


def grid_side(side: int, scale: int) -> int:
    return side * scale
