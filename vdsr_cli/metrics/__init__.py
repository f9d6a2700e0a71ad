"""Scores of a super-resolved picture, by the field's conventions.

    fidelity.py      PSNR and SSIM against the HR picture, LR-PSNR against the input
    lpips.py         LPIPS, a distance of deep features
    dists.py         DISTS, which forgives other grains of the same texture
    naturalness.py   BRISQUE and NIQE, which look at no ground truth
    diversity.py     how far apart the samples of one picture are
    fid.py           how far apart two sets of pictures are, by inception.py's features
    backbones.py     the networks below LPIPS and DISTS

Pictures are uint8 (3, H, W), RGB; scores are plain floats. Nothing here knows a path but the
constructors that load weights.
"""

from vdsr_cli.metrics.dists import DISTS
from vdsr_cli.metrics.diversity import (
    average_pairwise,
    mse_unit,
    ntire_diversity,
    pairwise_rms,
)
from vdsr_cli.metrics.fid import FEWEST_PICTURES, frechet_distance
from vdsr_cli.metrics.fidelity import (
    SSIM_WINDOW,
    lr_psnr,
    luma,
    mean_psnr,
    pooled_psnr,
    psnr_rgb,
    psnr_y,
    ssim_rgb,
    ssim_y,
)
from vdsr_cli.metrics.inception import InceptionFeatures
from vdsr_cli.metrics.lpips import LPIPS
from vdsr_cli.metrics.naturalness import Brisque, Niqe

__all__ = [
    "DISTS",
    "FEWEST_PICTURES",
    "LPIPS",
    "SSIM_WINDOW",
    "Brisque",
    "InceptionFeatures",
    "Niqe",
    "average_pairwise",
    "frechet_distance",
    "lr_psnr",
    "luma",
    "mean_psnr",
    "mse_unit",
    "ntire_diversity",
    "pairwise_rms",
    "pooled_psnr",
    "psnr_rgb",
    "psnr_y",
    "ssim_rgb",
    "ssim_y",
]
