"""``vdsr generate``."""

import json
import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vdsr_cli.cli.console import bring, print_line, tile_progress
from vdsr_cli.cli.options import (
    DEFAULT_PRIOR,
    JsonOption,
    MachineOptions,
    OutputOptions,
    PixelsOption,
    QuietOption,
    SeedOption,
    complete_model,
    parse_batch,
    temperature_option,
)
from vdsr_cli.config import parse_temperature
from vdsr_cli.errors import UsageError
from vdsr_cli.paths import plan_naming

if TYPE_CHECKING:
    from vdsr_cli.services.generate import GenerateResult

LONGEST_SIDE_PX = 4096


def generate(
    *,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="An unconditional prior: vdvae-x4-prior, openai/ffhq256 and the like, a weights "
            "file (.safetensors, or .th as published), or a run of vdsr train vdvae.",
            autocompletion=complete_model,
        ),
    ] = DEFAULT_PRIOR,
    count: Annotated[int, typer.Option("-n", min=1, help="How many pictures.")] = 16,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="File for one grid, folder for one file a picture, or - for standard output.",
            show_default="MODEL_nCOUNT.png",
        ),
    ] = None,
    temperature: Annotated[
        str, temperature_option("0: the mean picture; 1: all there is.")
    ] = "0.8",
    seed: SeedOption = 0,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="PX|WxH",
            help="Of the pictures, where the model leaves a choice.",
            show_default="256",
        ),
    ] = None,
    columns: Annotated[
        int | None, typer.Option(min=1, help="Of the grid.", show_default="about as many as rows")
    ] = None,
    batch_size: Annotated[
        str, typer.Option(help="Pictures a batch, or auto; halved when memory runs out.")
    ] = "auto",
    machine: MachineOptions,
    pixels: PixelsOption = "mean",
    output: OutputOptions,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw pictures out of nothing, from an unconditional prior.

    Picture 3 of five is picture 3 of a hundred, whatever the batch.

    Examples:

        vdsr generate -n 4 --size 384x256 -o grid.png
        vdsr generate --model openai/ffhq256 -n 16 --temperature 0.8 -o faces.png
        vdsr generate -n 1000 -o samples/
    """
    if output.format == "same":
        raise UsageError("--format same needs an input to be the same as")
    naming = plan_naming(out, tag=f"n{count}", format=output.format)
    if naming.is_stdout and as_json:
        raise UsageError("--json and a picture cannot share standard output", hint="give -o a file")
    tempered = parse_temperature(temperature)
    batch = parse_batch(batch_size)
    sides = None if size is None else _parse_size(size)

    from vdsr_cli.loading import load
    from vdsr_cli.models.protocol import Prior
    from vdsr_cli.services.generate import GenerateRequest
    from vdsr_cli.services.generate import generate as run

    request = GenerateRequest(
        count=count,
        size=sides,
        temperature=tempered,
        seed=seed,
        output=pixels,
        batch_size=batch,
        columns=columns,
        existing=output.existing,
        quality=output.quality,
    )
    runtime = machine.runtime()
    bring(model, quiet=quiet)
    loaded = load(model, runtime, expects=Prior, has_encoder=False)
    with tile_progress(1, quiet=quiet, unit="pictures") as bars:
        result = run(
            loaded,
            naming,
            request,
            runtime,
            stdout=sys.stdout.buffer,
            on_start=lambda pictures: bars.start(model, pictures),
            on_picture=bars.advance,
        )
    _show(result, is_to_stdout=naming.is_stdout, as_json=as_json, quiet=quiet)


def _parse_size(text: str) -> tuple[int, int]:
    """``256``, or ``384x256`` for width by height -> height and width; raises UsageError."""
    match = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text)
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not (1 <= width <= LONGEST_SIDE_PX and 1 <= height <= LONGEST_SIDE_PX):
        raise UsageError(
            f"--size {text} is no size in 1 to {LONGEST_SIDE_PX}", hint="try 256, or 384x256"
        )
    return height, width


def _show(result: "GenerateResult", *, is_to_stdout: bool, as_json: bool, quiet: bool) -> None:
    """The result on stdout, notes on stderr."""
    for note in result.notes:
        print(f"vdsr: {result.model}: {note}", file=sys.stderr)
    if as_json:
        print(json.dumps(result.as_json()))
    elif not (quiet or is_to_stdout):
        for path in result.outputs:
            print_line(path)
        size = f"{result.width}x{result.height}"
        ended = "exist, skipped" if result.status == "skipped" else f"{result.seconds} s"
        print(f"{result.count} pictures of {size}, {ended}")
    sys.stdout.flush()
