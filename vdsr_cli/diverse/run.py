"""The use case of ``vdsr sample-diverse``: several pictures that one input may come from.

Picture ─► noises (drawn, stored, masked or walked) ─► one SampleSet a temperature
             ├─► the samples, or those picked;  mean and deviation ─► files
             ├─► contact sheet, report
             └─► distances, LR-PSNR of the files as they are ─► DiverseResult
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from vdsr_cli.diverse.inputs import (
    check_latents,
    choose_noises,
    count_samples,
    drawn_noises,
    read_mask,
    seed_of,
)
from vdsr_cli.diverse.outputs import DoneSet, make_report, make_sheet, seed_text, write_set
from vdsr_cli.diverse.records import (
    DiverseRequest,
    DiverseResult,
    OutputNames,
    SetFiles,
)
from vdsr_cli.errors import UsageError
from vdsr_cli.figures.html_report import write_report
from vdsr_cli.images import Picture, refuse_impossible, save_levels
from vdsr_cli.loading import ModelSource
from vdsr_cli.models.protocol import refuse_unknown_levels
from vdsr_cli.outputs import Existing, check_outputs, is_taken
from vdsr_cli.paths import Source, output_format
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.engine import SampleNoise
from vdsr_cli.sampling.latents import LatentGrid, latent_grid, save_latents
from vdsr_cli.sampling.pipeline import UpscalePlan, plan_upscale
from vdsr_cli.sampling.sample_set import draw_set


def sample_diverse(
    source: Source,
    names: OutputNames,
    models: ModelSource,
    request: DiverseRequest,
    runtime: Runtime,
    *,
    stdin: BinaryIO,
    on_start: Callable[[int], None] = lambda tiles: None,
    on_tiles: Callable[[int], None] = lambda tiles: None,
) -> DiverseResult:
    """Reads a picture, draws samples of what it may come from, writes them. Raises VdsrError."""
    started = time.perf_counter()
    drawn = count_samples(request)
    picture = request.reading.read(stdin if source.is_stdin else source.path)
    choice = models.choose(picture)
    loaded = choice.loaded
    settings = replace(request.settings, samples=tuple(range(drawn)))
    plan = plan_upscale(
        picture,
        loaded,
        settings,
        runtime,
        scale=loaded.scale,
        consistency=request.consistency,
    )
    told = check_latents(request.from_latents, loaded) if request.from_latents else ()
    job = _prepare(picture, names, request, plan)
    if _is_all_there(source, job.outputs, request):
        return DiverseResult(input=str(source.path), status="skipped")
    for path in chain.from_iterable(job.files):
        size = plan.output.height, plan.output.width
        refuse_impossible(output_format(path), *size, name=str(path))
    on_start(job.tiles)
    done, notes = _make_sets(job, picture, request, runtime, on_tiles)
    result = DiverseResult(
        input=str(source.path),
        model=loaded.name,
        model_reason=choice.reason,
        scale=loaded.model.scale,
        seed=job.seed,
        width=plan.output.width,
        height=plan.output.height,
        tiles=job.tiles,
        consistency=plan.faithful_scale is not None,
        edges=str(plan.settings.edges) if plan.is_projected else None,
        wrap=plan.settings.periodic or None,
        mask=_text(request.mask),
        sets=tuple(entry.result for entry in done),
        sheet=_text(job.sheet),
        report=_text(request.report),
        latents=_text(request.save_latents),
        notes=(*picture.notes, *plan.notes, *told, *notes),
    )
    _write_extras(result, done, job, picture, request)
    return replace(result, seconds=round(time.perf_counter() - started, 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """Everything that is to be drawn and written, settled before anything is.

    Attributes:
        seed: of the noises as they are drawn, before any mask or walk; None where it is not known.
    """

    plan: UpscalePlan
    grid: LatentGrid
    mask: Tensor | None
    noises: Sequence[SampleNoise]
    seed: int | None
    files: Sequence[SetFiles]
    sheet: Path | None
    outputs: Sequence[Path]

    @property
    def tiles(self) -> int:
        """How many will be sampled in all."""
        return self.plan.tiles * len(self.files)


def _prepare(
    picture: Picture,
    names: OutputNames,
    request: DiverseRequest,
    plan: UpscalePlan,
) -> _Job:
    model = plan.model
    for temperature in request.temperatures:
        refuse_unknown_levels(temperature, model)
    grid = latent_grid(model, picture.height, picture.width, plan.settings)
    most = request.reading.max_pixels
    mask = None if request.mask is None else read_mask(request.mask, picture, model.scale, most)
    drawn = drawn_noises(request, grid)
    noises = choose_noises(drawn, request, grid, mask)
    if request.pick and request.pick.count > len(noises):
        raise UsageError(f"there are {len(noises)} samples, too few for that --pick")
    files = [names.of_set(request, t, len(noises)) for t in request.temperatures]
    return _Job(
        plan=plan,
        grid=grid,
        mask=mask,
        noises=noises,
        seed=seed_of(drawn, request, grid),
        files=files,
        sheet=names.sheet(request),
        outputs=names.all_of(request, len(noises)),
    )


def _is_all_there(source: Source, outputs: Sequence[Path], request: DiverseRequest) -> bool:
    """Whether there is nothing to do; refuses to replace an input, or unasked what exists."""
    inputs = [source.path] if not source.is_stdin else []
    inputs += filter(None, (request.mask, request.from_latents))
    check_outputs(outputs, request.existing, inputs=inputs)
    return request.existing is Existing.skip and all(map(is_taken, outputs))


def _make_sets(
    job: _Job,
    picture: Picture,
    request: DiverseRequest,
    runtime: Runtime,
    on_tiles: Callable[[int], None],
) -> tuple[list[DoneSet], tuple[str, ...]]:
    """Draws and writes each temperature's samples."""
    done: list[DoneSet] = []
    notes: list[str] = []
    for temperature, files in zip(request.temperatures, job.files, strict=True):
        started = time.perf_counter()
        plan = job.plan.at(temperature)
        drawn = draw_set(
            picture,
            plan,
            runtime,
            noises=job.noises,
            mask=job.mask,
            on_tiles=on_tiles,
        )
        seconds = time.perf_counter() - started
        result, set_notes = write_set(drawn, files, plan, picture, request, seconds=seconds)
        notes += set_notes
        names = request.sample_names(result.samples)
        done.append(DoneSet(result=result, drawn=drawn, names=names))
    return done, tuple(dict.fromkeys(notes))


def _write_extras(
    result: DiverseResult,
    done: Sequence[DoneSet],
    job: _Job,
    picture: Picture,
    request: DiverseRequest,
) -> None:
    """The contact sheet, the latents and the report, each where it is wanted."""
    may_replace = request.existing.is_replaced
    if job.sheet is not None:
        title = f"{Path(result.input).name}: {result.model}, seed {seed_text(result)}"
        if len(done) == 1:
            title += f", temperature {request.temperatures[0]:g}"
        with request.existing.kept():
            save_levels(job.sheet, make_sheet(done, picture, title), replace=may_replace)
    if request.save_latents is not None:
        is_plain = request.walk is None and request.mask is None
        facts = {
            "model": result.model,
            "seed": result.seed if is_plain else None,
            "temperatures": request.temperatures,
        }
        with request.existing.kept():
            save_latents(request.save_latents, job.noises, job.grid, facts, replace=may_replace)
    if request.report is not None:
        with request.existing.kept():
            page = make_report(result, done, picture)
            write_report(request.report, page, replace=may_replace)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
