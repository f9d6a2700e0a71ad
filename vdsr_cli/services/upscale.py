"""The use case of ``vdsr upscale``: pictures in, larger pictures out.

File ─► Series of frames or pages ─► services.series

Picture ─► UpscalePlan ─► rows, as sampling.pipeline draws them
    ─► PictureFile, which writes PNG and TIFF as rows are finished
    ─► Canvas ─► file of another format, or a stream
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import torch

from vdsr_cli.background import in_background
from vdsr_cli.config import TargetSize, Temperature, check_scale, check_temperature
from vdsr_cli.errors import (
    DeviceError,
    InputError,
    OutputError,
    OutputExistsError,
    UnexpectedError,
    VdsrError,
)
from vdsr_cli.files import is_special
from vdsr_cli.formats import is_video, written_format
from vdsr_cli.images import (
    Canvas,
    Picture,
    ReadOptions,
    Series,
    is_segmented,
    open_picture_file,
    refuse_impossible,
    refuse_several,
    writing_to,
)
from vdsr_cli.images.video import open_video, open_video_file
from vdsr_cli.loading import Choice, LoadedModel, ModelSource
from vdsr_cli.models.protocol import refuse_unknown_levels
from vdsr_cli.outputs import Existing, is_taken, refuse_inputs, refuse_taken, refuse_too_long
from vdsr_cli.paths import DEFAULT_FORMAT, SAME_FORMAT, Source, output_format, video_format
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.engine import SamplingSettings
from vdsr_cli.sampling.fingerprint import fingerprint
from vdsr_cli.sampling.pipeline import UpscalePlan, draw_canvases, draw_rows, plan_upscale
from vdsr_cli.sampling.tiling import check_tiles, tiles_for
from vdsr_cli.services.series import upscale_series
from vdsr_cli.services.video import frame_size, upscale_frames

_MOST_ENCODERS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleRequest:
    """How to upscale each picture.

    Attributes:
        scale: output size over input size, 1 to 16.
        size: of the output, in place of a scale.
        depth: bits a sample of the output; None for the input's.
        format: of outputs that go to a stream; None for PNG, or of what holds several pictures its
            own; ``SAME_FORMAT`` for the input's.
        keeps_times: whether outputs have the access and modification times of their inputs.
    """

    scale: float = 4.0
    size: TargetSize | None = None
    depth: Literal[8, 16] | None = None
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    consistency: bool | None = None
    existing: Existing = Existing.refuse
    format: str | None = None
    quality: int = 95
    reading: ReadOptions = field(default_factory=ReadOptions)
    keeps_times: bool = False

    def __post_init__(self) -> None:
        check_scale(self.scale)
        check_temperature(self.settings.temperature)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleResult:
    """The result for one picture; its fields are the keys of ``--json``."""

    input: str
    output: str | None = None
    status: str = "done"
    model: str | None = None
    model_reason: str | None = None
    scale: float | None = None
    temperature: Temperature | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    tiles: int | None = None
    consistency: bool | None = None
    edges: str | None = None
    wrap: str | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None
    hint: str | None = None
    exit_code: int = 0
    traceback: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields that have a value."""
        return {key: value for key, value in asdict(self).items() if value not in (None, ())}


def plan_picture(
    picture: Picture,
    loaded: LoadedModel,
    request: UpscaleRequest,
    runtime: Runtime,
    *,
    size: tuple[int, int] | None = None,
) -> UpscalePlan:
    """The plan of a request for a picture, which ``size`` makes one of so many rows and columns."""
    if size is None and request.size is not None:
        size = request.size.of(picture.height, picture.width)
    return plan_upscale(
        picture,
        loaded,
        request.settings,
        runtime,
        scale=_scale_of(picture, request),
        size=size,
        consistency=request.consistency,
    )


def _scale_of(picture: Picture, request: UpscaleRequest) -> float:
    if request.size is None:
        return request.scale
    return request.size.scale_of(picture.height, picture.width)


def _of_depth(picture: Picture, depth: Literal[8, 16] | None) -> Picture:
    """The picture as one of so many bits: what comes out of it is rounded to them once."""
    if depth is None:
        return picture
    return replace(picture, metadata=replace(picture.metadata, bit_depth=depth))


def upscale_picture(
    picture: Picture,
    loaded: LoadedModel,
    request: UpscaleRequest,
    runtime: Runtime,
    *,
    on_tiles: Callable[[int], None] = lambda tiles: None,
) -> Canvas:
    """The larger picture, in the depth and channels of its source."""
    plan = plan_picture(picture, loaded, request, runtime)
    return draw_canvases(picture, plan, runtime, on_tiles=on_tiles)[0]


def check_request(request: UpscaleRequest, loaded: LoadedModel) -> None:
    """Refuses, before any picture is read, what the model cannot do. Raises UsageError."""
    settings, cell = request.settings, loaded.model.lr_multiple
    fixed = loaded.model.fixed_tile
    tile, overlap = tiles_for(settings.tile, settings.overlap, cell=cell, fixed_tile=fixed)
    check_tiles(tile=tile, overlap=overlap, cell=cell)
    refuse_unknown_levels(settings.temperature, loaded.model)


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
        output: where to write; None for ``stdout``.
    """
    named = UpscaleResult(input=str(source.path), output=None if output is None else str(output))
    run = _Upscaling(
        named=named,
        models=models,
        request=request,
        runtime=runtime,
        on_start=on_start,
        on_tiles=on_tiles,
    )
    started = time.perf_counter()
    try:
        if output is not None:
            if request.existing is Existing.skip and is_taken(output):
                return replace(named, status="skipped")
            if not source.is_stdin:
                refuse_inputs([output], [source.path])
            refuse_taken([output], request.existing)
        times = _times_of(source) if request.keeps_times else None
        if not source.is_stdin and is_video(source.path):
            result = run.of_video(output)
        else:
            with request.reading.open(stdin if source.is_stdin else source.path) as opened:
                result = run.of_pictures(opened, stdout if output is None else output)
        if times is not None and output is not None and not is_special(output):
            with writing_to(str(output)):
                os.utime(output, ns=times)
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
    return replace(result, seconds=round(time.perf_counter() - started, 3))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Upscaling:
    """The work on one file, whatever it holds; ``named`` is the beginning of its result."""

    named: UpscaleResult
    models: ModelSource
    request: UpscaleRequest
    runtime: Runtime
    on_start: Callable[[int], None]
    on_tiles: Callable[[int], None]

    def of_pictures(self, opened: Picture | Series, target: Path | BinaryIO) -> UpscaleResult:
        """Upscales the picture or pictures of a file into another, or into a stream."""
        request, series = self.request, opened if isinstance(opened, Series) else None
        picture = _of_depth(opened[0] if isinstance(opened, Series) else opened, request.depth)
        shapes = [picture]
        if series is not None:
            shapes = [shape.stand_in(picture) for shape in series.shapes]
        choice, plan_of = self._chosen(picture, shapes)
        plans = [plan_of(shape) for shape in shapes]
        plan, output = plans[0], target if isinstance(target, Path) else None
        if output is not None:
            refuse_too_long(output)
        format, told = _format_of(picture, series, output, plans, request)
        tiles = sum(each.tiles for each in plans)
        self.on_start(tiles)
        notes = plan.notes + told

        def digest() -> str:
            sizes = [(each.output.height, each.output.width) for each in plans]
            return f"{series.digest()} {request.quality} {sizes}" if series else ""

        identity = partial(_identify, picture, choice.loaded, plan, self.runtime, digest)
        if series is None:
            notes += picture.notes + self._picture_into(target, format, picture, plan, identity)
        else:
            notes += series.notes + upscale_series(
                series,
                target,
                plans,
                plan_of,
                self.runtime,
                format=format,
                quality=request.quality,
                replace=request.existing.is_replaced,
                identity=identity,
                prepared=partial(_of_depth, depth=request.depth),
                on_tiles=self.on_tiles,
            )
        frames = None if series is None else len(series)
        return self._done(choice, picture, plan, frames=frames, tiles=tiles, notes=notes)

    def of_video(self, output: Path | None) -> UpscaleResult:
        """Upscales a video, which progress counts in frames."""
        if output is None or is_special(output):
            raise OutputError("a video needs a file of its own", hint="give -o a file")
        refuse_too_long(output)
        request, format = self.request, video_format(output)
        with open_video(Path(self.named.input), request.reading.max_pixels) as video:
            first = video.first
            choice, plan_of = self._chosen(first, [first])
            plan = plan_of(first)
            size = frame_size(video, plan.output.height, plan.output.width)
            if size != (plan.output.height, plan.output.width):
                plan = plan_of(first, size=size)
            bits = first.metadata.bit_depth if request.depth is None else request.depth
            self.on_start(video.frames)

            def digest() -> str:
                return f"{video.digest()} {request.quality} {request.depth}"

            with open_video_file(
                output,
                video,
                size,
                format=format,
                quality=request.quality,
                is_deep=bits == 16,
                identity=partial(_identify, first, choice.loaded, plan, self.runtime, digest),
                replaces=request.existing.is_replaced,
                keeps_tags=not request.reading.strip_metadata,
            ) as file:
                upscale_frames(video, file, plan, self.runtime, self.on_tiles)
        notes = (*video.notes, *plan.notes, *file.notes)
        tiles = plan.tiles * file.done
        return self._done(choice, first, plan, frames=file.done, tiles=tiles, notes=notes)

    def _chosen(
        self, picture: Picture, shapes: Sequence[Picture]
    ) -> tuple[Choice, Callable[..., UpscalePlan]]:
        """The model for a picture, and what makes a plan for it.

        Raises:
            InputError: one of the shapes cannot get the size asked for.
        """
        for shape in shapes:
            try:
                _scale_of(shape, self.request)
            except InputError as error:
                raise InputError(f"{self.named.input}: {error}") from error
        choice = self.models.choose(picture)
        plan_of = partial(
            plan_picture, loaded=choice.loaded, request=self.request, runtime=self.runtime
        )
        return choice, plan_of

    def _picture_into(
        self,
        output: Path | BinaryIO,
        format: str,
        picture: Picture,
        plan: UpscalePlan,
        identity: Callable[[], str],
    ) -> tuple[str, ...]:
        """Upscales a picture into a file, which pipes and devices get at once, or a stream; returns
        notes for the user."""
        quality, replaces = self.request.quality, self.request.existing.is_replaced
        if not isinstance(output, Path) or not is_segmented(format) or is_special(output):
            [canvas] = draw_canvases(picture, plan, self.runtime, on_tiles=self.on_tiles)
            if isinstance(output, Path):
                return canvas.save(output, quality=quality, replace=replaces)
            return canvas.save_to(output, format, quality=quality)
        # One where the convolutions use the cores, else enough not to be waited for.
        is_cpu = self.runtime.device.type == "cpu"
        threads = 1 if is_cpu else min(_MOST_ENCODERS, os.cpu_count() or 1)
        with (
            open_picture_file(
                output,
                plan.output,
                format=format,
                identity=identity,
                replace=replaces,
                threads=threads,
            ) as file,
            in_background(file.put_rows) as put_rows,
        ):
            first = file.next_row
            for rows in draw_rows(
                picture, plan, self.runtime, first_row=first, on_tiles=self.on_tiles
            ):
                put_rows(rows.top, rows.rgb[0], rows.alpha)
        return file.notes

    def _done(
        self,
        choice: Choice,
        picture: Picture,
        plan: UpscalePlan,
        *,
        frames: int | None,
        tiles: int,
        notes: tuple[str, ...],
    ) -> UpscaleResult:
        """The result of what has been written by a plan, of several pictures that of the first."""
        return replace(
            self.named,
            model=choice.loaded.name,
            model_reason=choice.reason,
            scale=_scale_of(picture, self.request),
            temperature=self.request.settings.temperature,
            seed=self.request.settings.seed,
            width=plan.output.width,
            height=plan.output.height,
            frames=frames,
            tiles=tiles,
            consistency=plan.faithful_scale is not None,
            edges=str(plan.settings.edges) if plan.is_projected else None,
            wrap=plan.settings.periodic or None,
            notes=notes,
        )


def _format_of(
    picture: Picture,
    series: Series | None,
    output: Path | None,
    plans: Sequence[UpscalePlan],
    request: UpscaleRequest,
) -> tuple[str, tuple[str, ...]]:
    """The format of an output, and a note where it is not the input's though it is to be.

    Raises:
        OutputError: it cannot hold what is to be written.
    """
    own = written_format(picture.metadata.source_format)
    is_same = request.format == SAME_FORMAT
    is_kept = is_same or (request.format is None and series is not None)
    format = (own if is_kept else request.format) or DEFAULT_FORMAT
    if output is not None:
        format = output_format(output)
    name = str(output or "standard output")
    if series is not None:
        refuse_several(format, is_animation=series.plays is not None, name=name)
    for plan in plans:
        refuse_impossible(format, plan.output.height, plan.output.width, name=name)
    if not is_same or format == own:
        return format, ()
    source = (picture.metadata.source_format or "this").upper()
    return format, (f"{source} is not written: the output is {format.upper()}",)


def _times_of(source: Source) -> tuple[int, int] | None:
    """Access and modification time of a file in nanoseconds; None of standard input."""
    if source.is_stdin:
        return None
    try:
        found = source.path.stat()
    except OSError:  # reading it will tell
        return None
    return found.st_atime_ns, found.st_mtime_ns


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


def _identify(
    picture: Picture,
    loaded: LoadedModel,
    plan: UpscalePlan,
    runtime: Runtime,
    digest: Callable[[], str],
) -> str:
    """A hash of all that the rows depend on; of several pictures, the digest of their file too."""
    sizes = [stage.size for stage in plan.stages]
    facts = {"sizes": sizes, "projected": plan.is_projected, "faithful": plan.faithful_scale}
    facts["file"] = digest()
    return fingerprint(picture, loaded, runtime, asdict(plan.settings) | facts)
