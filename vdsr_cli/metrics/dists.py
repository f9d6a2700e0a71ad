"""DISTS (Ding et al. 2020): structure and texture of two pictures' VGG16 features.

picture ─► VGG16 with L2 pooling ─► the picture and five taps ─► means, variances ─┐
                                                                                   ├─► distance
other   ─► ...                                                       covariances ─┘

Texture compares the channels' global means (weights alpha), structure their covariances (beta):

    1 - sum over channels of  alpha (2 m n + c) / (m^2 + n^2 + c) + beta (2 cov + c) / (v + w + c)
"""

from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.metrics.backbones import (
    BACKBONES,
    FEATURES,
    VGG16_WIDTHS,
    not_weights,
    read_state,
    tapped,
    under,
    vgg16,
)

DistsFeatures = list[Tensor]
"""The picture and five maps of features, (1, C, h, w) each."""

_TINY: Final = 1e-6


class L2Pooling(nn.Module):
    """The square root of 3x3 Hann-weighted mean squares, at every second position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor([0.25, 0.5, 0.25])
        self.kernel = torch.outer(taps, taps).expand(channels, 1, 3, 3).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.conv2d(x.square(), self.kernel, stride=2, padding=1, groups=len(self.kernel))
        return (pooled + 1e-12).sqrt()


class DISTS(nn.Module):
    """DISTS: a distance, 0 for equal pictures. The whole picture at its own size.

    Args:
        weights: safetensors, one or several, with ``features.N.*`` of torchvision's VGG16 and the
            authors' ``alpha`` and ``beta``, (1, 1475, 1, 1).

    Raises:
        WeightsError: files that hold something else.
    """

    def __init__(self, *weights: Path) -> None:
        super().__init__()
        self.backbone = vgg16(L2Pooling)
        self.mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        self.spread = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        self.widths = (3, *VGG16_WIDTHS)
        state = read_state("DISTS", weights)
        try:
            self.backbone.load_state_dict(under(state, FEATURES))
            alpha, beta = (state[name].view(sum(self.widths)) for name in ("alpha", "beta"))
        except (KeyError, RuntimeError) as error:
            raise not_weights("DISTS", weights, error) from error
        total = alpha.sum() + beta.sum()
        self.texture = torch.split_with_sizes(alpha / total, self.widths)
        self.structure = torch.split_with_sizes(beta / total, self.widths)
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def features(self, pixels: Tensor) -> DistsFeatures:
        """The features that are compared of a uint8 (3, H, W) picture, to be used several times."""
        unit = (pixels.float() / 255).unsqueeze(0)
        standardised = (unit - self.mean) / self.spread
        return [unit, *tapped(self.backbone, BACKBONES["vgg"].taps, standardised)]

    @torch.inference_mode()
    def distance(self, one: DistsFeatures, other: DistsFeatures) -> float:
        """Distance of two pictures' features."""
        likeness = 0.0
        weights = zip(self.texture, self.structure, strict=True)
        for (alpha, beta), a, b in zip(weights, one, other, strict=True):
            a, b = a[0].flatten(1), b[0].flatten(1)
            mean_a, mean_b = a.mean(1), b.mean(1)
            var_a, var_b = a.var(1, correction=0), b.var(1, correction=0)
            covariance = (a * b).mean(1) - mean_a * mean_b
            texture = (2 * mean_a * mean_b + _TINY) / (mean_a**2 + mean_b**2 + _TINY)
            structure = (2 * covariance + _TINY) / (var_a + var_b + _TINY)
            likeness += float(alpha @ texture + beta @ structure)
        return 1 - likeness

    def forward(self, sr: Tensor, hr: Tensor) -> float:
        """Distance of two uint8 (3, H, W) pictures."""
        return self.distance(self.features(sr), self.features(hr))
