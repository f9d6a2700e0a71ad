"""The explicit list of architectures: name in a checkpoint's header -> module, and presets."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from vdsr_cli.errors import WeightsError
from vdsr_cli.models.compact import CompactConfig, CompactVDVAESR, Level
from vdsr_cli.models.cvdvae import CVDVAE, CVDVAEConfig
from vdsr_cli.models.vdvae import VDVAE
from vdsr_cli.models.vdvae_config import PUBLISHED
from vdsr_cli.models.vdvae_sr import VDVAESR, VDVAESRConfig

COMPACT_VDVAE_SR = "compact-vdvae-sr"


def build_compact(config: Mapping[str, Any]) -> CompactVDVAESR:
    """A compact model from the plain values of its header."""
    levels = tuple(Level(**level) for level in config["levels"])
    return CompactVDVAESR(CompactConfig(scale=config["scale"], levels=levels))


ARCHITECTURES: Mapping[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    COMPACT_VDVAE_SR: build_compact,
    "openai-vdvae": lambda config: VDVAE(PUBLISHED[config["published"]]),
    "vdvae-sr": lambda config: VDVAESR(VDVAESRConfig.from_dict(config)),
    "cvdvae": lambda config: CVDVAE(CVDVAEConfig.from_dict(config)),
}

PRESETS: Mapping[str, CompactConfig] = {
    "vdvae-sr-x4": CompactConfig(
        scale=4,
        levels=(
            Level(cell=16, width=64, blocks=2, latent_channels=8, lr_blocks=2),
            Level(cell=8, width=64, blocks=3, latent_channels=8, lr_blocks=2),
            Level(cell=4, width=64, blocks=4, latent_channels=8, lr_blocks=5),
            Level(cell=2, width=32, blocks=2, latent_channels=4),
        ),
    ),
    "vdvae-sr-x4-tiny": CompactConfig(
        scale=4,
        levels=(
            Level(cell=16, width=32, blocks=1, latent_channels=8, lr_blocks=1),
            Level(cell=8, width=32, blocks=2, latent_channels=8, lr_blocks=1),
            Level(cell=4, width=32, blocks=4, latent_channels=8, lr_blocks=5),
            Level(cell=2, width=16, blocks=1, latent_channels=4),
        ),
    ),
}
"""Compact configurations that ``vdsr train`` builds by name."""


def build_model(architecture: str, config: Mapping[str, Any]) -> nn.Module:
    """The module that a checkpoint's header describes, with fresh weights.

    Raises:
        WeightsError: an architecture that this version does not know, or a config it refuses.
    """
    if architecture not in ARCHITECTURES:
        raise WeightsError(
            f"unknown architecture {architecture!r}", hint=f"known: {', '.join(ARCHITECTURES)}"
        )
    try:
        return ARCHITECTURES[architecture](config)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"the {architecture} configuration is not valid: {error}") from error


def config_of(model: CompactVDVAESR) -> dict[str, Any]:
    """The plain values for a checkpoint's header."""
    return asdict(model.config)
