"""``vdsr srvae``: the operations on small crops of photographs (Gatopoulos 2020), and scores."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vdsr_cli.cli.command import App
from vdsr_cli.cli.console import bring, print_figures
from vdsr_cli.cli.options import (
    DeviceOption,
    JsonOption,
    LearnedModelOption,
    ReplaceOption,
    check_figure,
    write_figure,
)

if TYPE_CHECKING:
    from vdsr_cli.models.srvae import SRVAE, Autoencoder

app = App(
    name="srvae",
    help="srVAE, x2: generate, super-resolve, reconstruct and interpolate small crops; scores. "
    "Whole pictures: vdsr upscale --model srvae-x2 --scale 2.",
)

DEFAULT_MODEL = "srvae-x2"

OPERATIONS: Mapping[str, tuple[str, str]] = {
    "super-resolve": (
        "super-resolution",
        """Super-resolve crops: u and z are drawn from what they are given lr.

        Examples:

            vdsr srvae super-resolve photos/ -n 8 -o super-resolved.png
            vdsr srvae super-resolve photo.png --samples 5 -o five.png
            vdsr srvae super-resolve photos/ -t 0 --samples 1 -o mean.png
        """,
    ),
    "reconstruct": (
        "reconstruction",
        """Reconstruct crops: z is drawn from what it is given hr; lr is hr's own.

        Examples:

            vdsr srvae reconstruct photos/ -n 8 -o reconstructed.png
            vdsr srvae reconstruct photo.png --samples 5 -o five.png
            vdsr srvae reconstruct photos/ --model runs/srvae -o mine.png
        """,
    ),
    "generative-reconstruct": (
        "generative reconstruction",
        """Reconstruct crops from the code u of lr alone: lr is drawn again, then hr.

        Examples:

            vdsr srvae generative-reconstruct photos/ -n 8 -o again.png
            vdsr srvae generative-reconstruct photo.png --samples 5 -o five.png
            vdsr srvae generative-reconstruct photos/ --seed 1 -o other.png
        """,
    ),
}
"""The service's name of each command, and its help."""

Pictures = Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")]
Output = Annotated[Path, typer.Option("--out", "-o", help="The sheet of pictures to write.")]
Temperature = Annotated[
    float, typer.Option("--temperature", "-t", min=0.0, max=2.0, help="Factor on the latents.")
]
Sampled = Annotated[
    bool, typer.Option("--sample-pixels", help="Draw the pixels too, instead of their mean.")
]
Seed = Annotated[int, typer.Option(help="Of the crops and of what is drawn.")]


def _load(name: str, device: str) -> "SRVAE":
    from vdsr_cli.loading import load
    from vdsr_cli.models.srvae import SRVAE
    from vdsr_cli.runtime import choose_runtime

    bring(name, quiet=False)
    return load(name, choose_runtime(device, "float32"), expects=SRVAE).model


def _load_either(name: str, device: str) -> "Autoencoder":
    """An srVAE, or the VAE that it is compared with."""
    from vdsr_cli.loading import load
    from vdsr_cli.models.srvae import Autoencoder
    from vdsr_cli.runtime import choose_runtime

    bring(name, quiet=False)
    return load(name, choose_runtime(device, "float32"), expects=Autoencoder).model


@app.command()
def generate(
    out: Output,
    model: LearnedModelOption = DEFAULT_MODEL,
    count: Annotated[int, typer.Option("-n", min=1, max=256, help="How many.")] = 16,
    temperature: Temperature = 0.8,
    sample_pixels: Sampled = False,
    seed: Seed = 0,
    device: DeviceOption = "auto",
    overwrite: ReplaceOption = False,
) -> None:
    """Draw pictures out of nothing: u, lr given u, z given both, hr given lr and z.

    Those of the VAE with a bijective prior: vdsr generate.

    Examples:

        vdsr srvae generate -n 16 -o generated.png
        vdsr srvae generate -n 64 -t 1 -o varied.png
        vdsr srvae generate --model runs/srvae -o mine.png
    """
    from vdsr_cli.services.srvae import Drawing, draw_generated

    check_figure(out, overwrite=overwrite)
    drawing = Drawing(temperature=temperature, seed=seed, is_sampled=sample_pixels)
    sheet = draw_generated(_load(model, device), drawing, count=count)
    write_figure(out, sheet, overwrite=overwrite)


def _operate(
    context: typer.Context,
    pictures: Pictures,
    out: Output,
    model: LearnedModelOption = DEFAULT_MODEL,
    count: Annotated[int, typer.Option("-n", min=1, max=256, help="How many crops.")] = 8,
    samples: Annotated[int, typer.Option(min=0, max=16, help="Samples of each crop.")] = 3,
    temperature: Temperature = 0.8,
    sample_pixels: Sampled = False,
    seed: Seed = 0,
    device: DeviceOption = "auto",
    overwrite: ReplaceOption = False,
) -> None:
    from vdsr_cli.services.srvae import Drawing, draw_operation, take_crops
    from vdsr_cli.training.data import find_pictures

    check_figure(out, overwrite=overwrite, inputs=find_pictures(pictures))
    name, _ = OPERATIONS[str(context.info_name)]
    network = (_load_either if name == "reconstruction" else _load)(model, device)
    crops = take_crops(pictures, count=count, size_px=network.config.hr_size, seed=seed)
    drawing = Drawing(temperature=temperature, seed=seed, is_sampled=sample_pixels)
    sheet = draw_operation(network, crops, name, drawing, samples=samples)
    write_figure(out, sheet, overwrite=overwrite)


for _command, (_, _help) in OPERATIONS.items():
    app.command(_command, help=_help)(_operate)


@app.command()
def interpolate(
    pictures: Pictures,
    out: Output,
    model: LearnedModelOption = DEFAULT_MODEL,
    count: Annotated[int, typer.Option("-n", min=1, max=64, help="How many pairs of crops.")] = 3,
    walk_steps: Annotated[
        int, typer.Option("--steps", min=2, max=32, help="Pictures from one to the other.")
    ] = 8,
    seed: Annotated[int, typer.Option(help="Of the crops.")] = 0,
    device: DeviceOption = "auto",
    overwrite: ReplaceOption = False,
) -> None:
    """Interpolate between crops: even steps between the means of their codes.

    Examples:

        vdsr srvae interpolate photos/ -n 3 -o interpolated.png
        vdsr srvae interpolate photos/ --steps 16 -o finer.png
        vdsr srvae interpolate photos/ --model runs/srvae -o mine.png
    """
    from vdsr_cli.services.srvae import draw_interpolation, take_crops
    from vdsr_cli.training.data import find_pictures

    check_figure(out, overwrite=overwrite, inputs=find_pictures(pictures))
    network = _load_either(model, device)
    crops = take_crops(pictures, count=2 * count, size_px=network.config.hr_size, seed=seed)
    sheet = draw_interpolation(network, crops, steps=walk_steps)
    write_figure(out, sheet, overwrite=overwrite)


@app.command()
def figure(
    pictures: Pictures,
    out: Output,
    model: LearnedModelOption = DEFAULT_MODEL,
    count: Annotated[int, typer.Option("-n", min=1, max=64, help="How many crops.")] = 3,
    temperature: Temperature = 0.8,
    seed: Seed = 0,
    device: DeviceOption = "auto",
    overwrite: ReplaceOption = False,
) -> None:
    """Draw the four operations on one sheet.

    Examples:

        vdsr srvae figure photos/ -o srvae.png
        vdsr srvae figure photo.png -n 1 -o one.png
        vdsr srvae figure photos/ --model runs/srvae -o mine.png
    """
    from vdsr_cli.services.srvae import Drawing, draw_figure, take_crops
    from vdsr_cli.training.data import find_pictures

    check_figure(out, overwrite=overwrite, inputs=find_pictures(pictures))
    network = _load(model, device)
    crops = take_crops(pictures, count=count, size_px=network.config.hr_size, seed=seed)
    sheet = draw_figure(network, crops, Drawing(temperature=temperature, seed=seed))
    write_figure(out, sheet, overwrite=overwrite)


@app.command()
def score(
    pictures: Pictures,
    model: LearnedModelOption = DEFAULT_MODEL,
    count: Annotated[
        int | None,
        typer.Option(
            "-n",
            min=1,
            max=1_000_000,
            help="How many crops; pictures of a crop's size, as CIFAR-10's, are taken whole.",
            show_default="512, or all whole pictures",
        ),
    ] = None,
    weights: Annotated[
        int, typer.Option(min=0, help="Importance weights a crop; 0 for the ELBO alone.")
    ] = 0,
    fid: Annotated[
        bool,
        typer.Option(
            "--fid",
            help="FID of as many pictures out of nothing, at temperature 1; Inception's weights, "
            "91 MiB, are downloaded on first use.",
        ),
    ] = False,
    metric_weights: Annotated[
        Path | None,
        typer.Option(
            envvar="VDSR_METRIC_WEIGHTS", help="Folder with Inception's weights, as bench has it."
        ),
    ] = None,
    temperature: Temperature = 0.8,
    seed: Seed = 0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Score an srVAE, or the VAE it is compared with: PSNR against bicubic, the likelihood in bits
    per dimension and its parts in nats, FID.

    Examples:

        vdsr srvae score photos/ --weights 64
        vdsr srvae score photos/ --model runs/srvae --json
        vdsr srvae score cifar10/test --model runs/srvae --weights 500 --fid
    """
    from vdsr_cli.services.srvae import Drawing, load_inception, score_srvae, take_crops

    network = _load_either(model, device)
    size = network.config.hr_size
    crops = take_crops(pictures, count=count, size_px=size, seed=seed)
    drawing = Drawing(temperature=temperature, seed=seed)
    inception = load_inception(len(crops.hr), metric_weights) if fid else None
    figures = score_srvae(network, crops, drawing, weights=weights, inception=inception)
    if as_json:
        print_figures({"model": model, "temperature": temperature, **figures})
        return
    _print_scores(model, figures, size, temperature, weights)


def _print_scores(
    model: str, figures: Mapping[str, Any], size: int, temperature: float, weights: int
) -> None:
    psnr, nats = figures["psnr"], figures["nats"]
    typer.echo(f"{model}, {figures['crops']} crops of {size}x{size}, PSNR-Y in dB")
    typer.echo(f"bicubic                     {psnr['bicubic']:.2f}")
    if "sample" in psnr:
        typer.echo(f"super-resolution, mean      {psnr['super_resolution']:.2f}")
        typer.echo(f"super-resolution, at {temperature:<6g} {psnr['sample']:.2f}")
    typer.echo(f"reconstruction, mean        {psnr['reconstruction']:.2f}")
    if "better_than_bicubic" in figures:
        typer.echo(f"the mean beats bicubic on   {figures['better_than_bicubic']:.1%}")
    parts = ", ".join(f"{name} {value:.0f}" for name, value in nats.items())
    typer.echo(f"nats a crop                 {parts}")
    typer.echo(f"ELBO, bits/dim              {figures['elbo_bits']:.3f}")
    if weights:
        typer.echo(f"{weights} importance weights      {figures['iw_bits']:.3f}")
    if "fid" in figures:
        typer.echo(f"FID                         {figures['fid']:.2f}")
