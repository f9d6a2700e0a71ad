"""The use case of ``vdsr serve``: a picture in memory in, PNG files and what a page shows out.

Picture ─► SampleSet ─► PNGs: the input enlarged, the samples, their mean, their deviation
              └─► distances, LR-PSNR ─► the viewer's JSON
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import PurePath
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from vdsr_cli.config import DEFAULT_TEMPERATURE, Temperature, check_temperature
from vdsr_cli.diverse.outputs import colour_full
from vdsr_cli.errors import UsageError
from vdsr_cli.figures.html_report import Figures, Shown, View
from vdsr_cli.figures.viridis import viridis
from vdsr_cli.images import Canvas, Picture, encode_levels
from vdsr_cli.loading import ModelSource
from vdsr_cli.metrics.streaming import mean_of_pairs
from vdsr_cli.paths import scale_tag
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.engine import SamplingSettings
from vdsr_cli.sampling.pipeline import plan_upscale
from vdsr_cli.sampling.sample_set import SampleSet, draw_set

ARCHIVE = "all.zip"
"""Name of all files of a result in one."""
MOST_SAMPLES = 16
"""Samples of one request: each is held in memory until the result is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawRequest:
    """The settings that a visitor asks for.

    Attributes:
        samples: how many to draw, 1 to ``MOST_SAMPLES``.
        batch_size: most tiles a batch: progress and cancelling wait for one.
    """

    title: str
    samples: int = 5
    temperature: Temperature = DEFAULT_TEMPERATURE
    seed: int = 0
    batch_size: int | None = 4

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise UsageError(f"n {self.samples} is outside 1 to {MOST_SAMPLES}")
        check_temperature(self.temperature)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """PNG files by name, and the keys of the page: those of :class:`View`, and downloads."""

    files: dict[str, bytes]
    view: dict[str, Any]


def reduced_to(picture: Picture, pixels: int) -> Picture:
    """The picture with so many pixels at most: antialiased bicubic, and a note that says so."""
    factor = (pixels / (picture.height * picture.width)) ** 0.5
    if factor >= 1:
        return picture
    width = min(max(1, int(picture.width * factor)), pixels)
    height = min(max(1, int(picture.height * factor)), pixels // width)
    width = min(width, pixels // height)
    alpha = picture.alpha
    if alpha is not None:
        alpha = _resized(alpha[0], (height, width)).clamp_(0, 1).unsqueeze(0)
    most = 1.0 if alpha is None else alpha
    rgb = _resized(picture.rgb[0], (height, width)).clamp_(0).unsqueeze(0).clamp_(max=most)
    note = f"reduced from {picture.width} x {picture.height} to {width} x {height} to be drawn"
    notes = (*picture.notes, note)
    # Its pixels are no longer those that a JPEG's table tells of.
    return replace(picture, rgb=rgb, alpha=alpha, notes=notes, jpeg_table=None)


def draw(
    picture: Picture,
    models: ModelSource,
    request: DrawRequest,
    runtime: Runtime,
    *,
    address: str,
    on_start: Callable[[int], None] = lambda tiles: None,
    on_tiles: Callable[[int], None] = lambda tiles: None,
) -> Drawn:
    """Draws the samples of one picture and encodes what a page shows of them.

    Args:
        address: where the page will find the files: the start of their names.
        on_tiles: told how many have just been finished; what it raises ends the work.
    """
    started = time.perf_counter()
    settings = SamplingSettings(
        temperature=request.temperature,
        seed=request.seed,
        samples=tuple(range(request.samples)),
        batch_size=request.batch_size,
    )
    choice = models.choose(picture)
    loaded = choice.loaded
    plan = plan_upscale(picture, loaded, settings, runtime, scale=loaded.scale)
    on_start(plan.tiles)
    drawn = draw_set(picture, plan, runtime, on_tiles=on_tiles)
    files = _encode(drawn, _bicubic(picture, loaded.model.scale))
    reason = [] if choice.reason is None else [("because of", choice.reason)]
    facts = [
        ("model", loaded.name),
        *reason,
        ("scale", scale_tag(loaded.scale)),
        ("size", f"{drawn.mean.width} x {drawn.mean.height}"),
        ("temperature", f"{request.temperature:g}"),
        ("seed", str(request.seed)),
        ("faithful to the input", "projected" if plan.is_projected else "not projected"),
        ("seconds", f"{time.perf_counter() - started:.1f}"),
    ]
    view = _view(drawn, files, request.title, address, tuple(facts))
    saved = _saved(files, f"{PurePath(request.title).stem}_{scale_tag(loaded.scale)}", address)
    return Drawn(files=files, view=asdict(view) | saved | {"notes": picture.notes + plan.notes})


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Antialiased bicubic (a = -0.5): (3, h, w) -> (3, *size)."""
    if picture.shape[1:] == size:
        return picture
    enlarged = F.interpolate(
        picture.unsqueeze(0), size=size, mode="bicubic", antialias=True, align_corners=False
    )
    return enlarged[0]


def _bicubic(picture: Picture, scale: int) -> Canvas:
    """The input as a viewer without a model would enlarge it, in its own depth and colours."""
    size = (picture.height * scale, picture.width * scale)
    alpha = None if picture.alpha is None else _resized(picture.alpha[0], size)[None]
    return Canvas.of(replace(picture, rgb=_resized(picture.rgb[0], size)[None], alpha=alpha))


def _encode(drawn: SampleSet, enlarged: Canvas) -> dict[str, bytes]:
    """PNGs by name, the samples first; mean and deviation where there are several."""
    canvases = {f"s{i}": canvas for i, canvas in enumerate(drawn.canvases)}
    is_several = len(canvases) > 1
    if is_several:
        canvases["mean"] = drawn.mean
    canvases["input"] = enlarged
    with ThreadPoolExecutor() as pool:
        files = dict(zip(canvases, pool.map(Canvas.png, canvases.values()), strict=True))
    if is_several:
        stream = BytesIO()
        colours = viridis(drawn.std.numpy(), largest=colour_full(drawn.std))
        encode_levels(stream, colours, format="png")
        files["std"] = stream.getvalue()
    return {f"{name}.png": data for name, data in files.items()}


def _view(
    drawn: SampleSet,
    files: Iterable[str],
    title: str,
    address: str,
    facts: tuple[tuple[str, str], ...],
) -> View:
    deviation = f"up to {255 * colour_full(drawn.std):.1f} of 255"
    return View(
        title=title,
        facts=facts,
        width=drawn.mean.width,
        height=drawn.mean.height,
        input=Shown(label="input, bicubic", src=f"{address}input.png"),
        results=tuple(
            Shown(label=PurePath(name).stem, src=address + name)
            for name in files
            if name not in ("input.png", "std.png")
        ),
        deviations=tuple(
            Shown(label=deviation, src=address + name) for name in files if name == "std.png"
        ),
        figures=(_figures(drawn),),
    )


def _saved(files: Iterable[str], stem: str, address: str) -> dict[str, Any]:
    """The files to download under the names of the command line, one by one and all at once."""
    return {
        "all": {"src": address + ARCHIVE, "name": f"{stem}.zip"},
        "files": [
            {"src": address + name, "name": f"{stem}_{name}"}
            for name in files
            if name != "input.png"
        ],
    }


def _figures(drawn: SampleSet) -> Figures:
    rows = [(f"s{i}", f"{psnr:.1f}") for i, psnr in enumerate(drawn.lr_psnr)]
    notes: tuple[tuple[str, str], ...] = ()
    if len(rows) > 1:
        rows.append(("mean", f"{drawn.mean_lr_psnr:.1f}"))
        notes = (
            ("APD, mean squared", f"{mean_of_pairs(drawn.distances):.3e}"),
            ("mean deviation", f"{255 * drawn.std.mean().item():.2f} of 255"),
        )
    head = ("picture", "LR-PSNR before rounding, dB")
    return Figures(title="Faithfulness", head=head, rows=tuple(rows), notes=notes)
