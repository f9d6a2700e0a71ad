"""Whether a run trains a model of the published shape: known from headers, before any weights."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vdsr_cli.models.cvdvae import CVDVAEConfig
from vdsr_cli.models.registry import openai_config
from vdsr_cli.models.vdvae_sr import VDVAESRConfig
from vdsr_cli.training.published import PublishedShape
from vdsr_cli.training.start import PUBLISHED_SCALE, preset_of
from vdsr_cli.weights import read_header, resolve
from vdsr_cli.weights.runs import find_checkpoint, read_architecture, run_checkpoint


def published_shape(
    objective: str,
    out: Path,
    *,
    branch_from: Path | None = None,
    start_from: str | None = None,
    prior: str | None = None,
    preset: str | None = None,
    scale: int | None = None,
) -> PublishedShape | None:
    """The shape of what a run of the objective in ``out`` trains; None for every other network.

    A run that is there decides, then the one it branches from, the preset, the weights to start
    from, and the prior, on which a new model of factor ``scale`` is built.

    Raises:
        UsageError: the objective has no such preset.
        WeightsError: none of its files can be read.
    """
    run = find_checkpoint(out) or branch_from
    if run is None and preset is not None and objective == "vdvae":
        kind, config = preset_of(objective, preset)
        return _shape_of(kind.name, asdict(config), 1)
    source = str(run) if run else start_from or prior
    if source is None:
        return None
    return _shape_of(*_architecture(source), scale or PUBLISHED_SCALE if source == prior else 1)


def _architecture(name: str) -> tuple[str, Mapping[str, Any]]:
    """Kind and configuration of a name, a weights file, a run folder or its ``last.pt``."""
    run = run_checkpoint(name)
    if run is not None:
        return read_architecture(run)
    header = read_header(resolve(name).path)
    return header.architecture, header.config


def _shape_of(kind: str, config: Mapping[str, Any], scale: int) -> PublishedShape | None:
    if kind == "openai-vdvae":
        prior = openai_config(config)
        return PublishedShape(prior=prior, lr_size=prior.image_size // scale)
    if kind == "cvdvae":
        cvdvae = CVDVAEConfig.from_dict(config)
        return PublishedShape(prior=cvdvae.prior, lr_size=cvdvae.image_size_y)
    if kind == "vdvae-sr":
        vdvae_sr = VDVAESRConfig.from_dict(config)
        return PublishedShape(prior=vdvae_sr.prior, lr_size=vdvae_sr.lr.image_size)
    return None
