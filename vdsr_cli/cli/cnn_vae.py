"""``vdsr cnn-vae``: the small CNN-VAE (Weatherly) on Fashion-MNIST, and its training."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vdsr_cli.cli.command import App
from vdsr_cli.cli.console import bring, print_figures
from vdsr_cli.cli.options import (
    JsonOption,
    LearnedModelOption,
    NoProgressOption,
    ReplaceOption,
    RunningOptions,
    RunOption,
    check_figure,
    given,
    write_figure,
)

if TYPE_CHECKING:
    from vdsr_cli.models.cnn_vae import CNNVAE

app = App(
    name="cnn-vae",
    help="CNN-VAE on Fashion-MNIST, 14x14 to 28x28: scores and pictures.",
)

Data = Annotated[
    Path,
    typer.Option(
        help="Folder with Fashion-MNIST's idx files, gzipped or not "
        "(Debian's package dataset-fashion-mnist).",
    ),
]
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DEFAULT_MODEL = "cnn-vae-x2"


def _load(name: str) -> "CNNVAE":
    from vdsr_cli.loading import load
    from vdsr_cli.models.cnn_vae import CNNVAE
    from vdsr_cli.runtime import choose_runtime

    bring(name, quiet=False)
    return load(name, choose_runtime("cpu", "float32"), expects=CNNVAE).model


@app.command()
def score(
    data: Data = DEBIAN_FOLDER,
    model: LearnedModelOption = DEFAULT_MODEL,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Score the first so many test pictures only.", show_default="all"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model on the test set: mean PSNR of super-resolution and reconstruction.

    Examples:

        vdsr cnn-vae score --data fashion-mnist/
        vdsr cnn-vae score --limit 1000 --json
        vdsr cnn-vae score --model runs/cnn-vae
    """
    from vdsr_cli.services.cnn_vae import score_cnn_vae

    figures = score_cnn_vae(_load(model), data, limit=limit)
    if as_json:
        print_figures({"model": model, **figures})
        return
    typer.echo(f"{model}, {figures['pictures']:,} test pictures, PSNR in dB, 8 bits, no shave")
    for name in ("bicubic", "super_resolution", "reconstruction"):
        typer.echo(f"{name.replace('_', '-'):18}{figures[name]:.2f}")
    typer.echo(f"super-resolution beats bicubic on {figures['better_than_bicubic']:.1%}")


@app.command()
def figure(
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write.")],
    data: Data = DEBIAN_FOLDER,
    model: LearnedModelOption = DEFAULT_MODEL,
    count: Annotated[int, typer.Option("-n", min=1, max=100, help="Test pictures.")] = 6,
    seed: Annotated[int, typer.Option(help="Which test pictures.")] = 0,
    overwrite: ReplaceOption = False,
) -> None:
    """Draw the paper's figures 5 and 6 side by side: reconstructions and super-resolution.

    Examples:

        vdsr cnn-vae figure -o cnn-vae.png
        vdsr cnn-vae figure -n 12 --seed 1 -o twelve.png
        vdsr cnn-vae figure --model runs/cnn-vae -o mine.png
    """
    from vdsr_cli.services.cnn_vae import draw_figure

    check_figure(out, overwrite=overwrite)
    sheet = draw_figure(_load(model), data, count=count, seed=seed)
    write_figure(out, sheet, overwrite=overwrite)


@dataclass(frozen=True, kw_only=True)
class HyperParameters:
    """The fields of :class:`~vdsr_cli.training.cnn_vae.CNNVAETrainConfig`."""

    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Total steps, earlier legs included.", show_default="6000; the paper's 3000"
        ),
    ] = None
    batch: Annotated[
        int | None, typer.Option(min=1, help="Pictures a step.", show_default="64; the paper's 100")
    ] = None
    learning_rate: Annotated[
        float | None,
        typer.Option(min=0.0, help="Adam's peak rate.", show_default="0.002; the paper's 5e-06"),
    ] = None
    warmup: Annotated[
        int | None,
        typer.Option(min=0, help="Steps of linear warm-up.", show_default="100; the paper's 0"),
    ] = None
    cooldown: Annotated[
        int | None,
        typer.Option(
            min=0, help="Last steps, the rate falling to zero.", show_default="3000; the paper's 0"
        ),
    ] = None
    alpha: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Weight of the reconstruction.", show_default="0.75"),
    ] = None
    late_alpha: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="The same in the last steps.", show_default="0.25"),
    ] = None
    late_steps: Annotated[
        int | None, typer.Option(min=0, help="How many those are.", show_default="500")
    ] = None
    sr_weight: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Weight of the decoder's BCE on LR itself.",
            show_default="1; the paper's 0",
        ),
    ] = None
    ema_decay: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Decay of the averaged weights.",
            show_default="0.999; the paper's 0",
        ),
    ] = None
    seed: Annotated[
        int | None, typer.Option(help="Of weights, batches and noise.", show_default="0")
    ] = None


def train(
    *,
    out: RunOption,
    data: Data = DEBIAN_FOLDER,
    reading: Annotated[
        Literal["corrected", "paper"],
        typer.Option(help="The paper's letter where it can run, or corrected."),
    ] = "corrected",
    width: Annotated[
        int | None,
        typer.Option(min=1, help="Maps of the decoder.", show_default="32, 8 of the paper's"),
    ] = None,
    layers: Annotated[int, typer.Option(min=1, help="The corrected decoder's convolutions.")] = 3,
    hyper: HyperParameters,
    leg: RunningOptions,
    quiet: NoProgressOption = False,
) -> None:
    """Train CNN-VAE on Fashion-MNIST: 14x14 to 28x28.

    Examples:

        vdsr train cnn-vae --data fashion-mnist/ --out runs/cnn-vae
        vdsr train cnn-vae --reading paper -o runs/letter
        vdsr train cnn-vae -o runs/cnn-vae --minutes 9
    """
    from vdsr_cli.cli.train_progress import training_run
    from vdsr_cli.models.cnn_vae import CNNVAEConfig
    from vdsr_cli.services.cnn_vae import CNNVAETrainRequest, train_cnn_vae
    from vdsr_cli.training.cnn_vae import default_config

    config = default_config(reading, **given(hyper))
    architecture = CNNVAEConfig(
        reading=reading,
        decoder_width=width or (8 if reading == "paper" else 32),
        decoder_layers=layers,
    )
    with training_run(
        out, config.steps, quiet=quiet, minutes=leg.minutes, describe=_describe
    ) as progress:
        train_cnn_vae(
            CNNVAETrainRequest(
                data=data,
                out=out,
                architecture=architecture,
                config=config,
                on_log=progress.on_log,
                on_step=progress.on_step,
                is_stopped=progress.is_stopped,
                **given(leg),
            )
        )


def _describe(row: dict[str, float]) -> str:
    """The figures of a row of the log, briefly."""
    names = {"reconstruction_bits": "reconstruction", "latent_bits": "LR", "sr_bits": "SR"}
    parts = [f"{name} {row[key]:.4f}" for key, name in names.items() if row[key]]
    return f"BCE in bits/pixel: {', '.join(parts)}, {row['seconds_per_step']:.3g} s/step"
