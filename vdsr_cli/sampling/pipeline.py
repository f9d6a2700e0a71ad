"""The one way from a picture to larger ones: a plan first, then rows from top to bottom.

    Picture ─► plan_upscale ─► UpscalePlan: passes of the model, tiles, output
                                   │
    lr, alpha ─► pass of the model ─► projection ─► size wanted ─► (once more) ─► projection
                                   │
                                   └─► Rows ─► Frame.levels: 8 or 16 bits, rounded by cells

``vdsr upscale``, ``sample-diverse``, ``bench``, ``serve``, the workers of a batch and the library
all draw their pictures here; so sample 0 is the same picture everywhere: byte for byte where it is
drawn alone, to a level where it shares a batch with others and several threads add up.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, NamedTuple

import torch
from torch import Tensor

from vdsr_cli.background import in_background
from vdsr_cli.config import Temperature
from vdsr_cli.consistency.strips import HALO
from vdsr_cli.images import Canvas, Frame, Picture
from vdsr_cli.loading import LoadedModel
from vdsr_cli.models.protocol import Sampler, refuse_unknown_levels
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.engine import (
    PicturePlan,
    SampleNoise,
    SamplingSettings,
    fitting,
    limits_of,
    plan_for,
)
from vdsr_cli.sampling.noise import NoiseField
from vdsr_cli.sampling.strips import (
    StripSource,
    levelled_strips,
    projected_strips,
    resized_strips,
    sampled_strips,
    stacked,
)
from vdsr_cli.sampling.wrapping import Surroundings, surroundings

_PANORAMA: Final = "its XMP calls it a panorama all around: its left edge continues its right one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One pass of the model.

    Attributes:
        around: what stands beyond the edges of a picture that it enlarges.
        tiling: of that picture with it.
        size: (h, w) that its result is brought to.
    """

    around: Surroundings
    tiling: PicturePlan
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UpscalePlan:
    """Everything that is settled about a picture before anything is sampled.

    Attributes:
        settings: how it samples, with the batch that the device holds.
        stages: the passes of the model.
        is_projected: whether each pass is projected to degrade to what it was made of.
        faithful_scale: the whole scale by which the result degrades to the picture; None where it
            is not whole, or nothing is projected.
        output: size and samples of the result.
        tiles: how many will be sampled in all, those of alpha too.
        notes: what the model cannot do for the picture, for the user.
    """

    model: Sampler
    settings: SamplingSettings
    stages: tuple[Stage, ...]
    is_projected: bool
    faithful_scale: int | None
    output: Frame
    tiles: int
    notes: tuple[str, ...]

    @property
    def noises(self) -> list[NoiseField]:
        """The noise of each sample of the settings."""
        settings = self.settings
        return [NoiseField(seed=settings.seed, sample=index) for index in settings.samples]

    def at(self, temperature: Temperature) -> "UpscalePlan":
        """The same plan at another temperature."""
        return replace(self, settings=replace(self.settings, temperature=temperature))

    def canvas(self) -> Canvas:
        """An empty picture to put one sample's rows on."""
        output = self.output
        return Canvas(
            output.height,
            output.width,
            like=output.like,
            has_alpha=output.has_alpha,
            cell=output.cell,
        )


class Rows(NamedTuple):
    """Finished rows of all samples, not yet rounded, on the runtime's device.

    Attributes:
        top: the first row.
        rgb: (samples, 3, rows, W), premultiplied by alpha; in [0, 1] where the plan projects.
        alpha: (1, rows, W) in [0, 1], or None.
    """

    top: int
    rgb: Tensor
    alpha: Tensor | None


def plan_upscale(
    picture: Picture,
    loaded: LoadedModel,
    settings: SamplingSettings,
    runtime: Runtime,
    *,
    scale: float,
    size: tuple[int, int] | None = None,
    consistency: bool | None = None,
) -> UpscalePlan:
    """Plans a picture's way to ``scale`` times its size.

    Args:
        scale: output size over input size.
        size: height and width of the output, of which ``scale`` is then the larger ratio; None
            for what the scale makes.
        consistency: as :meth:`~vdsr_cli.loading.LoadedModel.projects` takes it.

    Raises:
        UsageError: tiles or temperatures that the model does not take.
    """
    model, is_projected = loaded.model, loaded.projects(consistency)
    refuse_unknown_levels(settings.temperature, model)
    settings = fitting(settings, model, runtime, samples=len(settings.samples))
    is_panorama = settings.wrap is None and picture.metadata.is_panorama
    if is_panorama:
        settings = replace(settings, wrap="x")
    whole = (picture.height, picture.width)
    # What is between two passes is a picture that the second can take.
    rows = model.lr_multiple if "y" in (settings.wrap or "") else 1
    sizes = stage_sizes(*whole, native=model.scale, scale=scale, size=size, rows=rows)
    passed, seen = (whole, *sizes[:-1]), (HALO, math.ceil(HALO * scale / model.scale))
    around = [
        surroundings(model, *before, settings, seen=far)
        for before, far in zip(passed, seen, strict=False)
    ]
    tilings = [plan_for(model, *beyond.size, settings) for beyond in around]
    has_alpha, samples = picture.alpha is not None, len(settings.samples)
    first, *more = (tiling.tiles for tiling in tilings)
    height, width = sizes[-1]
    is_whole = (height, width) == (picture.height * int(scale), picture.width * int(scale))
    faithful_scale = int(scale) if is_projected and is_whole else None
    # What alpha divides is rounded afterwards, and so by itself.
    cell = 1 if has_alpha else faithful_scale or 1
    return UpscalePlan(
        model=model,
        settings=settings,
        stages=tuple(
            Stage(around=beyond, tiling=tiling, size=after)
            for beyond, tiling, after in zip(around, tilings, sizes, strict=True)
        ),
        is_projected=is_projected,
        faithful_scale=faithful_scale,
        output=Frame(
            height=height, width=width, like=picture.metadata, has_alpha=has_alpha, cell=cell
        ),
        tiles=first * (1 + has_alpha) + sum(more) * (samples + has_alpha),
        notes=(*limits_of(model, tilings[0]), *([_PANORAMA] if is_panorama else [])),
    )


def stage_sizes(
    height: int,
    width: int,
    *,
    native: int,
    scale: float,
    size: tuple[int, int] | None = None,
    rows: int = 1,
) -> list[tuple[int, int]]:
    """The size after each pass of a model of scale ``native`` that makes ``scale``.

    One pass up to the native scale; two above it, where the first result is reduced so that the
    second pass ends at the size wanted, to a multiple of ``rows``.
    """
    last = size or (max(1, round(height * scale)), max(1, round(width * scale)))
    if scale <= native:
        return [last]
    ratio = scale / native
    return [(max(1, round(height * ratio / rows)) * rows, max(1, round(width * ratio))), last]


def draw_rows(
    picture: Picture,
    plan: UpscalePlan,
    runtime: Runtime,
    *,
    noises: Sequence[SampleNoise] | None = None,
    first_row: int = 0,
    on_tiles: Callable[[int], None] = lambda tiles: None,
    on_raw: Callable[[int, Tensor], None] = lambda top, strip: None,
) -> Iterator[Rows]:
    """Draws the larger pictures, row by row: what a later row holds does not depend on where the
    drawing began, bit for bit.

    Alpha is enlarged by the same model at temperature 0, so that its edges lie where the colours'
    do, and colours stay within it.

    Args:
        noises: one a sample; None for the plan's.
        first_row: the first row wanted; what comes may begin above it, with its whole cell.
        on_tiles: told how many tiles have just been finished, or need not be sampled.
        on_raw: told the first row and the pixels of strips that will be projected to degrade to a
            picture, which is not periodic.

    Raises:
        DeviceError: one tile does not fit into memory, or a tile is not finite.
    """
    noises = plan.noises if noises is None else noises
    enlarger = _Enlarger(
        picture=picture, plan=plan, runtime=runtime, on_tiles=on_tiles, on_raw=on_raw
    )
    source = enlarger.source(noises)
    for top, strip in source.rows_from(plan.output.whole_cells(first_row)):
        if picture.alpha is None:
            yield Rows(top, strip, None)
        else:
            yield Rows(top, strip[:-1], strip[-1, :1])


def draw_canvases(
    picture: Picture,
    plan: UpscalePlan,
    runtime: Runtime,
    *,
    on_tiles: Callable[[int], None] = lambda tiles: None,
    on_raw: Callable[[int, Tensor], None] = lambda top, strip: None,
) -> list[Canvas]:
    """The larger pictures, one for each sample; arguments as :func:`draw_rows` takes them."""
    canvases = [plan.canvas() for _ in plan.settings.samples]

    def put(rows: Rows) -> None:
        for canvas, sample in zip(canvases, rows.rgb, strict=True):
            canvas.put_rows(rows.top, sample, rows.alpha)

    # Rounding keeps one core busy, while the convolutions of the next rows use all.
    with in_background(put) as put_rows:
        for rows in draw_rows(picture, plan, runtime, on_tiles=on_tiles, on_raw=on_raw):
            put_rows(rows)
    return canvases


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Enlarger:
    """All passes over one picture; alpha is the last of the pictures that they make, three times
    the same channel."""

    picture: Picture
    plan: UpscalePlan
    runtime: Runtime
    on_tiles: Callable[[int], None]
    on_raw: Callable[[int, Tensor], None]

    def source(self, noises: Sequence[SampleNoise]) -> StripSource:
        """The results, as they are stored; what the second of two passes works on is whole."""
        picture, plan = self.picture, self.plan
        lr = picture.rgb[0].to(self.runtime.device)
        first, *more = plan.stages
        sources = [self._passed(lr, noises, first)]
        if picture.alpha is not None:
            grey = picture.alpha[0].to(lr).expand_as(lr)
            sources.append(self._passed(grey, noises[:1], first, is_alpha=True))
        source = stacked(sources)
        for stage in more:
            whole = torch.cat(list(source.draw(0)), dim=2)
            sources = [
                self._passed(
                    between, noises[i : i + 1] or noises[:1], stage, is_alpha=i == len(noises)
                )
                for i, between in enumerate(whole)
            ]
            source = stacked(sources)
        if picture.alpha is not None or picture.metadata.is_grey:
            source = source.mapped(self._as_stored)
        if plan.faithful_scale is None:
            return source
        seen = first.around.within(HALO)
        source = projected_strips(
            source.watched(self.on_raw),
            seen.around(lr),
            plan.faithful_scale,
            full=plan.output.full,
            has_alpha=plan.output.has_alpha,
            edges=plan.settings.edges,
        )
        return source.cropped(*seen.pixels(plan.faithful_scale))

    def _passed(
        self, lr: Tensor, noises: Sequence[SampleNoise], stage: Stage, *, is_alpha: bool = False
    ) -> StripSource:
        """One pass of the model, projected where that is asked for, brought to its size; the last
        one with what its result's projection sees beyond the edges."""
        plan, model, settings = self.plan, self.plan.model, self.plan.settings
        if is_alpha:
            settings = replace(settings, temperature=0.0, output="mean")
        around = stage.around
        source = sampled_strips(
            model,
            around.around(lr),
            stage.tiling,
            settings,
            [around.noise(noise, model) for noise in noises],
            self.runtime,
            self.on_tiles,
        ).mapped(partial(around.seamless, scale=model.scale))
        if is_alpha:  # what is empty or opaque all around stays so
            source = levelled_strips(source, around.around(lr), model.scale)
        # At the native scale the result's own projection is this one.
        if plan.is_projected and not is_alpha and plan.faithful_scale != model.scale:
            source = projected_strips(
                source,
                around.around(lr),
                model.scale,
                full=plan.output.full,
                edges=plan.settings.edges,
            )
        beyond, kept = around.pixels(model.scale), (0, 0)
        if plan.faithful_scale is not None and stage is plan.stages[-1]:
            kept = plan.stages[0].around.within(HALO).pixels(plan.faithful_scale)
        if stage.size == (model.scale * lr.shape[1], model.scale * lr.shape[2]):
            return source.cropped(beyond[0] - kept[0], beyond[1] - kept[1])
        return resized_strips(source, *stage.size, beyond=beyond, kept=kept)

    def _as_stored(self, strip: Tensor) -> Tensor:
        """Grey pictures get one value for all channels, and colours that overshoot with their alpha
        are brought back with it, so that the projection sees what a file will hold."""
        if self.picture.metadata.is_grey:
            strip = strip.mean(1, keepdim=True).expand_as(strip)
        if self.picture.alpha is None:
            return strip
        alpha = strip[-1:].mean(1, keepdim=True)
        return torch.cat([strip[:-1] / alpha.clamp(min=1), alpha.clamp(0, 1).expand_as(strip[-1:])])
