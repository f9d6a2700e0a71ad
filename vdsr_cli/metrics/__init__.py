"""Scores of a super-resolved picture, by the field's conventions.

    fidelity.py      PSNR and SSIM against the HR picture, LR-PSNR against the input
    lpips.py         LPIPS, a distance of deep features
    naturalness.py   BRISQUE and NIQE, which look at no ground truth
    diversity.py     how far apart the samples of one picture are

Pictures are uint8 (3, H, W), RGB; scores are plain floats. Nothing here knows a path but the
constructors that load weights.
"""

from vdsr_cli.metrics.diversity import average_pairwise, mse_unit, ntire_diversity
from vdsr_cli.metrics.fidelity import lr_psnr, luma, psnr_rgb, psnr_y, ssim_rgb, ssim_y
from vdsr_cli.metrics.lpips import LPIPS
from vdsr_cli.metrics.naturalness import Brisque, Niqe

__all__ = [
    "LPIPS",
    "Brisque",
    "Niqe",
    "average_pairwise",
    "lr_psnr",
    "luma",
    "mse_unit",
    "ntire_diversity",
    "psnr_rgb",
    "psnr_y",
    "ssim_rgb",
    "ssim_y",
]
