"""The explicit list of architectures: name in a checkpoint's header -> module, and presets."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from threading import get_ident
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from vdsr_cli.errors import WeightsError
from vdsr_cli.models import vdvae_config
from vdsr_cli.models.cnn_vae import CNNVAE, cnn_vae_from
from vdsr_cli.models.compact import CompactConfig, CompactVDVAESR, Level
from vdsr_cli.models.compact_prior import (
    CompactCVDVAE,
    CompactCVDVAEConfig,
    CompactVDVAE,
    CompactVDVAESROnPrior,
    compact_config_from,
)
from vdsr_cli.models.cvdvae import CVDVAE, CVDVAEConfig
from vdsr_cli.models.srvae import SRVAE
from vdsr_cli.models.srvae_config import SRVAEConfig
from vdsr_cli.models.vdvae import VDVAE
from vdsr_cli.models.vdvae_config import VDVAEConfig
from vdsr_cli.models.vdvae_sr import VDVAESR, VDVAESRConfig

COMPACT_VDVAE_SR = "compact-vdvae-sr"


def build_compact(config: Mapping[str, Any]) -> CompactVDVAESR:
    """A compact model from the plain values of its header."""
    return CompactVDVAESR(compact_config_from(config))


def openai_config(config: Mapping[str, Any]) -> VDVAEConfig:
    """A published configuration by its name, or any other from the plain values of its header."""
    if "published" in config:
        return vdvae_config.PUBLISHED[config["published"]]
    return VDVAEConfig(**config)


ARCHITECTURES: Mapping[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    COMPACT_VDVAE_SR: build_compact,
    "compact-vdvae": lambda config: CompactVDVAE(compact_config_from(config)),
    "compact-vdvae-sr-on-prior": lambda config: CompactVDVAESROnPrior(compact_config_from(config)),
    "compact-cvdvae": lambda config: CompactCVDVAE(CompactCVDVAEConfig.from_dict(config)),
    "openai-vdvae": lambda config: VDVAE(openai_config(config)),
    "vdvae-sr": lambda config: VDVAESR(VDVAESRConfig.from_dict(config)),
    "cvdvae": lambda config: CVDVAE(CVDVAEConfig.from_dict(config)),
    "srvae": lambda config: SRVAE(SRVAEConfig.from_dict(config)),
    "cnn-vae": cnn_vae_from,
}

_NAMES: Mapping[type[nn.Module], str] = {
    CompactVDVAESR: COMPACT_VDVAE_SR,
    CompactVDVAE: "compact-vdvae",
    CompactVDVAESROnPrior: "compact-vdvae-sr-on-prior",
    CompactCVDVAE: "compact-cvdvae",
    VDVAE: "openai-vdvae",
    VDVAESR: "vdvae-sr",
    CVDVAE: "cvdvae",
    SRVAE: "srvae",
    CNNVAE: "cnn-vae",
}

_PRIOR_LEVELS = (
    Level(cell=64, width=64, blocks=1, latent_channels=8, lr_blocks=1),
    Level(cell=32, width=64, blocks=2, latent_channels=8, lr_blocks=1),
    Level(cell=16, width=64, blocks=3, latent_channels=8, lr_blocks=2),
    Level(cell=8, width=64, blocks=4, latent_channels=8, lr_blocks=2),
    Level(cell=4, width=64, blocks=6, latent_channels=8, lr_blocks=6),
    Level(cell=2, width=32, blocks=4, latent_channels=4),
)

PRESETS: Mapping[str, CompactConfig] = {
    "vdvae-sr-x4": CompactConfig(
        scale=4,
        levels=(
            Level(cell=16, width=48, blocks=1, latent_channels=8, lr_blocks=1),
            Level(cell=8, width=48, blocks=2, latent_channels=8, lr_blocks=1),
            Level(cell=4, width=48, blocks=4, latent_channels=8, lr_blocks=5),
            Level(cell=2, width=24, blocks=1, latent_channels=4),
        ),
    ),
    "vdvae-sr-x4-large": CompactConfig(
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
    "vdvae-sr-x2": CompactConfig(
        scale=2,
        levels=(
            Level(cell=8, width=64, blocks=2, latent_channels=8, lr_blocks=2),
            Level(cell=4, width=64, blocks=3, latent_channels=8, lr_blocks=2),
            Level(cell=2, width=64, blocks=4, latent_channels=8, lr_blocks=5),
        ),
    ),
    "vdvae-sr-x8": CompactConfig(
        scale=8,
        levels=(
            Level(cell=32, width=64, blocks=2, latent_channels=8, lr_blocks=2),
            Level(cell=16, width=64, blocks=3, latent_channels=8, lr_blocks=2),
            Level(cell=8, width=64, blocks=4, latent_channels=8, lr_blocks=6),
            Level(cell=4, width=32, blocks=2, latent_channels=4),
            Level(cell=2, width=32, blocks=1, latent_channels=4),
        ),
    ),
}
"""Compact configurations of VDVAE-SR that ``vdsr train`` builds by name."""

PRIOR_PRESETS: Mapping[str, CompactConfig] = {
    "vdvae-x4-prior": CompactConfig(scale=4, levels=_PRIOR_LEVELS)
}
"""Compact configurations of the unconditional VDVAE that ``vdsr train`` builds by name.

A CVDVAE or VDVAE-SR on such a prior (``cvdvae-x4``) has the configuration of its prior.
"""


_CONFIG_ERRORS: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    UserWarning,
    ValueError,
)
"""What a configuration of anything at all, as a stranger's file may hold it, raises."""


def build_model(
    architecture: str, config: Mapping[str, Any], *, stored: int | None = None
) -> nn.Module:
    """The module that a checkpoint's header describes, with fresh weights.

    Args:
        stored: how many numbers the checkpoint holds. A configuration of four times as many, the
            most that a file without its encoder lacks, is refused before it takes any memory.

    Raises:
        WeightsError: an architecture that this version does not know, or a config it refuses.
    """
    if architecture not in ARCHITECTURES:
        raise WeightsError(
            f"unknown architecture {architecture!r}", hint=f"known: {', '.join(ARCHITECTURES)}"
        )
    build = ARCHITECTURES[architecture]
    try:
        if stored is not None:
            with torch.device("meta"), _at_most(4 * stored):
                build(config)
        return build(config)
    except _CONFIG_ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise WeightsError(f"the {architecture} configuration is not valid: {reason}") from error


@contextmanager
def _at_most(numbers: int) -> Iterator[None]:
    """Raises ValueError once the modules made in the block hold more numbers than that."""
    ours, held = get_ident(), 0

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal held
        if tensor is not None and get_ident() == ours:
            held += tensor.numel()
        if held > numbers:
            raise ValueError(f"it is of more than the {numbers // 4:,} numbers of its file")

    with ExitStack() as counting:
        counting.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("error", message="Initializing zero-element")
        counting.callback(hooks.register_module_parameter_registration_hook(count).remove)
        counting.callback(hooks.register_module_buffer_registration_hook(count).remove)
        yield


def architecture_of(model: nn.Module) -> str:
    """The name of a model's architecture, for a checkpoint's header."""
    return _NAMES[type(model)]


def config_of(model: nn.Module) -> dict[str, Any]:
    """The plain values of a model's configuration, for a checkpoint's header."""
    config = model.conditioning if isinstance(model, CompactCVDVAE) else model.config
    return asdict(config)  # type: ignore[arg-type]  # every model of the list has a dataclass
