"""The network that a run starts from: a preset, finished weights, or a pretrained prior."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

from torch import nn

from vdsr_cli.config import SCALE_RANGE, read_toml
from vdsr_cli.errors import UsageError, WeightsError
from vdsr_cli.loading import load_network
from vdsr_cli.models.compact import CompactVDVAESR
from vdsr_cli.models.compact_prior import CompactCVDVAE, CompactVDVAE, CompactVDVAESROnPrior
from vdsr_cli.models.cvdvae import CVDVAE, CVDVAEConfig
from vdsr_cli.models.protocol import PartlyTrained
from vdsr_cli.models.registry import (
    ARCHITECTURES,
    Architecture,
    architecture_of,
    build_empty,
    build_model,
    openai_config,
)
from vdsr_cli.models.vdvae import VDVAE, EncoderConfig, VDVAEConfig
from vdsr_cli.models.vdvae_config import PUBLISHED
from vdsr_cli.models.vdvae_sr import PUBLISHED_LR_ENCODERS, VDVAESR, Variant
from vdsr_cli.models.widening import begin_idle, can_widen, coupled, widen_into
from vdsr_cli.training.config import TrainConfig
from vdsr_cli.weights.runs import read_architecture

PUBLISHED_KIND = "openai-vdvae"
_MOST_NUMBERS = 2**29
"""A quarter of those that a network of a file may have."""
PUBLISHED_SCALE = 4
"""Super-resolution factor put on a prior of the published shape where none is asked for."""


def model_of_run(objective: str, checkpoint: Path) -> nn.Module:
    """The network of a run's checkpoint, its weights still fresh.

    Raises:
        WeightsError: no checkpoint of a run.
        UsageError: a run of another objective.
    """
    model = build_model(*read_architecture(checkpoint))
    _check_kind(objective, model, str(checkpoint))
    return prepared(model)


def new_model(
    objective: str,
    *,
    preset: str | None,
    prior: str | None,
    start_from: str | None,
    scale: int | None = None,
    is_coupled: bool = False,
    variant: Variant | None = None,
    conditioned_layers: int | None = None,
) -> nn.Module:
    """The network of a new run, frozen where its objective freezes.

    Args:
        objective: "vdvae", "cvdvae", "vdvae-sr" or "srvae".
        preset: architecture of a network with fresh weights; None for the objective's default.
        prior: name or path of a pretrained prior to build on, or None.
        start_from: name or path of finished weights to start from, or None. With a preset, the
            preset's network takes those of its tensors whose names and shapes fit: a model of
            another scale or depth begins with what it has in common, a wider one, or one of deeper
            encoders, or both, as it is. With a prior, so does what is trained of the new model;
            what is frozen is the prior's.
        scale: super-resolution factor of a model on a prior of the published shape, or None.
        is_coupled: whether colours and neighbouring pixels of a compact model's likelihood depend
            on each other; weights that have no coefficients begin with zero.
        variant: of a new VDVAE-SR on a prior of the published shape; None for the default.
        conditioned_layers: the papers' k of a new CVDVAE, how many of its first layers see the LR
            picture; None for all that can.

    Raises:
        UsageError: what is asked for does not go together.
        WeightsError: weights that are missing, damaged or do not fit.
    """
    if prior is None and (variant is not None or conditioned_layers is not None):
        raise UsageError("a variant is of a new model on a prior", hint="name it: --prior")
    if prior is not None and preset is not None:
        raise UsageError("--preset is of a network that is not built on a --prior")
    if start_from is not None and preset is not None:
        source = load_network(start_from)
        fresh = model_of_preset(objective, preset, is_coupled=is_coupled)
        if _is_coupled(source) and isinstance(fresh, CompactVDVAE | CompactVDVAESR):
            fresh = coupled(fresh)
        model = transferred(source, fresh)
    elif start_from is not None and prior is None:
        model = _with_likelihood(load_network(start_from), is_coupled)
    elif prior is not None:
        pretrained = _with_likelihood(load_network(prior), is_coupled)
        model = model_on_prior(
            objective, pretrained, scale, variant=variant, conditioned_layers=conditioned_layers
        )
        if start_from is not None:
            model = transferred(load_network(start_from), prepared(model))
    else:
        model = model_of_preset(objective, preset, is_coupled=is_coupled)
    _check_kind(objective, model, str(start_from))
    return prepared(model)


def _with_likelihood(model: nn.Module, is_coupled: bool) -> nn.Module:
    """The model, its likelihood coupled where that is asked for; raises UsageError."""
    if not is_coupled:
        return model
    if isinstance(model, CompactVDVAE | CompactVDVAESR):
        return coupled(model)
    raise UsageError(
        f"--coupled does not go with a {architecture_of(model).name}",
        hint="it is of vdsr train vdvae and vdvae-sr, with compact models",
    )


def _is_coupled(model: nn.Module) -> bool:
    return isinstance(model, CompactVDVAE | CompactVDVAESR) and model.config.coupled


def _check_kind(objective: str, model: nn.Module, name: str) -> None:
    kind = architecture_of(model)
    if kind.objective != objective:
        raise UsageError(f"{name} is a {kind.name}, which vdsr train {objective} cannot train")


def model_of_preset(objective: str, preset: str | None, *, is_coupled: bool = False) -> nn.Module:
    """A network with fresh weights, as :func:`preset_of` has it; raises UsageError."""
    kind, config = preset_of(objective, preset)
    return _with_likelihood(kind.network(config), is_coupled)


def preset_of(objective: str, preset: str | None) -> tuple[Architecture, Any]:
    """The architecture and configuration of a name, or of the objective's default for None; of a
    TOML file, a VDVAE of the published kind with the fields of its
    :class:`~vdsr_cli.models.vdvae_config.VDVAEConfig`.

    Raises:
        UsageError: no such preset, or a file that describes no network.
    """
    if objective == "cvdvae":
        raise UsageError("a CVDVAE is built on a prior", hint="name it: --prior vdvae-x4-prior")
    kinds = [kind for kind in ARCHITECTURES.values() if kind.objective == objective]
    known = {name: (kind, config) for kind in kinds for name, config in kind.presets.items()}
    if preset is None:
        return known[next(iter(known))]
    if objective == "vdvae" and preset.endswith(".toml"):
        return ARCHITECTURES[PUBLISHED_KIND], _config_in(Path(preset))
    if preset not in known:
        raise UsageError(f"unknown preset {preset!r}", hint=f"known: {', '.join(known)}")
    return known[preset]


def _config_in(path: Path) -> VDVAEConfig:
    """The configuration that a TOML file has; raises UsageError."""
    values = read_toml(path)
    try:
        build_empty(PUBLISHED_KIND, values, stored=_MOST_NUMBERS)
    except WeightsError as error:
        raise UsageError(f"{path} describes no network: {error}") from error
    return openai_config(values)


def transferred(source: nn.Module, model: nn.Module) -> nn.Module:
    """``model`` with every tensor of ``source`` that fits it and is not frozen, or computing the
    same where it is ``source`` but larger; raises UsageError where nothing fits."""
    if _is_compact(source) and _is_compact(model) and can_widen(source.config, model.config):
        widen_into(model, source)
        return model
    own, theirs = model.state_dict(), source.state_dict()
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    fitting = {
        name: value
        for name, value in theirs.items()
        if name in own and name not in frozen and own[name].shape == value.shape
    }
    if not fitting:
        raise UsageError("--from has no tensor in common with what is to be trained")
    model.load_state_dict({**own, **fitting})
    begin_idle(model, theirs)
    return model


def _is_compact(model: nn.Module) -> TypeGuard[CompactVDVAESR]:
    """Whether it is the compact VDVAE-SR itself, not the one on a prior."""
    return type(model) is CompactVDVAESR


def check_scale_of(model: nn.Module, scale: int | None) -> None:
    """Raises UsageError where a model's super-resolution factor is not the one asked for."""
    if scale not in (None, model.scale):
        raise UsageError(
            f"--scale {scale}, but the model to be trained makes x{model.scale}",
            hint="only a new model on a prior of the published shape can choose its scale",
        )


def model_on_prior(
    objective: str,
    prior: nn.Module,
    scale: int | None = None,
    *,
    variant: Variant | None = None,
    conditioned_layers: int | None = None,
) -> nn.Module:
    """A conditional network around a pretrained prior; raises UsageError.

    ``scale`` is that of a model on a prior of the published shape; a compact prior has its own.
    ``variant`` and ``conditioned_layers`` as in :func:`new_model`.
    """
    if objective in ("vdvae", "srvae"):
        raise UsageError(f"vdsr train {objective} builds on no prior", hint="leave --prior out")
    if variant is not None and (objective != "vdvae-sr" or not isinstance(prior, VDVAE)):
        raise UsageError("variants are of VDVAE-SR on a prior of the published shape")
    if conditioned_layers is not None and objective != "cvdvae":
        raise UsageError("--conditioned-layers is of vdsr train cvdvae")
    try:
        return _on_prior(objective, prior, scale, variant, conditioned_layers)
    except ValueError as error:
        raise UsageError(f"no such variant: {error}") from error


def _on_prior(
    objective: str,
    prior: nn.Module,
    scale: int | None,
    variant: Variant | None,
    conditioned_layers: int | None,
) -> nn.Module:
    """:func:`model_on_prior`; raises ValueError for a variant that the prior does not allow."""
    if isinstance(prior, CompactVDVAE):
        if objective == "cvdvae":
            return CompactCVDVAE.from_prior(prior, conditioned_layers)
        return CompactVDVAESROnPrior.from_prior(prior)
    if not isinstance(prior, VDVAE):
        raise UsageError(
            f"a {architecture_of(prior).name} is not an unconditional prior",
            hint="vdvae-x4-prior and the openai/ models are",
        )
    scale = scale or PUBLISHED_SCALE
    if objective == "vdvae-sr":
        return VDVAESR.from_prior(prior, _vdvae_sr_encoder(prior.config, scale), variant)
    config = _cvdvae_config(prior.config, lr_encoder_for(prior.config, scale))
    return CVDVAE.from_prior(prior, replace(config, ky=conditioned_layers or config.ky))


def _vdvae_sr_encoder(prior: VDVAEConfig, scale: int) -> EncoderConfig:
    """The papers' LR encoder where they have one for this prior and scale."""
    for name, encoder in PUBLISHED_LR_ENCODERS.items():
        if PUBLISHED[name] == prior and encoder.image_size * scale == prior.image_size:
            return encoder
    return lr_encoder_for(prior, scale)


def lr_encoder_for(prior: VDVAEConfig, scale: int) -> EncoderConfig:
    """The prior's encoder from the LR picture's resolution down, with the same widths.

    Raises:
        UsageError: the prior has no such resolution.
    """
    size = prior.image_size // scale
    if size * scale != prior.image_size or size not in prior.encoder.resolutions or scale == 1:
        whole = sorted(prior.image_size // r for r in prior.encoder.resolutions)
        known = ", ".join(str(factor) for factor in whole if 1 < factor <= SCALE_RANGE[1])
        raise UsageError(
            f"--scale {scale} does not suit a prior of {prior.image_size}x{prior.image_size}",
            hint=f"try one of {known}",
        )
    items = prior.enc_blocks.split(",")
    kept = [item for item, layer in zip(items, _first_layers(items), strict=True) if layer <= size]
    resolutions = sorted(r for r in prior.encoder.resolutions if r <= size)
    return replace(
        prior.encoder,
        image_size=size,
        enc_blocks=",".join(kept),
        width=prior.width_at(size),
        custom_width_str=",".join(f"{r}:{prior.width_at(r)}" for r in resolutions),
    )


def _first_layers(items: list[str]) -> list[int]:
    """The resolution that each item of a layer string works on."""
    return [int(item.replace("d", "x").split("x")[0]) for item in items]


def _cvdvae_config(prior: VDVAEConfig, lr: EncoderConfig) -> CVDVAEConfig:
    """Conditions every leading block at a resolution of the LR encoder."""
    seen = [layer.resolution in lr.resolutions for layer in prior.decoder_layers]
    return CVDVAEConfig(
        prior=prior,
        image_size_y=lr.image_size,
        enc_blocks_y=lr.enc_blocks,
        ky=seen.index(False) if False in seen else len(seen),
        width_y=lr.width,
        custom_width_str_y=lr.custom_width_str,
    )


def select_likelihood(model: nn.Module, config: TrainConfig) -> None:
    """Leaves of a compact model only what none of its pictures depends on to train.

    Raises:
        UsageError: another model, or options that would train the rest.
    """
    if not isinstance(model, CompactVDVAE | CompactVDVAESR):
        raise UsageError(f"--likelihood-only does not go with a {architecture_of(model).name}")
    if config.is_ever_adversarial or config.elbo_from or config.weight_decay:
        raise UsageError(
            "--likelihood-only trains by the ELBO alone",
            hint="leave --adversarial, --elbo-from and --weight-decay out",
        )
    model.select_likelihood()


def select_fine_layers(model: nn.Module, config: TrainConfig) -> None:
    """Lets what the prior of a compact CVDVAE does below the LR resolution train, too.

    Raises:
        UsageError: another model, or a run without samples to train it by.
    """
    if not isinstance(model, CompactCVDVAE) or not config.is_ever_adversarial:
        raise UsageError(
            "--fine-layers is of a compact CVDVAE's samples",
            hint="vdsr train cvdvae --prior vdvae-x4-prior --adversarial 0 --fine-layers",
        )
    model.select_fine_layers()


def prepared(model: nn.Module) -> nn.Module:
    """The model with its frozen parts frozen and the rest trainable."""
    model.requires_grad_(True)
    if isinstance(model, PartlyTrained):
        model.select_trainable()
    return model
