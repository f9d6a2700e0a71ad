"""Shared by tests beside fixtures: a runtime, models as the loader gives them, a picture."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vdsr_cli.loading import Loaded
from vdsr_cli.runtime import Runtime

CPU = Runtime(device=torch.device("cpu"), dtype=torch.float32)


def loaded_as(name: str, model: Any, **card: Any) -> Loaded:
    """A model under a name, of no row of weights.toml."""
    return Loaded(name=name, model=model, record=None, card=card, parameters=1)


def smooth(height: int = 40, width: int = 52, *, seed: int = 0) -> Tensor:
    """A smooth random picture (3, h, w) in [0, 1]."""
    rough = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(rough, size=(height, width), mode="bicubic")[0].clamp(0, 1)
