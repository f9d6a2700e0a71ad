"""``vdsr train``."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Train or fine-tune a model on your own pictures.")


@app.command("vdvae-sr")
def vdvae_sr(
    data: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    out: Annotated[Path, typer.Option(help="Run folder; a run in it is resumed.")],
    preset: Annotated[str, typer.Option(help="Architecture of a new run.")] = "vdvae-sr-x4",
    branch_from: Annotated[
        Path | None, typer.Option(help="Another run's last.pt to go on from.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="File that keeps the decoded pictures from leg to leg.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Total steps, earlier legs included.")] = 20_000,
    batch: Annotated[int, typer.Option(min=1, help="Crops a step.")] = 8,
    lr_size: Annotated[int, typer.Option(min=8, help="Side of a crop in LR pixels.")] = 24,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="AdamW's peak rate.")] = 1e-3,
    warmup: Annotated[int, typer.Option(min=0, help="Steps of linear warm-up.")] = 200,
    cooldown: Annotated[int, typer.Option(min=0, help="Last steps, rate falling to zero.")] = 0,
    elbo_from: Annotated[int, typer.Option(min=0, help="First step of the ELBO.")] = 0,
    mean_weight: Annotated[
        float, typer.Option(min=0.0, help="Weight of the mean path's L1.")
    ] = 10.0,
    ema_decay: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Decay of the average.")
    ] = 0.999,
    seed: Annotated[int, typer.Option(help="Seed of crops and noise.")] = 0,
    device: Annotated[str, typer.Option(help="Torch device.")] = "cpu",
) -> None:
    """Train VDVAE-SR: the ELBO of hr given lr, plus an L1 of the mean path.

    Example: vdsr train vdvae-sr photos/ --out runs/mine --steps 2000
    """
    from vdsr_cli.services.train import TrainRequest, train
    from vdsr_cli.training.loop import TrainConfig

    config = TrainConfig(
        steps=steps,
        batch=batch,
        lr_size=lr_size,
        learning_rate=learning_rate,
        warmup=warmup,
        cooldown=cooldown,
        elbo_from=elbo_from,
        mean_weight=mean_weight,
        ema_decay=ema_decay,
        seed=seed,
    )

    def show(row: dict[str, float]) -> None:
        typer.echo(" ".join(f"{key}={value:.5g}" for key, value in row.items()), err=True)

    train(
        TrainRequest(
            sources=tuple(data),
            out=out,
            preset=preset,
            config=config,
            branch_from=branch_from,
            store=store,
            device=device,
            on_log=show,
        )
    )


@app.command("export")
def export_run(
    run: Annotated[Path, typer.Argument(help="Run folder, or the last.pt in it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The safetensors file to write.")],
) -> None:
    """Write a run's averaged weights as a file that --model takes.

    Example: vdsr train export runs/mine -o mine.safetensors
    """
    from vdsr_cli.services.train import export

    export(run / "last.pt" if run.is_dir() else run, out, card={})
    typer.echo(out)
