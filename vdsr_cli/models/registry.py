"""The explicit list of architectures: one row each, and modules built by the row's name."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from threading import get_ident
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from vdsr_cli.errors import WeightsError
from vdsr_cli.models import vdvae_config
from vdsr_cli.models.cnn_vae import CNNVAE, CNNVAEConfig
from vdsr_cli.models.compact import CompactVDVAESR
from vdsr_cli.models.compact_prior import (
    CompactCVDVAE,
    CompactCVDVAEConfig,
    CompactVDVAE,
    CompactVDVAESROnPrior,
    compact_config_from,
)
from vdsr_cli.models.cvdvae import CVDVAE, CVDVAEConfig
from vdsr_cli.models.flow_vae import FlowVAE
from vdsr_cli.models.presets import PRESETS, PRIOR_PRESETS
from vdsr_cli.models.srvae import SRVAE
from vdsr_cli.models.srvae_config import (
    FLOW_VAE_PRESETS,
    SRVAE_PRESETS,
    FlowVAEConfig,
    SRVAEConfig,
)
from vdsr_cli.models.vdvae import VDVAE
from vdsr_cli.models.vdvae_config import VDVAEConfig
from vdsr_cli.models.vdvae_sr import VDVAESR, VDVAESRConfig

COMPACT_VDVAE_SR = "compact-vdvae-sr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One kind of network.

    Attributes:
        name: in the header of a checkpoint.
        network: its class, built from its configuration.
        config: the header's plain values -> the configuration.
        objective: the ``vdsr train`` command that trains it; None where none does.
        presets: the configurations that the command builds by name, the default first.
        is_prior: whether it is p(hr), without any condition.
    """

    name: str
    network: type[nn.Module]
    config: Callable[[Mapping[str, Any]], Any]
    objective: str | None = None
    presets: Mapping[str, Any] = field(default_factory=dict)
    is_prior: bool = False

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A network with fresh weights from the plain values of a header."""
        return self.network(self.config(config))


def openai_config(config: Mapping[str, Any]) -> VDVAEConfig:
    """A published configuration by its name, or any other from the plain values of its header."""
    if "published" in config:
        return vdvae_config.PUBLISHED[config["published"]]
    return VDVAEConfig(**config)


_ROWS = (
    Architecture(
        name=COMPACT_VDVAE_SR,
        network=CompactVDVAESR,
        config=compact_config_from,
        objective="vdvae-sr",
        presets=PRESETS,
    ),
    Architecture(
        name="compact-vdvae",
        network=CompactVDVAE,
        config=compact_config_from,
        objective="vdvae",
        presets=PRIOR_PRESETS,
        is_prior=True,
    ),
    Architecture(
        name="compact-vdvae-sr-on-prior",
        network=CompactVDVAESROnPrior,
        config=compact_config_from,
        objective="vdvae-sr",
    ),
    Architecture(
        name="compact-cvdvae",
        network=CompactCVDVAE,
        config=CompactCVDVAEConfig.from_dict,
        objective="cvdvae",
    ),
    Architecture(
        name="openai-vdvae",
        network=VDVAE,
        config=openai_config,
        objective="vdvae",
        presets=vdvae_config.PUBLISHED,
        is_prior=True,
    ),
    Architecture(
        name="vdvae-sr", network=VDVAESR, config=VDVAESRConfig.from_dict, objective="vdvae-sr"
    ),
    Architecture(name="cvdvae", network=CVDVAE, config=CVDVAEConfig.from_dict, objective="cvdvae"),
    Architecture(
        name="srvae",
        network=SRVAE,
        config=SRVAEConfig.from_dict,
        objective="srvae",
        presets=SRVAE_PRESETS,
    ),
    Architecture(
        name="flow-vae",
        network=FlowVAE,
        config=FlowVAEConfig.from_dict,
        objective="srvae",
        presets=FLOW_VAE_PRESETS,
        is_prior=True,
    ),
    Architecture(
        name="cnn-vae",
        network=CNNVAE,
        config=lambda config: CNNVAEConfig(**config),
        objective="cnn-vae",
    ),
)

ARCHITECTURES: Mapping[str, Architecture] = {row.name: row for row in _ROWS}
"""Every row, by name."""

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
"""Errors of a configuration of anything at all, as a stranger's file may hold it."""


def build_model(architecture: str, config: Mapping[str, Any]) -> nn.Module:
    """The module that a checkpoint's header describes, with fresh weights.

    Raises:
        WeightsError: an architecture that this version does not know, or a config it refuses.
    """
    row = _row_named(architecture)
    with _refusing(architecture):
        return row.build(config)


def build_empty(architecture: str, config: Mapping[str, Any], *, stored: int) -> nn.Module:
    """:func:`build_model` on the device "meta": shapes without numbers, which takes no memory.

    Args:
        stored: how many numbers the checkpoint holds. A configuration of four times as many, the
            most that a file without its encoder lacks, is refused.

    Raises:
        WeightsError: as :func:`build_model`.
    """
    row = _row_named(architecture)
    with _refusing(architecture), torch.device("meta"), _at_most(4 * stored):
        return row.build(config)


def _row_named(architecture: str) -> Architecture:
    if architecture not in ARCHITECTURES:
        raise WeightsError(
            f"unknown architecture {architecture!r}", hint=f"known: {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[architecture]


@contextmanager
def _refusing(architecture: str) -> Iterator[None]:
    """Turns what an impossible configuration raises into a WeightsError."""
    try:
        yield
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


def architecture_of(model: nn.Module) -> Architecture:
    """The row of a model."""
    return next(row for row in _ROWS if row.network is type(model))


def config_of(model: nn.Module) -> dict[str, Any]:
    """The plain values of a model's configuration, for a checkpoint's header."""
    config = model.conditioning if isinstance(model, CompactCVDVAE) else model.config
    return asdict(config)  # type: ignore[arg-type]  # every model of the list has a dataclass
