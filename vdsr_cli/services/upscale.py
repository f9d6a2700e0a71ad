"""The use case of ``vdsr upscale``: pictures in, larger pictures out.

Picture ─► stages of the model (x4, or x4 twice for more) ─► strips
             └─► consistency projection ─► Canvas ─► file
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.nn.functional as F
from torch import Tensor

from vdsr_cli.config import check_scale, check_temperature
from vdsr_cli.consistency import StripProjection, project
from vdsr_cli.errors import DeviceError, OutputError, VdsrError
from vdsr_cli.images import MAX_PIXELS, Canvas, Picture, read_picture, refuse_impossible
from vdsr_cli.paths import Source, output_format
from vdsr_cli.runtime import Runtime
from vdsr_cli.services.engine import SamplingSettings, plan_picture, sample_strips
from vdsr_cli.services.loading import LoadedModel
from vdsr_cli.tiling import check_tiles


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleRequest:
    """What to do with each picture.

    Attributes:
        scale: output size over input size, 1 to 16.
        settings: how the model samples.
        consistency: whether the result is projected to degrade to the input; None for where the
            model was trained on that degradation.
        overwrite: replace outputs that exist; False skips them; None refuses.
        format: of outputs that go to a stream.
        quality: of lossy formats, 1 to 100.
        max_pixels: largest input, in pixels.
    """

    scale: float = 4.0
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    consistency: bool | None = None
    overwrite: bool | None = None
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
        plan = plan_picture(height, width, cell=loaded.model.lr_multiple, settings=request.settings)
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
    native = loaded.model.scale
    stages = plan_stages(picture.height, picture.width, native=native, scale=request.scale)
    alpha = None
    if picture.alpha is not None:
        still = replace(request.settings, temperature=0.0, samples=(0,), output="mean")
        grey = picture.alpha[0].expand(3, -1, -1)
        alpha_request = replace(request, settings=still, consistency=False)
        alpha = _whole(
            _staged(grey, stages, loaded, alpha_request, runtime, on_tiles), stages[-1].size
        )
        alpha = alpha.mean(0, keepdim=True)
    height, width = stages[-1].size
    canvas = Canvas(height, width, like=picture.metadata, has_alpha=alpha is not None)
    for top, rows in _staged(picture.rgb[0], stages, loaded, request, runtime, on_tiles):
        cover = None if alpha is None else alpha[:, top : top + rows.shape[1]]
        canvas.put_rows(top, rows, cover)
    return canvas


Rows = tuple[int, Tensor]
"""First row, and (3, rows, W) nominally in [0, 1]."""


def _staged(
    lr: Tensor,
    stages: Sequence[Stage],
    loaded: LoadedModel,
    request: UpscaleRequest,
    runtime: Runtime,
    on_tiles: Callable[[int], None],
) -> Iterator[Rows]:
    """Runs the stages; all but the last, and resized ones, are held whole."""
    native = loaded.model.scale
    original = lr
    for stage in stages:
        rows = _native_rows(lr, loaded, request, runtime, on_tiles)
        native_size = (lr.shape[1] * native, lr.shape[2] * native)
        if stage is stages[-1] and stage.size == native_size and len(stages) == 1:
            yield from rows
            return
        lr = _resized(_whole(rows, native_size), stage.size)
    if _is_projected(loaded, request) and _is_whole(request.scale):
        lr = project(lr.unsqueeze(0), original.unsqueeze(0), int(request.scale))[0]
    yield 0, lr


def _native_rows(
    lr: Tensor,
    loaded: LoadedModel,
    request: UpscaleRequest,
    runtime: Runtime,
    on_tiles: Callable[[int], None],
) -> Iterator[Rows]:
    """One pass of the model, projected strip by strip where that is asked for."""
    strips = sample_strips(loaded.model, lr, request.settings, runtime, on_tiles=on_tiles)
    if not _is_projected(loaded, request):
        for strip in strips:
            yield strip.top, strip.pixels[0]
        return
    projection = StripProjection(lr, loaded.model.scale)
    top = 0
    for strip in strips:
        done = projection.push(strip.pixels[0])
        if done.shape[1]:
            yield top, done
            top += done.shape[1]


def _is_whole(scale: float) -> bool:
    """Whether a degradation of this scale exists: it takes whole numbers of pixels."""
    return scale == int(scale)


def _is_projected(loaded: LoadedModel, request: UpscaleRequest) -> bool:
    return loaded.is_bicubic if request.consistency is None else request.consistency


def _whole(rows: Iterator[Rows], size: tuple[int, int]) -> Tensor:
    picture = torch.empty(3, *size)
    for top, part in rows:
        picture[:, top : top + part.shape[1]] = part
    return picture


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Antialiased bicubic (a = -0.5): (3, h, w) -> (3, *size)."""
    if picture.shape[1:] == size:
        return picture
    resized = F.interpolate(
        picture.unsqueeze(0), size=size, mode="bicubic", antialias=True, align_corners=False
    )
    return resized[0]


def check_request(request: UpscaleRequest, loaded: LoadedModel) -> None:
    """Refuses, before any picture is read, what the model cannot do. Raises UsageError."""
    settings = request.settings
    check_tiles(tile=settings.tile, overlap=settings.overlap, cell=loaded.model.lr_multiple)


def upscale_file(
    source: Source,
    output: Path | None,
    loaded: LoadedModel,
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
        on_start: told how many tiles there will be.
        on_tiles: told how many have just been finished.
    """
    named = UpscaleResult(input=str(source.path), output=None if output is None else str(output))
    started = time.perf_counter()
    try:
        if output is not None and os.path.exists(output) and request.overwrite is False:
            return replace(named, status="skipped")
        _refuse_existing(output, request)
        picture = read_picture(
            stdin if source.is_stdin else source.path, max_pixels=request.max_pixels
        )
        tiles = count_tiles(picture.height, picture.width, loaded, request)
        tiles *= 1 if picture.alpha is None else 2
        _refuse_format(picture, output, loaded, request)
        on_start(tiles)
        canvas = upscale_picture(picture, loaded, request, runtime, on_tiles=on_tiles)
        notes = picture.notes + _write(canvas, output, request, stdout)
    except VdsrError as error:
        return failed_result(named, error)
    except MemoryError:
        reason = f"{named.input}: there is not enough memory for a picture that large"
        return failed_result(named, DeviceError(reason))
    return replace(
        named,
        model=loaded.name,
        scale=request.scale,
        temperature=request.settings.temperature,
        seed=request.settings.seed,
        width=canvas.width,
        height=canvas.height,
        tiles=tiles,
        consistency=_is_projected(loaded, request) and _is_whole(request.scale),
        seconds=round(time.perf_counter() - started, 3),
        notes=notes,
    )


def _refuse_format(
    picture: Picture, output: Path | None, loaded: LoadedModel, request: UpscaleRequest
) -> None:
    """Refuses an output that its format cannot hold before any work is done on it."""
    stages = plan_stages(
        picture.height, picture.width, native=loaded.model.scale, scale=request.scale
    )
    format = request.format if output is None else output_format(output)
    refuse_impossible(format, *stages[-1].size, name=str(output or "standard output"))


def failed_result(named: UpscaleResult, error: VdsrError) -> UpscaleResult:
    """The result of a picture that an error ended."""
    return replace(
        named,
        output=None,
        status="failed",
        error=str(error),
        hint=error.hint,
        exit_code=error.exit_code,
    )


def _refuse_existing(output: Path | None, request: UpscaleRequest) -> None:
    # os.path answers no, where Path raises, for what may not be looked at: writing will tell.
    if output is not None and os.path.exists(output) and request.overwrite is None:
        raise existing_error(str(output))


def existing_error(output: str) -> OutputError:
    """What is said of an output that is there and may neither be replaced nor skipped."""
    return OutputError(f"{output} exists already", hint="add --overwrite or --skip-existing")


def _write(
    canvas: Canvas, output: Path | None, request: UpscaleRequest, stdout: BinaryIO
) -> tuple[str, ...]:
    if output is None:
        return canvas.save_to(stdout, request.format, quality=request.quality)
    return canvas.save(output, quality=request.quality)
