"""``vdsr layers``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vdsr_cli.cli.console import bring, counting_progress
from vdsr_cli.cli.options import (
    JsonOption,
    LearnedModelOption,
    MachineOptions,
    NoProgressOption,
    PixelsOption,
    ReplaceOption,
    existing_of,
    temperature_option,
)
from vdsr_cli.config import parse_temperature
from vdsr_cli.errors import UsageError
from vdsr_cli.outputs import check_outputs

if TYPE_CHECKING:
    from vdsr_cli.services.layers import LayerDistances


def layers(
    *,
    model: LearnedModelOption = "vdvae-x4-prior",
    scales: Annotated[str, typer.Option(help="Reductions, with commas.")] = "1,2,4,8,16",
    codes: Annotated[int, typer.Option("--codes", "-n", min=1, help="Latent codes.")] = 50,
    draws: Annotated[int, typer.Option(min=2, help="Pictures of each code and k.")] = 5,
    every: Annotated[int, typer.Option(min=1, help="Measure only every so many layers.")] = 1,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the pictures.", show_default="the prior's, or 128"),
    ] = None,
    temperature: Annotated[str, temperature_option("Of every latent.")] = "1",
    seed: Annotated[int, typer.Option(help="Of the codes.")] = 0,
    pixels: PixelsOption = "mean",
    plot: Annotated[Path | None, typer.Option(help="The curves, as .svg or .png.")] = None,
    machine: MachineOptions,
    overwrite: ReplaceOption = False,
    as_json: JsonOption = False,
    quiet: NoProgressOption = False,
) -> None:
    """Measure which layers of an unconditional prior decide what (CVDVAE's appendix A).

    Fixes the first k layers of a random code, draws the others, and prints how far apart the
    pictures are, in grey levels, at each reduction: what the first k layers leave open.

    Examples:

        vdsr layers --model vdvae-x4-prior --scales 1,4,16 --plot layers.svg
        vdsr layers -n 5 --draws 2 --every 4
        vdsr layers --model openai/ffhq256 --json
    """
    from vdsr_cli.figures.plot import check_plot_path, save_figure
    from vdsr_cli.loading import load
    from vdsr_cli.models.protocol import Prior
    from vdsr_cli.services.layers import (
        LayersRequest,
        layers_figure,
        measure_codes,
        summarise,
    )

    if plot is not None:
        check_plot_path(plot)
    tempered = parse_temperature(temperature)
    check_outputs([plot], existing_of(overwrite or None))
    request = LayersRequest(
        scales=_parse_scales(scales),
        codes=codes,
        draws=draws,
        every=every,
        size_px=size,
        temperature=tempered,
        seed=seed,
        output=pixels,
    )
    bring(model, quiet=quiet)
    runtime = machine.runtime()
    prior = load(model, runtime, expects=Prior, has_encoder=False).model
    with counting_progress("codes", quiet=quiet) as progress:
        codes_measured = measure_codes(prior, request)
        measured = list(progress.track(codes_measured, total=codes, description=model))
    distances = summarise(prior, request, measured)
    if as_json:
        settings = {"codes": codes, "draws": draws, "temperature": tempered, "seed": seed}
        document = {"model": model, **settings, "output": pixels, **distances.as_json()}
        typer.echo(json.dumps(document, indent=2))
    else:
        _print(distances)
    if plot is not None:
        save_figure(plot, layers_figure(distances), replace=overwrite)


def _parse_scales(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 10 and int(part) > 0 for part in parts):
        raise UsageError(f"--scales {text}: whole numbers with commas are wanted")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _print(distances: "LayerDistances") -> None:
    """A line for each k, and what it means for each scale."""
    typer.echo("fixed  cell" + "".join(f"{f'x{scale}':>9}" for scale in distances.scales))
    for fixed, row in zip(distances.fixed, distances.mean, strict=True):
        cell = str(distances.cells[fixed - 1]) if fixed else ""
        typer.echo(f"{fixed:5}{cell:>6}" + "".join(f"{value:9.3f}" for value in row))
    for scale in distances.scales:
        typer.echo(_verdict(distances, scale))


def _verdict(distances: "LayerDistances", scale: int) -> str:
    """How much the layers that an LR picture can decide leave open, and which leave nothing."""
    left, below = distances.left_open(scale), distances.negligible_from(scale)
    visible = f"x{scale}: {distances.visible_layers(scale)} layers have cells of {scale} and more"
    leave = "" if left is None else f" and leave {left:.2f} of {distances.curve(scale)[0][1]:.2f}"
    return f"{visible}{leave}; below 0.5 " + ("nowhere" if below is None else f"from k = {below}")
