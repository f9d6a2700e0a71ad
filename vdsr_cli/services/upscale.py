"""The use case of ``vdsr upscale``: pictures in, larger pictures out.

Picture ─► passes of the model (x4, or x4 twice for more) ─► strips ─► consistency projection
    ─► PictureFile, which writes PNG and TIFF as rows are finished
    ─► Canvas ─► file of another format, or a stream
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch
from torch import Tensor

from vdsr_cli.background import aside
from vdsr_cli.config import check_scale, check_temperature
from vdsr_cli.errors import DeviceError, OutputExistsError, UnexpectedError, VdsrError
from vdsr_cli.files import is_special
from vdsr_cli.images import (
    MAX_PIXELS,
    Canvas,
    Frame,
    Picture,
    is_segmented,
    open_picture_file,
    read_picture,
    refuse_impossible,
)
from vdsr_cli.loading import LoadedModel, ModelSource
from vdsr_cli.outputs import Existing, is_taken, refuse_taken
from vdsr_cli.paths import Source, output_format
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.engine import SamplingSettings, fitting, limits_of, plan_for
from vdsr_cli.sampling.fingerprint import identify
from vdsr_cli.sampling.strips import StripSource, projected_strips, resized_strips, sampled_strips
from vdsr_cli.sampling.tiling import check_tiles, tiles_for

_MOST_ENCODERS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleRequest:
    """What to do with each picture.

    Attributes:
        scale: output size over input size, 1 to 16.
        settings: how the model samples.
        consistency: whether the result is projected to degrade to the input; None for where the
            model was trained on that degradation.
        existing: what becomes of outputs that are there.
        format: of outputs that go to a stream.
        quality: of lossy formats, 1 to 100.
        max_pixels: largest input, in pixels.
    """

    scale: float = 4.0
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    consistency: bool | None = None
    existing: Existing = Existing.refuse
    format: str = "png"
    quality: int = 95
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        check_scale(self.scale)
        check_temperature(self.settings.temperature)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleResult:
    """What became of one picture; its fields are the keys of ``--json``."""

    input: str
    output: str | None = None
    status: str = "done"
    model: str | None = None
    model_reason: str | None = None
    scale: float | None = None
    temperature: float | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    tiles: int | None = None
    consistency: bool | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None
    hint: str | None = None
    exit_code: int = 0
    traceback: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields that have a value."""
        return {key: value for key, value in asdict(self).items() if value not in (None, ())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One pass of the model and the size (h, w) that its output is brought to."""

    size: tuple[int, int]


def plan_stages(height: int, width: int, *, native: int, scale: float) -> list[Stage]:
    """The passes of a model of scale ``native`` that make ``scale``, and the size after each.

    One pass up to the native scale; two above it, where the first result is reduced so that the
    second pass ends at the size wanted.
    """
    final = (max(1, round(height * scale)), max(1, round(width * scale)))
    if scale <= native:
        return [Stage(size=final)]
    between = scale / native
    return [
        Stage(size=(max(1, round(height * between)), max(1, round(width * between)))),
        Stage(size=final),
    ]


def count_tiles(height: int, width: int, loaded: LoadedModel, request: UpscaleRequest) -> int:
    """How many tiles :func:`upscale_picture` will sample for an opaque picture of this size."""
    total = 0
    for stage in plan_stages(height, width, native=loaded.model.scale, scale=request.scale):
        plan = plan_for(loaded.model, height, width, request.settings)
        total += plan.tiles
        height, width = stage.size
    return total


def upscale_picture(
    picture: Picture,
    loaded: LoadedModel,
    request: UpscaleRequest,
    runtime: Runtime,
    *,
    on_tiles: Callable[[int], None] = lambda tiles: None,
) -> Canvas:
    """The larger picture, in the depth and channels of its source.

    Alpha is upscaled by the same model at temperature 0, so that its edges lie where the colours'
    do; colours are premultiplied on the way.
    """
    frame = _frame(picture, loaded, request)
    canvas = Canvas(frame.height, frame.width, like=frame.like, has_alpha=frame.has_alpha)
    # Rounding keeps one core busy, while the convolutions of the next rows use all.
    with aside(canvas.put_rows) as put_rows:
        for rows in upscale_rows(picture, loaded, request, runtime, on_tiles=on_tiles):
            put_rows(*rows)
    return canvas


def upscale_rows(
    picture: Picture,
    loaded: LoadedModel,
    request: UpscaleRequest,
    runtime: Runtime,
    *,
    first_row: int = 0,
    on_tiles: Callable[[int], None] = lambda tiles: None,
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """What :func:`upscale_picture` puts on its canvas, from a row on, as it is finished.

    Yields:
        The first row, (3, rows, W) premultiplied by alpha, and alpha (1, rows, W) or None, on the
        runtime's device.
    """
    colours = _upscaled(picture.rgb[0].to(runtime.device), loaded, request, runtime, on_tiles)
    if picture.alpha is None:
        for top, rgb in colours.rows_from(first_row):
            yield top, rgb, None
        return
    still = replace(request.settings, temperature=0.0, samples=(0,), output="mean")
    grey = picture.alpha[0].to(runtime.device).expand(3, -1, -1)
    alpha_request = replace(request, settings=still, consistency=False)
    covers = _upscaled(grey, loaded, alpha_request, runtime, on_tiles).recut(colours.tops)
    pairs = zip(colours.rows_from(first_row), covers.rows_from(first_row), strict=True)
    for (top, rgb), (_, cover) in pairs:
        yield top, rgb, cover.mean(0, keepdim=True)


def _frame(picture: Picture, loaded: LoadedModel, request: UpscaleRequest) -> Frame:
    """What comes out."""
    native = loaded.model.scale
    stages = plan_stages(picture.height, picture.width, native=native, scale=request.scale)
    height, width = stages[-1].size
    has_alpha = picture.alpha is not None
    return Frame(height=height, width=width, like=picture.metadata, has_alpha=has_alpha)


def _upscaled(
    lr: Tensor,
    loaded: LoadedModel,
    request: UpscaleRequest,
    runtime: Runtime,
    on_tiles: Callable[[int], None],
) -> StripSource:
    """All stages of (3, h, w); what the second of two passes works on is held whole."""
    native = loaded.model.scale
    first, *more = plan_stages(lr.shape[1], lr.shape[2], native=native, scale=request.scale)
    source, size = _one_stage(lr, first, loaded, request, runtime, on_tiles), first.size
    for stage in more:
        between = _whole(source, size[1], lr.device)
        source, size = _one_stage(between, stage, loaded, request, runtime, on_tiles), stage.size
    is_faithful = _is_projected(loaded, request) and _is_whole(request.scale)
    if is_faithful and request.scale != native:
        source = projected_strips(source, lr, int(request.scale))
    return source


def _one_stage(
    lr: Tensor,
    stage: Stage,
    loaded: LoadedModel,
    request: UpscaleRequest,
    runtime: Runtime,
    on_tiles: Callable[[int], None],
) -> StripSource:
    """One pass of the model, projected where that is asked for, brought to its size."""
    native = loaded.model.scale
    source = sampled_strips(loaded.model, lr, request.settings, runtime, on_tiles)
    if _is_projected(loaded, request):
        source = projected_strips(source, lr, native)
    if stage.size == (native * lr.shape[1], native * lr.shape[2]):
        return source
    return resized_strips(source, *stage.size)


def _is_whole(scale: float) -> bool:
    """Whether a degradation of this scale exists: it takes whole numbers of pixels."""
    return scale == int(scale)


def _is_projected(loaded: LoadedModel, request: UpscaleRequest) -> bool:
    return loaded.is_bicubic if request.consistency is None else request.consistency


def _whole(source: StripSource, width: int, device: torch.device) -> Tensor:
    picture = torch.empty(3, source.height, width, device=device)
    for top, rows in source.rows_from(0):
        picture[:, top : top + rows.shape[1]] = rows
    return picture


def check_request(request: UpscaleRequest, loaded: LoadedModel) -> None:
    """Refuses, before any picture is read, what the model cannot do. Raises UsageError."""
    settings, cell = request.settings, loaded.model.lr_multiple
    fixed = loaded.model.fixed_tile
    tile, overlap = tiles_for(settings.tile, settings.overlap, cell=cell, fixed_tile=fixed)
    check_tiles(tile=tile, overlap=overlap, cell=cell)


def upscale_file(
    source: Source,
    output: Path | None,
    models: ModelSource,
    request: UpscaleRequest,
    runtime: Runtime,
    *,
    stdin: BinaryIO,
    stdout: BinaryIO,
    on_start: Callable[[int], None] = lambda tiles: None,
    on_tiles: Callable[[int], None] = lambda tiles: None,
) -> UpscaleResult:
    """Reads, upscales and writes one picture; a failure of it is a result, not an exception.

    Args:
        source: what to read.
        output: where to write; None for ``stdout``.
        models: gives the picture its model.
        on_start: told how many tiles there will be.
        on_tiles: told how many have just been finished.
    """
    named = UpscaleResult(input=str(source.path), output=None if output is None else str(output))
    started = time.perf_counter()
    try:
        if output is not None:
            if request.existing is Existing.skip and is_taken(output):
                return replace(named, status="skipped")
            refuse_taken([output], request.existing)
        picture = read_picture(
            stdin if source.is_stdin else source.path, max_pixels=request.max_pixels
        )
        choice = models.choose(picture)
        loaded = choice.loaded
        settings = fitting(request.settings, loaded.model, runtime)
        request = replace(request, settings=settings)
        tiles = count_tiles(picture.height, picture.width, loaded, request)
        tiles *= 1 if picture.alpha is None else 2
        frame = _frame(picture, loaded, request)
        _refuse_format(frame, output, request)
        on_start(tiles)
        plan = plan_for(loaded.model, picture.height, picture.width, settings)
        limits = limits_of(loaded.model, plan)
        notes = (
            picture.notes
            + limits
            + _upscale_into(output or stdout, picture, loaded, request, runtime, on_tiles)
        )
    except OutputExistsError as error:
        is_skipped = request.existing is Existing.skip
        return replace(named, status="skipped") if is_skipped else failed_result(named, error)
    except VdsrError as error:
        return failed_result(named, error)
    except (MemoryError, torch.OutOfMemoryError):
        reason = f"{named.input}: there is not enough memory for a picture that large"
        return failed_result(named, DeviceError(reason))
    except Exception as error:  # the other pictures go on
        return failed_result(named, UnexpectedError(named.input, error))
    return replace(
        named,
        model=loaded.name,
        model_reason=choice.reason,
        scale=request.scale,
        temperature=request.settings.temperature,
        seed=request.settings.seed,
        width=frame.width,
        height=frame.height,
        tiles=tiles,
        consistency=_is_projected(loaded, request) and _is_whole(request.scale),
        seconds=round(time.perf_counter() - started, 3),
        notes=notes,
    )


def _refuse_format(frame: Frame, output: Path | None, request: UpscaleRequest) -> None:
    """Refuses an output that its format cannot hold before any work is done on it."""
    format = request.format if output is None else output_format(output)
    name = str(output or "standard output")
    refuse_impossible(format, frame.height, frame.width, name=name)


def failed_result(named: UpscaleResult, error: VdsrError) -> UpscaleResult:
    """The result of a picture that an error ended."""
    return replace(
        named,
        output=None,
        status="failed",
        error=str(error),
        hint=error.hint,
        exit_code=error.exit_code,
        traceback=error.details,
    )


def _upscale_into(
    output: Path | BinaryIO,
    picture: Picture,
    loaded: LoadedModel,
    request: UpscaleRequest,
    runtime: Runtime,
    on_tiles: Callable[[int], None],
) -> tuple[str, ...]:
    """Upscales a picture into a file or a stream; returns notes for the user."""
    if not isinstance(output, Path) or not _is_streamed(output):
        canvas = upscale_picture(picture, loaded, request, runtime, on_tiles=on_tiles)
        if isinstance(output, Path):
            return canvas.save(
                output, quality=request.quality, replace=request.existing.is_replaced
            )
        return canvas.save_to(output, request.format, quality=request.quality)
    frame, format = _frame(picture, loaded, request), output_format(output)
    identity = partial(_identify, picture, loaded, request, runtime)
    threads = _encoders_beside(runtime)
    with (
        open_picture_file(
            output,
            frame,
            format=format,
            identity=identity,
            replace=request.existing.is_replaced,
            threads=threads,
        ) as file,
        aside(file.put_rows) as put_rows,
    ):
        for rows in upscale_rows(
            picture, loaded, request, runtime, first_row=file.next_row, on_tiles=on_tiles
        ):
            put_rows(*rows)
    return file.notes


def _encoders_beside(runtime: Runtime) -> int:
    """How many threads encode the output: one where the convolutions use the cores, else enough
    not to be waited for."""
    return 1 if runtime.device.type == "cpu" else min(_MOST_ENCODERS, os.cpu_count() or 1)


def _is_streamed(output: Path) -> bool:
    """Whether a file can be written row by row; pipes and devices get theirs at once."""
    return is_segmented(output_format(output)) and not is_special(output)


def _identify(
    picture: Picture, loaded: LoadedModel, request: UpscaleRequest, runtime: Runtime
) -> str:
    """A hash of all that the rows depend on."""
    facts = {"scale": request.scale, "consistency": _is_projected(loaded, request)}
    return identify(picture, loaded, runtime, asdict(request.settings) | facts)
