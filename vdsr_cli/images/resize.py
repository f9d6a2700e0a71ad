"""8-bit pictures (3, H, W) of another size, by the filters that benchmarks and papers name."""

from typing import Literal

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vdsr_cli.images.levels import from_pillow, to_levels, to_pillow

_PAD_LR = 4
"""LR pixels that bicubic enlargement looks beyond an edge."""


def bicubic(lr: Tensor, scale: int) -> Tensor:
    """MATLAB-like enlargement (a = -0.5, edge pixels repeated): uint8 (3, h, w) -> (3, H, W)."""
    padded = F.pad(lr.double().unsqueeze(0), (_PAD_LR,) * 4, mode="replicate")
    wide = F.interpolate(
        padded, scale_factor=scale, mode="bicubic", antialias=True, align_corners=False
    )
    edge = _PAD_LR * scale
    return to_levels(wide[0, :, edge:-edge, edge:-edge] / 255)


def pillow_resized(
    levels: Tensor, size: tuple[int, int], filter: Literal["bicubic", "bilinear", "lanczos"]
) -> Tensor:
    """By one of Pillow's filters to (height, width), which the papers' tables use."""
    return from_pillow(to_pillow(levels).resize(size[::-1], Image.Resampling[filter.upper()]))


def resized_crop(levels: Tensor, side: int) -> Tensor:
    """The shorter side resized to ``side`` by Pillow's bilinear filter, then the centre square.

    uint8 (3, H, W) -> (3, side, side), as torchvision's Resize and CenterCrop do it.
    """
    height, width = levels.shape[1:]
    shorter = min(height, width)
    size = (int(side * height / shorter), int(side * width / shorter))
    top, left = (round((length - side) / 2) for length in size)
    resized = pillow_resized(levels, size, "bilinear")
    return resized[:, top : top + side, left : left + side].contiguous()
