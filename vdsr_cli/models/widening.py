"""A larger network that begins as a trained smaller one (Net2Net, Chen et al. 2016).

Old channels come first in every map. What a new channel holds feeds no old one, and what an
encoder's new block finds is multiplied by zero, so that pictures, rates and distortions are those
of the smaller network, while the weights between them train. A coupled likelihood begins with
coefficients of zero, which couple nothing.
"""

from collections.abc import Container
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from vdsr_cli.models.blocks import Plain
from vdsr_cli.models.compact import CompactHierarchy, CompactVDVAESR
from vdsr_cli.models.compact_parts import CompactConfig, Level

_Compact = TypeVar("_Compact", bound=CompactHierarchy)


def can_widen(source: CompactConfig, wide: CompactConfig) -> bool:
    """Whether two networks differ in widths, depths of encoders and coupling alone, the second in
    nothing the less."""
    if len(source.levels) != len(wide.levels):
        return False
    if source.coupled > wide.coupled or source.neighbours > wide.neighbours:
        return False
    if source.context not in (0, wide.context):
        return False
    pairs = list(zip(source.levels, wide.levels, strict=True))
    narrowed = replace(
        wide,
        levels=tuple(replace(level, **_sizes(narrow)) for narrow, level in pairs),
        coupled=source.coupled,
        neighbours=source.neighbours,
        context=source.context,
    )
    return narrowed == source and all(
        size <= getattr(level, name)
        for narrow, level in pairs
        for name, size in _sizes(narrow).items()
    )


def _sizes(level: Level) -> dict[str, int]:
    """The sizes of a level that may be larger."""
    return {name: getattr(level, name) for name in ("width", "lr_blocks", "hr_blocks")}


def widen_into(model: CompactVDVAESR, source: CompactVDVAESR) -> None:
    """Makes ``model``, freshly initialised, compute what the smaller ``source`` does.

    Raises:
        ValueError: networks that differ in more than :func:`can_widen` allows.
    """
    if not can_widen(source.config, model.config):
        raise ValueError("the networks differ in more than sizes, or the new one is narrower")
    own = model.state_dict()
    old = source.state_dict()
    model.load_state_dict(own | {name: _embedded(name, old[name], own[name]) for name in old})
    begin_idle(model, old)


def begin_idle(model: nn.Module, old: Container[str]) -> None:
    """Makes those blocks of a model's encoders add nothing whose names are not among the old."""
    for name, block in model.named_modules():
        if ".stages." in name and isinstance(block, Plain) and f"{name}.c2.weight" not in old:
            nn.init.zeros_(block.c2.weight)


def coupled(model: _Compact) -> _Compact:
    """The same model with a likelihood that couples colours and neighbours: the same function, its
    new coefficients zero; itself where it has them already."""
    config = model.config.with_coupling(model.context)
    if model.config == config:
        return model
    grown = type(model)(config)
    grown.load_state_dict(grown.state_dict() | model.state_dict())
    return grown


def _embedded(name: str, old: Tensor, fresh: Tensor) -> Tensor:
    """The old values among the fresh ones of a wider tensor."""
    if old.shape == fresh.shape:
        return old
    filled = fresh.clone()
    if name.endswith((".bias", "gate_param")):
        filled[tuple(slice(size) for size in old.shape)] = old
        return filled
    inputs = torch.arange(old.shape[1])
    if name.endswith(".enc.c1.weight"):  # its input is the state beside the HR activation
        half = old.shape[1] // 2
        inputs[half:] += fresh.shape[1] // 2 - half
    filled[: len(old)] = 0
    filled[: len(old), inputs] = old
    return filled
