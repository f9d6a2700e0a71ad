"""Pictures as whole levels (..., H, W): the one place that rounds to them, and Pillow's view."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def round_levels(pixels: Tensor, *, full: int = 255, cell: int = 1) -> Tensor:
    """Rounds to the levels 0..full, halves to even; in cells so that their errors cancel.

    With ``cell`` above 1, each pixel's error is handed on to the next one of its ``cell`` x
    ``cell`` pixels, row by row there and back. Plain rounding caps the LR-PSNR of a picture that
    degrades to its input at 72.3 dB (scale 4, 8 bits); by cells of the scale it is about 80 dB, at
    most one level away from the value itself. Cells do not see each other, so any strips of whole
    cells give the whole picture's result.

    Args:
        pixels: (..., H, W) in any range, clamped to [0, 1].
        full: the level that stands for 1.
        cell: side of a cell; H and W are multiples of it.

    Returns:
        (..., H, W): whole numbers from 0 to ``full``, in the dtype of the pixels.
    """
    levels = pixels.clamp(0, 1).mul_(full)
    if cell == 1:
        return levels.round_()
    height, width = pixels.shape[-2:]
    cells = levels.view(*pixels.shape[:-2], height // cell, cell, width // cell, cell)
    error = torch.zeros_like(cells[..., 0, :, 0])
    for row in range(cell):
        for column in range(cell) if row % 2 == 0 else reversed(range(cell)):
            error += cells[..., row, :, column]
            # Half a level above the last would be the next, were it even.
            rounded = error.round().clamp_(max=full)
            error -= rounded
            cells[..., row, :, column] = rounded
    return levels


def to_levels(unit: Tensor) -> Tensor:
    """Float (..., 3, H, W) in any range around [0, 1] -> uint8, clamped and rounded once."""
    return round_levels(unit).to(torch.uint8)


def to_pillow(levels: Tensor) -> Image.Image:
    """uint8 (3, H, W) -> Pillow."""
    return Image.fromarray(np.ascontiguousarray(levels.permute(1, 2, 0).numpy()))


def from_pillow(image: Image.Image) -> Tensor:
    """Pillow RGB -> uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
