"""``vdsr train``: the objectives with one set of options, and ``export``."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vdsr_cli.cli import cnn_vae
from vdsr_cli.cli.command import App, is_typed
from vdsr_cli.cli.console import bring, print_line
from vdsr_cli.cli.options import NoProgressOption, ReplaceOption, RunOption, existing_of, given
from vdsr_cli.cli.settings import as_lists, options_by_spelling, spelled
from vdsr_cli.cli.train_options import (
    AdversarialOptions,
    DataOptions,
    HyperParameters,
    LegOptions,
    NetworkOptions,
    VariantOptions,
)
from vdsr_cli.config import read_toml
from vdsr_cli.errors import UsageError

if TYPE_CHECKING:
    from vdsr_cli.training.config import TrainConfig

OBJECTIVES: Mapping[str, str] = {
    "vdvae": """Train a prior: an unconditional VDVAE, by its ELBO.

    Examples:

        vdsr train vdvae photos/ --out runs/prior --steps 50000
        vdsr train vdvae photos/ -o runs/prior --minutes 9 --val held-out/
        vdsr train vdvae faces/ --preset ffhq256 -o runs/ffhq256 --steps 1000
    """,
    "cvdvae": """Train CVDVAE: an LR encoder into the latents of a frozen prior, by the KL
    divergence of its first layers.

    On one of the openai/ priors, defaults are those of the paper and its released code.

    Examples:

        vdsr train cvdvae photos/ --prior runs/prior --out runs/cvdvae
        vdsr train cvdvae faces/ --prior openai/ffhq256 -o runs/faces
        vdsr train cvdvae faces/ --prior openai/ffhq256 --scale 8 -o runs/x8
    """,
    "vdvae-sr": """Train VDVAE-SR: the ELBO of hr given lr, plus an L1 of the mean path.

    On one of the openai/ priors, defaults are those of the paper and its released code.

    Examples:

        vdsr train vdvae-sr drawings/ --from vdvae-sr-x4 --out runs/mine
        vdsr train vdvae-sr photos/ --preset vdvae-sr-x4 -o runs/new
        vdsr train vdvae-sr photos/ --degradation real -o runs/real --minutes 9
    """,
    "srvae": """Train srVAE, x2: the ELBO of hr and lr together, plus an L1 of the mean path.

    Examples:

        vdsr train srvae photos/ --out runs/srvae
        vdsr train srvae photos/ -o runs/srvae --minutes 9
        vdsr train srvae photos/ --from srvae-x2 -o runs/mine
    """,
}

app = App(help="Train or fine-tune a model on your own pictures.")


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Makes a TOML file's entries the defaults of the options of the same names."""
    if path is None:
        return None
    entries = read_toml(path)
    names = options_by_spelling(context.command)
    values = {
        names.get(spelled(key), key.replace("-", "_")): value for key, value in entries.items()
    }
    known = {parameter.name for parameter in context.command.params} - {"config"}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(f"{path}: unknown entries: {', '.join(unknown)}")
    held = as_lists(context.command, values)
    context.default_map = {**(context.default_map or {}), **held}
    return path


def _train(
    context: typer.Context,
    data: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    *,
    out: RunOption,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of options, e.g. lr-size = 32; the command line overrides it.",
            callback=_read_config,
            is_eager=True,
        ),
    ] = None,
    variant: VariantOptions,
    network: NetworkOptions,
    hyper: HyperParameters,
    adversarial: AdversarialOptions,
    pictures: DataOptions,
    leg: LegOptions,
    quiet: NoProgressOption = False,
) -> None:
    from vdsr_cli.cli.train_progress import training_run
    from vdsr_cli.services.train import train
    from vdsr_cli.training.request import TrainRequest
    from vdsr_cli.weights.runs import find_checkpoint

    objective = str(context.info_name)
    chosen = variant.variant()
    if find_checkpoint(out) is None:
        bring(network.start_from, network.prior, quiet=quiet)
    settings = _hyper_parameters(context, objective, out, network, hyper, adversarial)
    with training_run(out, settings.steps, quiet=quiet, minutes=leg.minutes) as progress:
        train(
            TrainRequest(
                sources=tuple(data),
                out=out,
                config=settings,
                objective=objective,
                variant=chosen,
                perceptual=adversarial.networks,
                on_read=progress.on_read,
                on_left_out=progress.on_left_out,
                on_log=progress.on_log,
                on_step=progress.on_step,
                is_stopped=progress.is_stopped,
                **given(network),
                **given(pictures),
                **given(leg),
            )
        )


for _objective, _help in OBJECTIVES.items():
    app.command(_objective, help=_help)(_train)


def _hyper_parameters(
    context: typer.Context,
    objective: str,
    out: Path,
    network: NetworkOptions,
    hyper: HyperParameters,
    adversarial: AdversarialOptions,
) -> "TrainConfig":
    """The hyper-parameters given, in front of the objective's defaults."""
    from vdsr_cli.training.config import AdversarialConfig, config_for
    from vdsr_cli.training.shape import published_shape

    phase = given(adversarial)
    start = phase.pop("adversarial", None)
    typed = [name for name in phase if is_typed(context, name)]
    if start is None and typed:
        raise UsageError(
            f"--{typed[0].replace('_', '-')} is of the adversarial phase",
            hint="say where that begins: --adversarial 0",
        )
    del phase["perceptual_net"]
    return config_for(
        objective,
        given(hyper),
        adversarial=None if start is None else AdversarialConfig(start=start, **phase),
        on_prior=network.prior is not None,
        fine_tuning=network.start_from is not None,
        shape=published_shape(
            objective,
            out,
            branch_from=network.branch_from,
            start_from=network.start_from,
            prior=network.prior,
            preset=network.preset,
            scale=network.scale,
        ),
    )


app.command("cnn-vae")(cnn_vae.train)


@app.command("export")
def export_run(
    run: Annotated[Path, typer.Argument(help="Run folder, or the last.pt in it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The safetensors file to write.")],
    card: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE for the model card, e.g. licence=CC0; repeat."),
    ] = None,
    blend: Annotated[
        list[str] | None,
        typer.Option(
            help="WEIGHTS=SHARE: a name, file or run of the same network that is averaged in, e.g. "
            "runs/mine/mean.pt=0.2; repeat."
        ),
    ] = None,
    overwrite: ReplaceOption = False,
) -> None:
    """Write a run's averaged weights as a file that --model takes, with its model card.

    Examples:

        vdsr train export runs/mine -o mine.safetensors
        vdsr train export runs/mine -o mine.safetensors --card licence=CC-BY-4.0
        vdsr train export runs/mine -o mine.safetensors --blend runs/mine/mean.pt=0.2
    """
    from vdsr_cli.services.train import export
    from vdsr_cli.weights.runs import checkpoint_of

    export(
        checkpoint_of(run),
        out,
        card=_card(card or []),
        blend=_blend(blend or []),
        existing=existing_of(overwrite or None),
    )
    print_line(out)


def _blend(entries: list[str]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for entry in entries:
        name, _, share = entry.rpartition("=")
        if name in shares:
            raise UsageError(f"--blend {name} is given twice")
        try:
            shares[name] = float(share)
        except ValueError:
            name = ""
        if not name:
            raise UsageError(f"--blend takes WEIGHTS=SHARE, not {entry!r}")
    return shares


def _card(entries: list[str]) -> dict[str, str]:
    facts = {}
    for entry in entries:
        key, separator, value = entry.partition("=")
        if not key or not separator:
            raise UsageError(f"--card takes KEY=VALUE, not {entry!r}")
        facts[key] = value
    return facts
