"""``vdsr train``: the objectives with one set of options, and ``export``."""

from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vdsr_cli.cli import cnn_vae
from vdsr_cli.cli.adversarial_options import (
    AdversarialOption,
    AdversarialWeightOption,
    DiscriminatorRateOption,
    DiscriminatorWidthOption,
    DiversityOption,
    ElboWeightOption,
    L1WeightOption,
    PerceptualNet,
    PerceptualNetOption,
    PerceptualWeightOption,
    RampOption,
    SharpenOption,
    TemperaturesOption,
    ViewsOption,
)
from vdsr_cli.cli.command import App
from vdsr_cli.cli.console import bring, print_line
from vdsr_cli.cli.options import (
    DeviceOption,
    LogEveryOption,
    MinutesOption,
    NoProgressOption,
    ReplaceOption,
    RunOption,
    SaveEveryOption,
    complete_model,
    existing_of,
)
from vdsr_cli.cli.variant_options import (
    ConditionalTopOption,
    ConditionedLayersOption,
    GatesOption,
    KLOption,
    LRIntoOption,
    TargetBitsOption,
    TrainedOption,
    TrivialEncoderOption,
    variant_of,
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


class Degradation(StrEnum):
    """How LR pictures are made."""

    bicubic = "bicubic"
    real = "real"


class Fit(StrEnum):
    """How much of a picture is trained on."""

    crop = "crop"
    whole = "whole"


class Symmetries(StrEnum):
    """Symmetries that crops may undergo."""

    all = "all"
    mirror = "mirror"
    none = "none"


class Schedule(StrEnum):
    """Schedules of the learning rate."""

    constant = "constant"
    plateau = "plateau"


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Makes a TOML file's entries the defaults of the options of the same names."""
    if path is None:
        return None
    entries = read_toml(path)
    values = {key.replace("-", "_"): value for key, value in entries.items()}
    values = {{"from": "start_from"}.get(key, key): value for key, value in values.items()}
    known = {parameter.name for parameter in context.command.params} - {"config"}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(f"{path}: unknown entries: {', '.join(unknown)}")
    context.default_map = {**(context.default_map or {}), **values}
    return path


def _option(text: str, default: str, *, min: float | None = None, max: float | None = None) -> Any:
    """An option whose default, by objective and start, :func:`config_for` knows."""
    return typer.Option(help=text, show_default=default, min=min, max=max)


def _train(
    context: typer.Context,
    data: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    out: RunOption,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of options, e.g. lr-size = 32; the command line overrides it.",
            callback=_read_config,
            is_eager=True,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Architecture of a new run, e.g. vdvae-sr-x4, vdvae-sr-x2, vdvae-x4-prior; of a"
            " vdvae also cifar10, imagenet32, imagenet64, ffhq256, ffhq1024 (Child 2021), or a TOML"
            " file of such a network (docs/train.md).",
            show_default="the objective's",
        ),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Fine-tune these weights: a model's name, a file or a run. With --preset or"
            " --prior, a new network takes those that fit.",
            autocompletion=complete_model,
        ),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            help="Build on this pretrained prior: name, file or run.",
            autocompletion=complete_model,
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(min=2, help="Factor of a new model on an openai/ prior.", show_default="4"),
    ] = None,
    coupled: Annotated[
        bool,
        typer.Option(
            "--coupled",
            help="Likelihood in which green depends on red, blue on both (PixelCNN++), and a pixel"
            " on its neighbours; of a new compact model, also one of --from.",
        ),
    ] = False,
    likelihood_only: Annotated[
        bool,
        typer.Option(
            "--likelihood-only",
            help="Train what no picture of a compact model depends on: posterior, log scales and"
            " the coefficients of --coupled. Bits fall, pictures stay.",
        ),
    ] = False,
    conditional_top: ConditionalTopOption = None,
    gates: GatesOption = None,
    lr_into: LRIntoOption = None,
    trivial_encoder: TrivialEncoderOption = None,
    trained: TrainedOption = None,
    target_bits: TargetBitsOption = None,
    conditioned_layers: ConditionedLayersOption = None,
    kl: KLOption = None,
    branch_from: Annotated[
        Path | None, typer.Option(help="Another run's last.pt to resume from, steps counted on.")
    ] = None,
    steps: Annotated[
        int | None,
        _option(
            "Total steps, earlier legs included.", "20000; cvdvae 10000; with --from 1000", min=1
        ),
    ] = None,
    minutes: MinutesOption = None,
    batch: Annotated[int | None, _option("Crops a step and process.", "8; srvae 16", min=1)] = None,
    lr_size: Annotated[
        int | None,
        _option(
            "Side of a crop in LR pixels.",
            "24; vdvae, cvdvae and with --prior 32; srvae 16",
            min=8,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        _option(
            "AdamW's peak rate.",
            "0.001; cvdvae and with --prior 0.0005; with --from 0.0002; with --adversarial 0.0003;"
            " with --likelihood-only 0.001",
            min=0.0,
        ),
    ] = None,
    warmup: Annotated[
        int | None, _option("Steps of linear warm-up.", "200; with --from 20", min=0)
    ] = None,
    cooldown: Annotated[
        int | None,
        _option("Last steps, the rate falling to zero.", "0; with --from 500", min=0),
    ] = None,
    schedule: Annotated[
        Schedule | None,
        _option(
            "Of the rate: constant, or a tenth of it after more than 5 validations in a row that"
            " are not 1 % better (CVDVAE's released code, an epoch each).",
            "constant",
        ),
    ] = None,
    elbo_from: Annotated[
        int | None, _option("First step of the ELBO; before it the mean path alone.", "0", min=0)
    ] = None,
    rate_warmup: Annotated[
        int | None, _option("Steps of the ELBO in which the rate comes to weigh.", "0", min=0)
    ] = None,
    mean_weight: Annotated[
        float | None,
        _option(
            "Weight of the mean path's L1.",
            "60; vdvae 30; cvdvae and with --likelihood-only 0; with --adversarial 200",
            min=0.0,
        ),
    ] = None,
    grad_clip: Annotated[float | None, _option("Largest gradient norm.", "1", min=0.0)] = None,
    skip_above: Annotated[
        float | None, _option("Skip steps of a larger gradient norm.", "none", min=0.0)
    ] = None,
    give_up_after: Annotated[
        int | None, _option("Stop after so many skipped steps in a row.", "50", min=1)
    ] = None,
    weight_decay: Annotated[float | None, _option("AdamW's decay.", "0", min=0.0)] = None,
    beta2: Annotated[
        float | None, _option("AdamW's second beta.", "0.98", min=0.0, max=1.0)
    ] = None,
    ema_decay: Annotated[
        float | None,
        _option(
            "Decay of the averaged weights.",
            "0.999; with --from 0.99; with --adversarial 0.998",
            min=0.0,
            max=1.0,
        ),
    ] = None,
    degradation: Annotated[
        Degradation | None,
        _option("LR by antialiased bicubic, or blurred, noisy and compressed.", "bicubic"),
    ] = None,
    fit: Annotated[
        Fit | None,
        typer.Option(
            help="Train on parts of pictures as they are, or on whole ones, resized and cut to"
            " --lr-size times the scale.",
            show_default="crop; for models of one size whole",
        ),
    ] = None,
    symmetries: Annotated[
        Symmetries | None,
        _option("Crops flipped and turned, mirrored alone (faces), or as they are.", "all"),
    ] = None,
    seed: Annotated[int | None, _option("Seed of crops and noise.", "0")] = None,
    adversarial: AdversarialOption = None,
    perceptual_net: PerceptualNetOption = PerceptualNet.squeeze,
    l1_weight: L1WeightOption = None,
    perceptual_weight: PerceptualWeightOption = None,
    adversarial_weight: AdversarialWeightOption = None,
    elbo_weight: ElboWeightOption = None,
    diversity: DiversityOption = None,
    sharpen: SharpenOption = None,
    views: ViewsOption = None,
    temperatures: TemperaturesOption = None,
    ramp: RampOption = None,
    discriminator_rate: DiscriminatorRateOption = None,
    discriminator_width: DiscriminatorWidthOption = None,
    rescale: Annotated[
        list[float] | None,
        typer.Option(
            min=0.01,
            max=4.0,
            help="Keep each picture at this size too; repeat.",
            show_default="1 and 0.65",
        ),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="File that keeps the decoded pictures from leg to leg.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Threads that decode.", show_default="all processors"),
    ] = None,
    val: Annotated[
        list[Path] | None, typer.Option(help="Pictures to score the model on; repeat.")
    ] = None,
    val_every: Annotated[
        int, typer.Option(min=0, help="Steps between scores, samples and curves; 0 for none.")
    ] = 1000,
    val_limit: Annotated[int, typer.Option(min=1, help="Pictures that are scored.")] = 16,
    metric_weights: Annotated[
        Path | None,
        typer.Option(
            help="Folder with lpips_alex.safetensors, to score LPIPS, and lpips_squeeze.safetensors"
            " for --adversarial."
        ),
    ] = None,
    device: DeviceOption = "auto",
    dtype: Annotated[
        str, typer.Option(help="Of the convolutions: auto, float32 or bfloat16.")
    ] = "auto",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Use torch.compile: slow to start, then faster.")
    ] = False,
    graph: Annotated[
        bool | None,
        typer.Option(
            "--graph/--no-graph",
            help="Record a step as one CUDA graph and replay it.",
            show_default="on CUDA, for compact models",
        ),
    ] = None,
    recompute: Annotated[
        bool | None,
        typer.Option(
            "--recompute/--no-recompute",
            help="VDVAE and VDVAE-SR of the published shape: less memory, a third more time.",
            show_default="on the CPU",
        ),
    ] = None,
    save_every: SaveEveryOption = 500,
    log_every: LogEveryOption = 50,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard's files too.")
    ] = False,
    quiet: NoProgressOption = False,
) -> None:
    from vdsr_cli.cli.train_progress import training_run
    from vdsr_cli.services.train import train
    from vdsr_cli.training.request import TrainRequest
    from vdsr_cli.weights.runs import find_checkpoint

    variant = variant_of(
        conditional_top=conditional_top,
        gates=gates,
        lr_into=lr_into,
        trivial_encoder=trivial_encoder,
        trained=trained,
        target_bits=target_bits,
    )
    if find_checkpoint(out) is None:
        bring(start_from, prior, quiet=quiet)
    settings = _hyper_parameters(context, out=out, branch_from=branch_from)
    with training_run(out, settings.steps, quiet=quiet, minutes=minutes) as progress:
        train(
            TrainRequest(
                sources=tuple(data),
                out=out,
                config=settings,
                perceptual=perceptual_net.networks,
                objective=str(context.info_name),
                preset=preset,
                prior=prior,
                start_from=start_from,
                scale=scale,
                is_coupled=coupled,
                variant=variant,
                conditioned_layers=conditioned_layers,
                branch_from=branch_from,
                rescales=tuple(rescale) if rescale else (1.0, 0.65),
                store=store,
                val=tuple(val or ()),
                val_every=val_every,
                val_limit=val_limit,
                metric_weights=metric_weights,
                device=device,
                dtype=dtype,
                compiled=compiled,
                graph=graph,
                recompute=recompute,
                minutes=minutes,
                workers=workers,
                save_every=save_every,
                log_every=log_every,
                tensorboard=tensorboard,
                on_read=progress.on_read,
                on_log=progress.on_log,
                on_step=progress.on_step,
                is_stopped=progress.is_stopped,
            )
        )


for _objective, _help in OBJECTIVES.items():
    app.command(_objective, help=_help)(_train)


def _hyper_parameters(
    context: typer.Context, *, out: Path, branch_from: Path | None
) -> "TrainConfig":
    """The given fields of :class:`TrainConfig`, in front of the objective's defaults.

    ``context.params`` has what was typed; some versions of Typer make no paths of it.
    """
    from vdsr_cli.training.config import AdversarialConfig, TrainConfig, config_for
    from vdsr_cli.training.shape import published_shape

    start = context.params["adversarial"]
    given = _given(context, TrainConfig)
    given.pop("adversarial", None)
    return config_for(
        str(context.info_name),
        given,
        adversarial=None
        if start is None
        else AdversarialConfig(start=start, **_given(context, AdversarialConfig)),
        on_prior=context.params["prior"] is not None,
        fine_tuning=context.params["start_from"] is not None,
        shape=published_shape(
            str(context.info_name),
            out,
            branch_from=branch_from,
            start_from=context.params["start_from"],
            prior=context.params["prior"],
            preset=context.params["preset"],
            scale=context.params["scale"],
        ),
    )


def _given(context: typer.Context, config: type[Any]) -> dict[str, Any]:
    """The options that are fields of a configuration and were given."""
    found = {field.name: context.params.get(field.name) for field in fields(config)}
    return {
        name: str(value) if isinstance(value, StrEnum) else value
        for name, value in found.items()
        if value is not None
    }


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
    from vdsr_cli.weights.runs import LAST, find_checkpoint

    checkpoint = (find_checkpoint(run) or run / LAST) if run.is_dir() else run
    export(
        checkpoint,
        out,
        card=_card(card or []),
        blend=_blend(blend or []),
        existing=existing_of(overwrite or None),
    )
    print_line(out)


def _blend(entries: list[str]) -> dict[str, float]:
    shares = {}
    for entry in entries:
        name, _, share = entry.rpartition("=")
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
