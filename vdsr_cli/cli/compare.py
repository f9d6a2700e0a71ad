"""``vdsr compare``."""

from pathlib import Path
from typing import Annotated

import typer

from vdsr_cli.cli.console import print_line
from vdsr_cli.cli.options import MaxPixelsOption, ReplaceOption, existing_of
from vdsr_cli.config import MAX_PIXELS
from vdsr_cli.outputs import check_outputs


def compare(
    left: Annotated[Path, typer.Argument(metavar="A", help="A picture.")],
    right: Annotated[Path, typer.Argument(metavar="B", help="Another, of its size.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The page to write.", show_default="A_B.html beside A"),
    ] = None,
    overwrite: ReplaceOption = False,
    max_pixels: MaxPixelsOption = MAX_PIXELS,
) -> None:
    """Lay one picture over another, on a page with a slider that needs no network.

    Examples:

        vdsr compare photo_x4.png original.png
        vdsr compare smooth.png sharp.png -o page.html
        vdsr compare before.jpg after.webp -o page.html --overwrite
    """
    page = out or left.parent / f"{left.stem}_{right.stem}.html"
    check_outputs([page], existing_of(overwrite or None), inputs=[left, right])

    from vdsr_cli.services.compare import compare_pictures

    compare_pictures(left, right, page, replace=overwrite, max_pixels=max_pixels)
    print_line(page)
