"""JPEG's loss without its file: what encoding and decoding do to pixels, in batches on tensors.

    RGB ─► YCbCr ─► chroma halved ─► 8x8 DCT ─► round(coefficient / table) * table ─► ... ─► RGB

ITU T.81, with the quantisation tables of its annex K scaled by quality as the IJG's library does,
and 4:2:0 chroma. Entropy coding loses nothing and is left out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vdsr_cli.jpeg_tables import CHROMA, LUMA, dct_matrix

BLOCK = 16
"""Side of what is coded together: four 8x8 blocks of luma and one of each chroma."""

_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def jpeg(pictures: Tensor, quality: Tensor) -> Tensor:
    """Pictures as a JPEG file would give them back.

    Args:
        pictures: (B, 3, H, W) in [0, 1]; any size.
        quality: (B,) of 1 to 100, the scale of the IJG's library.

    Returns:
        (B, 3, H, W) in [0, 1], on the 256 grey levels.
    """
    height, width = pictures.shape[2:]
    padded = F.pad(pictures, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    levels = (padded * 255).round().clamp(0, 255)
    planes = torch.einsum("yc,bchw->byhw", levels.new_tensor(_TO_YCC), levels)
    luma = _through_blocks(planes[:, :1] - 128, quantisation_table(LUMA, quality)) + 128
    halved = F.avg_pool2d(planes[:, 1:], 2)
    chroma = _through_blocks(halved, quantisation_table(CHROMA, quality))
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    decoded = torch.einsum(
        "cy,byhw->bchw", levels.new_tensor(_TO_RGB), torch.cat([luma, chroma], dim=1)
    )
    return decoded[:, :, :height, :width].round().clamp(0, 255) / 255


def quantisation_table(base: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:
    """(B, 8, 8): the step of each DCT coefficient at each quality, 1 to 255."""
    quality = quality.float().clamp(1, 100).view(-1, 1, 1)
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    table = torch.tensor(base, dtype=torch.float32, device=quality.device)
    return ((table * percent + 50) / 100).floor().clamp(1, 255)


def _through_blocks(planes: Tensor, table: Tensor) -> Tensor:
    """Quantises the DCT coefficients of (B, C, H, W), sides multiples of 8."""
    transform = dct_matrix().to(planes)
    batch, channels, height, width = planes.shape
    blocks = planes.view(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = transform @ blocks @ transform.T
    steps = table.view(batch, 1, 1, 1, 8, 8)
    restored = transform.T @ ((coefficients / steps).round() * steps) @ transform
    return restored.transpose(3, 4).reshape(batch, channels, height, width)
