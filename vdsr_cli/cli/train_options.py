"""The options of ``vdsr train``, in groups.

Most have no default here: what the objective, the papers or the start make of them is said by
:func:`~vdsr_cli.training.config.config_for`.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vdsr_cli.cli.options import RunningOptions, complete_model, given
from vdsr_cli.errors import UsageError

if TYPE_CHECKING:
    from vdsr_cli.models.vdvae_sr import Variant


def _option(text: str, default: str | bool = True, *names: str, **settings: Any) -> Any:
    """An option whose default is decided, or known, elsewhere."""
    return typer.Option(*names, help=text, show_default=default, **settings)


_variant = partial(_option, rich_help_panel="The papers' variants, on a published prior")
_adversarial = partial(_option, rich_help_panel="Adversarial phase")


def _checkpoint_of(run: Path | None) -> Path | None:
    """The checkpoint of the run that is named, if one is."""
    from vdsr_cli.weights.runs import checkpoint_of

    return None if run is None else checkpoint_of(run)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """The network of a new run, and what it begins with."""

    preset: Annotated[
        str | None,
        typer.Option(
            help="Architecture of a new run, e.g. vdvae-sr-x4, vdvae-sr-x2, vdvae-x4-prior; of a"
            " vdvae also cifar10, imagenet32, imagenet64, ffhq256, ffhq1024 (Child 2021), or a TOML"
            " file of such a network (docs/train.md).",
            show_default="the objective's",
        ),
    ] = None
    start_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Fine-tune these weights: a model's name, a file or a run. With --preset or"
            " --prior, a new network takes those that fit.",
            autocompletion=complete_model,
        ),
    ] = None
    prior: Annotated[
        str | None,
        typer.Option(
            help="Build on this pretrained prior: name, file or run.",
            autocompletion=complete_model,
        ),
    ] = None
    scale: Annotated[
        int | None,
        typer.Option(min=2, help="Factor of a new model on an openai/ prior.", show_default="4"),
    ] = None
    coupled: Annotated[
        bool,
        typer.Option(
            "--coupled",
            help="Likelihood in which green depends on red, blue on both (PixelCNN++), and a pixel"
            " on its neighbours; of a new compact model, also one of --from.",
        ),
    ] = False
    branch_from: Annotated[
        Path | None,
        typer.Option(
            help="Another run, or its last.pt, to resume from, steps counted on.",
            callback=_checkpoint_of,
        ),
    ] = None
    conditioned_layers: Annotated[
        int | None,
        _variant(
            "CVDVAE: k of Prost 2024, eq. 12, the first layers that see the LR picture.",
            "all that can",
            min=1,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class VariantOptions:
    """Which of the papers' variants a model of the published shape is; where paper, thesis and
    released code differ is in :mod:`vdsr_cli.models.vdvae_sr`."""

    conditional_top: Annotated[
        bool | None,
        _variant(
            "VDVAE-SR: p(z_0 | lr) by linear layers (Chira 2022, eq. 9-11).",
            False,
            "--conditional-top",
        ),
    ] = None
    gates: Annotated[
        str | None,
        _variant(
            "LR activations at resolutions below this number, e.g. 32 as in the released code;"
            " all (Chira 2022); or none.",
            "all",
        ),
    ] = None
    lr_into: Annotated[
        Literal["both", "prior", "posterior"] | None,
        _variant(
            "LR activations into the posterior alone (the thesis, 5.6), the prior alone, or both.",
            "both",
        ),
    ] = None
    trivial_encoder: Annotated[
        bool | None,
        _variant(
            "One linear layer as the LR encoder (the thesis, 5.4); with --conditional-top.",
            False,
            "--trivial-encoder",
        ),
    ] = None
    trained: Annotated[
        str | None,
        _variant(
            "The parts that train, with commas: encoder, decoder, lr-encoder. Texts:"
            " decoder,lr-encoder; the released 64 to 256: encoder,decoder.",
            "decoder,lr-encoder",
            "--train",
        ),
    ] = None
    target_bits: Annotated[
        int | None,
        _variant(
            "On openai/ffhq256: 5, grey levels floored as for the prior, or 8, the released"
            " code's, scored in the prior's 32 bins.",
            "5",
            min=5,
            max=8,
        ),
    ] = None

    def variant(self) -> "Variant | None":
        """The variant asked for, or None where none was. Raises UsageError."""
        from vdsr_cli.models.vdvae_sr import Variant

        chosen = given(self)
        if (gates := chosen.pop("gates", None)) is not None:
            chosen["gate_below"] = _gate_below(gates)
        if self.trained is not None:
            chosen["trained"] = tuple(part.strip() for part in self.trained.split(","))
        try:
            variant = Variant(**chosen)
        except ValueError as error:
            raise UsageError(str(error)) from error
        return None if variant == Variant() else variant


def _gate_below(gates: str) -> int | None:
    """``Variant.gate_below`` of ``--gates``."""
    if gates in ("all", "none"):
        return None if gates == "all" else 0
    if not gates.isdecimal() or len(gates) > 9:
        raise UsageError(f"--gates {gates}: all, none, or a resolution such as 32")
    return int(gates)


@dataclass(frozen=True, kw_only=True)
class HyperParameters:
    """The fields of :class:`~vdsr_cli.training.config.TrainConfig`."""

    likelihood_only: Annotated[
        bool,
        typer.Option(
            "--likelihood-only",
            help="Train what no picture of a compact model depends on: posterior (a prior's in its"
            " finest layers alone), log scales and the coefficients of --coupled. Bits fall,"
            " pictures stay.",
        ),
    ] = False
    fine_layers: Annotated[
        bool,
        typer.Option(
            "--fine-layers",
            help="With --adversarial on a compact CVDVAE: its prior's layers finer than the LR"
            " picture train as well, by the samples.",
        ),
    ] = False
    steps: Annotated[
        int | None,
        _option(
            "Total steps, earlier legs included.", "20000; cvdvae 10000; with --from 1000", min=1
        ),
    ] = None
    batch: Annotated[int | None, _option("Crops a step and process.", "8; srvae 16", min=1)] = None
    lr_size: Annotated[
        int | None,
        _option(
            "Side of a crop in LR pixels.",
            "24; vdvae, cvdvae and with --prior 32; srvae 16",
            min=8,
        ),
    ] = None
    learning_rate: Annotated[
        float | None,
        _option(
            "AdamW's peak rate.",
            "0.001; cvdvae and with --prior 0.0005; with --from 0.0002; with --adversarial 0.0003;"
            " with --likelihood-only 0.001",
            min=0.0,
        ),
    ] = None
    warmup: Annotated[
        int | None, _option("Steps of linear warm-up.", "200; with --from 20", min=0)
    ] = None
    cooldown: Annotated[
        int | None,
        _option("Last steps, the rate falling to zero.", "0; with --from 500", min=0),
    ] = None
    schedule: Annotated[
        Literal["constant", "plateau"] | None,
        _option(
            "Of the rate: constant, or a tenth of it after more than 5 validations in a row that"
            " are not 1 % better (CVDVAE's released code, an epoch each).",
            "constant",
        ),
    ] = None
    elbo_from: Annotated[
        int | None, _option("First step of the ELBO; before it the mean path alone.", "0", min=0)
    ] = None
    rate_warmup: Annotated[
        int | None, _option("Steps of the ELBO in which the rate comes to weigh.", "0", min=0)
    ] = None
    mean_weight: Annotated[
        float | None,
        _option(
            "Weight of the mean path's L1.",
            "60; vdvae 30; cvdvae and with --likelihood-only 0; with --adversarial 200",
            min=0.0,
        ),
    ] = None
    grad_clip: Annotated[float | None, _option("Largest gradient norm.", "1", min=0.0)] = None
    skip_above: Annotated[
        float | None, _option("Skip steps of a larger gradient norm.", "none", min=0.0)
    ] = None
    give_up_after: Annotated[
        int | None, _option("Stop after so many skipped steps in a row.", "50", min=1)
    ] = None
    weight_decay: Annotated[float | None, _option("AdamW's decay.", "0", min=0.0)] = None
    beta2: Annotated[float | None, _option("AdamW's second beta.", "0.98", min=0.0, max=1.0)] = None
    ema_decay: Annotated[
        float | None,
        _option(
            "Decay of the averaged weights.",
            "0.999; with --from 0.99; with --adversarial 0.998",
            min=0.0,
            max=1.0,
        ),
    ] = None
    degradation: Annotated[
        Literal["bicubic", "real"] | None,
        _option("LR by antialiased bicubic, or blurred, noisy and compressed.", "bicubic"),
    ] = None
    fit: Annotated[
        Literal["crop", "whole"] | None,
        _option(
            "Train on parts of pictures as they are, or on whole ones, resized and cut to"
            " --lr-size times the scale.",
            "crop; for models of one size whole",
        ),
    ] = None
    symmetries: Annotated[
        Literal["all", "mirror", "none"] | None,
        _option("Crops flipped and turned, mirrored alone (faces), or as they are.", "all"),
    ] = None
    seed: Annotated[int | None, _option("Seed of crops and noise.", "0")] = None
    kl: Annotated[
        Literal["sum", "mean"] | None,
        _variant(
            "CVDVAE: each layer's KL as its sum (Prost 2024, eq. 14) or, as in the released"
            " code, its mean over dimensions.",
            "sum",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class AdversarialOptions:
    """The fields of :class:`~vdsr_cli.training.config.AdversarialConfig`, and the network."""

    adversarial: Annotated[
        int | None,
        _adversarial(
            "First step of training samples against a discriminator; sharper and cleaner ones."
            " Takes LPIPS weights: see --metric-weights.",
            min=0,
        ),
    ] = None
    perceptual_net: Annotated[
        Literal["squeeze", "vgg", "both"],
        _adversarial("Network of the perceptual term; of both, one at random each step."),
    ] = "squeeze"
    l1_weight: Annotated[float | None, _adversarial("Weight of a sample's L1.", "1", min=0.0)] = (
        None
    )
    perceptual_weight: Annotated[
        float | None, _adversarial("Weight of a sample's LPIPS.", "1", min=0.0)
    ] = None
    adversarial_weight: Annotated[
        float | None,
        _adversarial("Weight of the discriminator's verdict; 0 for none at all.", "0.1", min=0.0),
    ] = None
    coarse_weight: Annotated[
        float | None,
        _adversarial(
            "Weight of a sample's L1 in the means of 16x16 squares; for --degradation real, whose"
            " results no projection holds.",
            "0",
            min=0.0,
        ),
    ] = None
    plain_weight: Annotated[
        float | None,
        _adversarial("Weight of a sample's L1 where the HR picture is plain.", "0", min=0.0),
    ] = None
    elbo_weight: Annotated[
        float | None, _adversarial("Weight of ELBO and mean path together.", "0.05", min=0.0)
    ] = None
    elbo_every: Annotated[
        int | None,
        _adversarial(
            "Have the ELBO in one step of so many, where it weighs as much more; steps are faster.",
            "1",
            min=1,
        ),
    ] = None
    diversity: Annotated[
        float | None,
        _adversarial(
            "Share of the distance between samples that is not held against them.",
            "0.3",
            min=0.0,
            max=1.0,
        ),
    ] = None
    sharpen: Annotated[
        float | None, _adversarial("Unsharp mask on what samples are compared with.", "0", min=0.0)
    ] = None
    views: Annotated[
        bool | None,
        _adversarial(
            "Compare samples shifted, flipped, recoloured, at half the size, at random.", "on"
        ),
    ] = None
    temperatures: Annotated[
        tuple[float, float] | None, _adversarial("Range of the samples' temperatures.", "0.6 1")
    ] = None
    ramp: Annotated[
        int | None,
        _adversarial("Steps in which the discriminator's verdict comes to weigh.", "300", min=0),
    ] = None
    discriminator_rate: Annotated[
        float | None, _adversarial("Its peak learning rate.", "2e-4", min=0.0)
    ] = None
    discriminator_width: Annotated[int | None, _adversarial("Its channels.", "48", min=1)] = None

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of those of the perceptual term; AlexNet, which judges results, is none."""
        return ("squeeze", "vgg") if self.perceptual_net == "both" else (self.perceptual_net,)


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The pictures of a run, and how it is validated."""

    rescale: Annotated[
        list[float] | None,
        typer.Option(
            min=0.01,
            max=4.0,
            help="Keep each picture at this size too; repeat.",
            show_default="1 and 0.65",
        ),
    ] = None
    store: Annotated[
        Path | None, typer.Option(help="File that keeps the decoded pictures from leg to leg.")
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Threads that decode.", show_default="all processors"),
    ] = None
    val: Annotated[
        list[Path] | None,
        typer.Option(help="Pictures to score the model on, whose LR is clean bicubic; repeat."),
    ] = None
    val_every: Annotated[
        int, typer.Option(min=0, help="Steps between scores, samples and curves; 0 for none.")
    ] = 1000
    val_limit: Annotated[int, typer.Option(min=1, help="Pictures that are scored.")] = 16
    metric_weights: Annotated[
        Path | None,
        typer.Option(
            help="Folder with lpips_alex.safetensors, to score LPIPS, and lpips_squeeze.safetensors"
            " for --adversarial."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class LegOptions(RunningOptions):
    """How a leg of a run goes: it may differ from leg to leg."""

    compiled: Annotated[
        bool, typer.Option("--compile", help="Use torch.compile: slow to start, then faster.")
    ] = False
    graph: Annotated[
        bool | None,
        typer.Option(
            "--graph/--no-graph",
            help="Record a step as one CUDA graph and replay it.",
            show_default="on CUDA, for compact models",
        ),
    ] = None
    recompute: Annotated[
        bool | None,
        typer.Option(
            "--recompute/--no-recompute",
            help="VDVAE and VDVAE-SR of the published shape: less memory, a third more time.",
            show_default="on the CPU",
        ),
    ] = None
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard's files too.")
    ] = False
