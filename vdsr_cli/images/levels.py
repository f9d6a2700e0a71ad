"""Pictures as 8-bit levels (..., 3, H, W): the one place that rounds to them, and Pillow's view."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_levels(unit: Tensor) -> Tensor:
    """Float (..., 3, H, W) in any range around [0, 1] -> uint8, clamped and rounded once."""
    return unit.clamp(0, 1).mul(255).round().to(torch.uint8)


def to_pillow(levels: Tensor) -> Image.Image:
    """uint8 (3, H, W) -> Pillow."""
    return Image.fromarray(np.ascontiguousarray(levels.permute(1, 2, 0).numpy()))


def from_pillow(image: Image.Image) -> Tensor:
    """Pillow RGB -> uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
