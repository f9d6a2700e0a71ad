"""``vdsr upscale``."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vdsr_cli.cli.console import print_error, tile_progress
from vdsr_cli.cli.options import (
    DEFAULT_MODEL,
    BatchOption,
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    FormatOption,
    MaxPixelsOption,
    ModelOption,
    Output,
    OutputOption,
    OverlapOption,
    OverwriteOption,
    QualityOption,
    QuietOption,
    SeedOption,
    TileOption,
    parse_batch,
)
from vdsr_cli.config import check_scale, check_temperature
from vdsr_cli.errors import UsageError
from vdsr_cli.paths import (
    Naming,
    Source,
    drop_own_outputs,
    expand_inputs,
    plan_naming,
    plan_outputs,
    scale_tag,
)

if TYPE_CHECKING:
    from vdsr_cli.services.upscale import UpscaleResult


def upscale(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Pictures, folders, quoted patterns, or - for standard input."),
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="Output file, folder, or - for standard output."),
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    scale: Annotated[float, typer.Option("--scale", "-s", help="Factor from 1 to 16.")] = 4.0,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", "-t", help="0: one smooth answer; 0.8: texture; 1: all of it."
        ),
    ] = 0.8,
    seed: SeedOption = 0,
    tile: TileOption = None,
    overlap: OverlapOption = None,
    batch_size: BatchOption = "auto",
    device: DeviceOption = Device.auto,
    dtype: DtypeOption = Dtype.auto,
    consistency: Annotated[
        bool | None,
        typer.Option(
            "--consistency/--no-consistency",
            help="Make the result downscale to the input exactly.",
            show_default="as the model asks",
        ),
    ] = None,
    output: OutputOption = Output.mean,
    wrap: Annotated[
        bool, typer.Option("--wrap", help="The picture is periodic (a texture).")
    ] = False,
    format: FormatOption = None,
    quality: QualityOption = 95,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Look below folders too.")
    ] = False,
    overwrite: OverwriteOption = None,
    max_pixels: MaxPixelsOption = 100_000_000,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a picture on stdout.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Upscale pictures.

    Example: vdsr upscale photo.png --scale 4 --temperature 0.8
    """
    tag = scale_tag(scale)
    naming = plan_naming(out, tag=tag, format=format.value if format else None)
    sources, own = drop_own_outputs(expand_inputs(inputs, recursive=recursive), naming)
    if own and not quiet:
        print(f"vdsr: {len(own)} earlier outputs are not upscaled again", file=sys.stderr)
    outputs = plan_outputs(sources, naming)
    to_stdout = [path for path in outputs if path is None]
    if to_stdout and as_json:
        raise UsageError("--json and a picture cannot share standard output", hint="give -o a file")
    check_scale(scale)
    check_temperature(temperature)
    if dry_run:
        for source, path in zip(sources, outputs, strict=True):
            _show_plan(source, None if path is None else str(path), as_json=as_json)
        return

    from vdsr_cli.runtime import choose_runtime
    from vdsr_cli.services.engine import SamplingSettings
    from vdsr_cli.services.loading import load_model
    from vdsr_cli.services.upscale import UpscaleRequest, check_request, upscale_file

    request = UpscaleRequest(
        scale=scale,
        settings=SamplingSettings(
            temperature=temperature,
            seed=seed,
            tile=tile,
            overlap=overlap,
            batch_size=parse_batch(batch_size),
            output=output.value,
            wrap=wrap,
        ),
        consistency=consistency,
        overwrite=overwrite,
        format=_stream_format(naming),
        quality=quality,
        max_pixels=max_pixels,
    )
    runtime = choose_runtime(device.value, dtype.value)
    loaded = load_model(model, runtime)
    check_request(request, loaded)
    worst = 0
    with tile_progress(len(sources), quiet=quiet) as bars:
        for source, path in zip(sources, outputs, strict=True):
            result = upscale_file(
                source,
                path,
                loaded,
                request,
                runtime,
                stdin=sys.stdin.buffer,
                stdout=sys.stdout.buffer,
                on_start=lambda tiles, source=source: bars.start(source.path.name, tiles),  # type: ignore[misc]
                on_tiles=bars.advance,
            )
            bars.finish()
            worst = max(worst, result.exit_code)
            _show_result(result, as_json=as_json, quiet=quiet)
    raise typer.Exit(worst)


def _stream_format(naming: Naming) -> str:
    return naming.suffix.removeprefix(".")


def _show_plan(source: Source, output: str | None, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"input": str(source.path), "output": output, "status": "planned"}))
    else:
        print(f"{source.path} -> {output or 'standard output'}")


def _show_result(result: "UpscaleResult", *, as_json: bool, quiet: bool) -> None:
    """The result on stdout; notes and failures on stderr."""
    if result.error:
        print_error(result.error, result.hint)
    for note in result.notes:
        print(f"vdsr: {result.input}: {note}", file=sys.stderr)
    if as_json:
        print(json.dumps(result.as_json()))
    elif result.status == "done" and result.output and not quiet:
        print(f"{result.output} ({result.width}x{result.height}, {result.seconds} s)")
    elif result.status == "skipped" and not quiet:
        print(f"{result.output} (exists, skipped)")
    sys.stdout.flush()
