"""The compact configurations that ``vdsr train`` builds by name."""

from collections.abc import Mapping

from vdsr_cli.models.compact_parts import CompactConfig, Level

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
    "vdvae-sr-x4-deep": CompactConfig(
        scale=4,
        levels=(
            Level(cell=16, width=48, blocks=1, latent_channels=8, lr_blocks=2),
            Level(cell=8, width=48, blocks=2, latent_channels=8, lr_blocks=3),
            Level(cell=4, width=48, blocks=4, latent_channels=8, lr_blocks=10),
            Level(cell=2, width=24, blocks=1, latent_channels=4),
        ),
    ),
    "vdvae-sr-x4-real": CompactConfig(
        scale=4,
        levels=(
            Level(cell=16, width=48, blocks=1, latent_channels=8, lr_blocks=6),
            Level(cell=8, width=48, blocks=2, latent_channels=8, lr_blocks=6),
            Level(cell=4, width=48, blocks=4, latent_channels=8, lr_blocks=10),
            Level(cell=2, width=32, blocks=1, latent_channels=4),
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
