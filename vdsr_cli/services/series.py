"""The use case of an animation or a document: each of its pictures enlarged, into one file.

Series ─► one picture at a time ─► sampling.pipeline ─► SeriesFile

The noise of a picture depends on the place in it alone, and so is that of every frame: what stays
still in the input stays still in the output, at any temperature.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import torch

from vdsr_cli.images import Canvas, Picture, Series, open_series_file
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.pipeline import UpscalePlan, draw_canvases


def upscale_series(
    series: Series,
    output: Path | BinaryIO,
    plans: Sequence[UpscalePlan],
    plan_of: Callable[[Picture], UpscalePlan],
    runtime: Runtime,
    *,
    format: str,
    quality: int,
    replace: bool,
    identity: Callable[[], str],
    prepared: Callable[[Picture], Picture],
    on_tiles: Callable[[int], None],
) -> tuple[str, ...]:
    """Upscales the pictures of a file into another; returns notes for the user.

    A frame that is the one before it is not sampled again.

    Args:
        plans: one a picture, but for their metadata.
        plan_of: makes the whole plan of a picture.
        format, quality, replace, identity: as :func:`~vdsr_cli.images.open_series_file` takes them.
        prepared: is applied to each picture.
    """
    with open_series_file(
        output,
        series,
        [plan.output for plan in plans],
        format=format,
        quality=quality,
        identity=identity,
        replace=replace,
    ) as file:
        on_tiles(sum(plan.tiles for plan in plans[: file.first]))
        before: Picture | None = None
        canvas: Canvas | None = None
        for index in range(file.first, len(series)):
            picture = prepared(series[index])
            if before is not None and canvas is not None and _is_same(picture, before):
                on_tiles(plans[index].tiles)
            else:
                [canvas] = draw_canvases(picture, plan_of(picture), runtime, on_tiles=on_tiles)
            file.put(canvas.levels(), canvas.frame)
            before = picture
    return file.notes


def _is_same(picture: Picture, other: Picture) -> bool:
    if picture.metadata != other.metadata or picture.rgb.shape != other.rgb.shape:
        return False
    if picture.alpha is None or other.alpha is None:
        return picture.alpha is other.alpha and torch.equal(picture.rgb, other.rgb)
    return torch.equal(picture.rgb, other.rgb) and torch.equal(picture.alpha, other.alpha)
