"""The configurations of srVAE and of the VAE it is compared with: the papers', and small ones."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

LATENT_CELL = 4
"""Side in HR pixels of the square that one latent of u or z covers."""
MAX_REPEATS = 100
"""The most of blocks and layers: configurations come from files."""
PRIORS = ("realnvp", "mixture", "normal")


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSpec:
    """The size of a dense network.

    Attributes:
        growth: channels that each block of the first layer adds.
        steps: blocks a layer.
        depth: halvings of an encoder, doublings of a decoder, layers of a network.
    """

    growth: int
    steps: int
    depth: int = 1

    def __post_init__(self) -> None:
        if min(self.growth, self.steps, self.depth) < 1:
            raise ValueError("growth, steps and depth must be at least 1")
        if max(self.steps, self.depth) > MAX_REPEATS:
            raise ValueError(f"steps and depth must be at most {MAX_REPEATS}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SRVAEConfig:
    """Architecture of an srVAE; the default is the paper's.

    Attributes:
        hr_size: side of the pictures; only the mixture prior is tied to it.
        latent_channels: of u and of z.
        components: logistics a pixel.
        prior: of u: "realnvp", "mixture" or "normal".
        mixture_components: of the mixture prior.
        flow: each coupling's network.
        q_u, p_y, q_z: encoder of lr, decoder of u, encoder of hr.
        p_z_y, p_z_u, p_z: lr's and u's parts in the prior of z, and what joins them.
        p_x_z, p_x: z's part in the likelihood of hr, and what joins it with lr.
        residual_unit: what a 1 of the network for hr stands for, where it describes the difference
            from the bicubic picture; 1 is black to white. None where it describes hr itself.
        first_deviation: of every convolution's output on the batch that initialises it.
    """

    hr_size: int = 32
    latent_channels: int = 16
    components: int = 10
    prior: str = "realnvp"
    mixture_components: int = 1000
    flow: DenseSpec = DenseSpec(growth=64, steps=5)
    q_u: DenseSpec = DenseSpec(growth=64, steps=3, depth=1)
    p_y: DenseSpec = DenseSpec(growth=128, steps=4, depth=1)
    q_z: DenseSpec = DenseSpec(growth=16, steps=4, depth=2)
    p_z_y: DenseSpec = DenseSpec(growth=32, steps=5, depth=1)
    p_z_u: DenseSpec = DenseSpec(growth=64, steps=3, depth=3)
    p_z: DenseSpec = DenseSpec(growth=64, steps=3, depth=3)
    p_x_z: DenseSpec = DenseSpec(growth=64, steps=8, depth=2)
    p_x: DenseSpec = DenseSpec(growth=64, steps=5, depth=3)
    residual_unit: float | None = None
    first_deviation: float = 0.01

    def __post_init__(self) -> None:
        if self.prior not in PRIORS:
            raise ValueError(f"unknown prior {self.prior!r}, known: {', '.join(PRIORS)}")
        _check_sizes(self.hr_size, self.latent_channels, self.components, self.mixture_components)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SRVAEConfig":
        """From the plain values of a header; a missing field is the paper's."""
        return cls(**_with_specs(cls, values))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowVAEConfig:
    """Architecture of the VAE with a RealNVP prior; the default is the paper's.

    Attributes:
        hr_size: side of the pictures.
        latent_channels: of z.
        components: logistics a pixel.
        flow: each coupling's network.
        q_z, p_x: encoder and decoder.
        first_deviation: of every convolution's output on the batch that initialises it.
    """

    hr_size: int = 32
    latent_channels: int = 16
    components: int = 10
    flow: DenseSpec = DenseSpec(growth=64, steps=5)
    q_z: DenseSpec = DenseSpec(growth=16, steps=8, depth=2)
    p_x: DenseSpec = DenseSpec(growth=128, steps=6, depth=2)
    first_deviation: float = 0.01

    def __post_init__(self) -> None:
        _check_sizes(self.hr_size, self.latent_channels, self.components)
        if {self.q_z.depth, self.p_x.depth} != {2}:
            raise ValueError(f"a latent covers {LATENT_CELL} pixels: q_z and p_x have a depth of 2")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FlowVAEConfig":
        """From the plain values of a header; a missing field is the paper's."""
        return cls(**_with_specs(cls, values))


def _check_sizes(hr_size: int, *counts: int) -> None:
    if min(counts) < 1:
        raise ValueError("channels and components must be at least 1")
    if hr_size < 1 or hr_size % (2 * LATENT_CELL):
        raise ValueError(f"hr_size must be a multiple of {2 * LATENT_CELL}")


def _with_specs(config: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with the dense networks' sizes as :class:`DenseSpec`."""
    specs = {field.name for field in fields(config) if isinstance(field.default, DenseSpec)}
    return {k: DenseSpec(**v) if k in specs else v for k, v in values.items()}


SRVAE_PRESETS: Mapping[str, SRVAEConfig] = {
    "srvae-x2": SRVAEConfig(
        components=3,
        flow=DenseSpec(growth=16, steps=1),
        q_u=DenseSpec(growth=16, steps=1, depth=1),
        p_y=DenseSpec(growth=32, steps=1, depth=1),
        q_z=DenseSpec(growth=8, steps=1, depth=2),
        p_z_y=DenseSpec(growth=16, steps=1, depth=1),
        p_z_u=DenseSpec(growth=16, steps=1, depth=1),
        p_z=DenseSpec(growth=16, steps=1, depth=1),
        p_x_z=DenseSpec(growth=32, steps=1, depth=2),
        p_x=DenseSpec(growth=32, steps=3, depth=1),
        residual_unit=0.1,
        first_deviation=0.1,
    ),
    "srvae-paper": SRVAEConfig(),
    "srvae-paper-mixture": SRVAEConfig(prior="mixture"),
    "srvae-paper-normal": SRVAEConfig(prior="normal"),
}
"""Configurations that ``vdsr train srvae`` builds by name."""

FLOW_VAE_PRESETS: Mapping[str, FlowVAEConfig] = {
    "vae-small": FlowVAEConfig(
        components=3,
        flow=DenseSpec(growth=16, steps=1),
        q_z=DenseSpec(growth=8, steps=1, depth=2),
        p_x=DenseSpec(growth=32, steps=1, depth=2),
        first_deviation=0.1,
    ),
    "vae-paper": FlowVAEConfig(),
}
"""Configurations of the VAE with a RealNVP prior that ``vdsr train srvae`` builds by name."""
