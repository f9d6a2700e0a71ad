"""Two pictures on one page, one laid over the other."""

from pathlib import Path

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
    first, second = canvases = [_canvas(path, max_pixels) for path in (left, right)]
    sizes = [f"{canvas.width}x{canvas.height}" for canvas in canvases]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"{left} is {sizes[0]}, {right} is {sizes[1]}",
            hint="only pictures of one size can be laid over each other",
        )
    difference = psnr_rgb(first.planes8(), second.planes8(), shave=0)
    report = Report(
        title=f"{left.name}, {right.name}",
        facts=(("size", f"{first.width} x {first.height}"), ("PSNR", f"{difference:.2f} dB")),
        input=None,
        results=tuple(
            Layer(label=path.name, rgb=canvas.rgb8())
            for path, canvas in zip((left, right), canvases, strict=True)
        ),
        deviations=(),
        figures=(),
    )
    write_report(page, report, replace=replace)


def _canvas(path: Path, max_pixels: int) -> Canvas:
    picture = read_picture(path, max_pixels=max_pixels)
    canvas = Canvas(
        picture.height, picture.width, like=picture.metadata, has_alpha=picture.alpha is not None
    )
    alpha = None if picture.alpha is None else picture.alpha[0]
    canvas.put_rows(0, picture.rgb[0], alpha)
    return canvas
