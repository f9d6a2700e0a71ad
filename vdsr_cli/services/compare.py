"""Two pictures on one page, one laid over the other."""

from pathlib import Path

import torch

from vdsr_cli.config import MAX_PIXELS
from vdsr_cli.errors import InputError
from vdsr_cli.figures.html_report import Layer, Report, write_report
from vdsr_cli.images import Canvas, read_picture
from vdsr_cli.metrics.fidelity import psnr_rgb


def compare_pictures(
    left: Path, right: Path, page: Path, *, replace: bool = False, max_pixels: int = MAX_PIXELS
) -> None:
    """Writes the page: see :func:`~vdsr_cli.figures.html_report.write_report`.

    Raises:
        InputError: a picture cannot be read, or their sizes differ.
        OutputError: the page cannot be written.
    """
    layers = [_layer(path, max_pixels) for path in (left, right)]
    first, second = (layer.rgb for layer in layers)
    (height, width), (other_height, other_width) = first.shape[:2], second.shape[:2]
    if first.shape != second.shape:
        raise InputError(
            f"{left} is {width}x{height}, {right} is {other_width}x{other_height}",
            hint="only pictures of one size can be laid over each other",
        )
    planes = [torch.from_numpy(rgb.copy()).permute(2, 0, 1) for rgb in (first, second)]
    difference = psnr_rgb(planes[0], planes[1], shave=0)
    report = Report(
        title=f"{left.name}, {right.name}",
        facts=(("size", f"{width} x {height}"), ("PSNR", f"{difference:.2f} dB")),
        input=None,
        results=tuple(layers),
        deviations=(),
        figures=(),
    )
    write_report(page, report, replace=replace)


def _layer(path: Path, max_pixels: int) -> Layer:
    picture = read_picture(path, max_pixels=max_pixels)
    canvas = Canvas(
        picture.height, picture.width, like=picture.metadata, has_alpha=picture.alpha is not None
    )
    alpha = None if picture.alpha is None else picture.alpha[0]
    canvas.put_rows(0, picture.rgb[0], alpha)
    return Layer(label=path.name, rgb=canvas.rgb8())
