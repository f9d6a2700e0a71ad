"""Scores of a super-resolved picture, by the field's conventions.

Pictures are uint8 (3, H, W), RGB; scores are computed in float64. "Y" is BT.601 luma in studio
range, not rounded; ``shave`` pixels are left out at each border.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.consistency import degrade_8bit
from vdsr_cli.errors import WeightsError


def luma(pixels: Tensor) -> Tensor:
    """Y = 16 + 65.481 R + 128.553 G + 24.966 B with RGB in 0..1: uint8 (3, H, W) -> float64 (H, W)."""
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64)
    return 16 + torch.tensordot(weights, pixels.double() / 255, dims=1)


def _shaved(plane: Tensor, shave: int) -> Tensor:
    return plane[..., shave : plane.shape[-2] - shave, shave : plane.shape[-1] - shave]


def _psnr(a: Tensor, b: Tensor) -> float:
    mse = (a.double() - b.double()).square().mean().item()
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def psnr_y(sr: Tensor, hr: Tensor, *, shave: int) -> float:
    """PSNR of the luma in dB, peak 255; infinite for equal pictures."""
    return _psnr(_shaved(luma(sr), shave), _shaved(luma(hr), shave))


def psnr_rgb(sr: Tensor, hr: Tensor, *, shave: int) -> float:
    """PSNR over the three channels in dB, peak 255."""
    return _psnr(_shaved(sr, shave), _shaved(hr, shave))


def lr_psnr(sr: Tensor, lr: Tensor, scale: int) -> float:
    """PSNR in dB, RGB, of the picture degraded again to 8 bits against the LR input, uint8."""
    return _psnr(degrade_8bit(sr.unsqueeze(0), scale)[0], lr)


def ssim_y(sr: Tensor, hr: Tensor, *, shave: int) -> float:
    """SSIM of the luma (Wang et al. 2004): 11x11 Gaussian of sigma 1.5, valid positions only,
    K = 0.01 and 0.03, L = 255."""
    a, b = _shaved(luma(sr), shave), _shaved(luma(hr), shave)
    position = torch.arange(11, dtype=torch.float64) - 5
    taps = torch.exp(-(position**2) / (2 * 1.5**2))
    taps = taps / taps.sum()
    maps = torch.stack([a, b, a * a, b * b, a * b]).unsqueeze(1)
    maps = F.conv2d(F.conv2d(maps, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))
    mean_a, mean_b, aa, bb, ab = maps[:, 0]
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * (ab - mean_a * mean_b) + c2)
    similarity /= (mean_a**2 + mean_b**2 + c1) * (aa - mean_a**2 + bb - mean_b**2 + c2)
    return similarity.mean().item()


class LPIPS(nn.Module):
    """LPIPS v0.1 with AlexNet features (Zhang et al. 2018): a distance, 0 for equal pictures.

    Args:
        weights: safetensors with ``features.N.*`` as torchvision numbers AlexNet and the five
            heads ``linK.model.1.weight``.
    """

    _LAYERS = ((0, 64, 11, 4, 2), (3, 192, 5, 1, 2), (6, 384, 3, 1, 1), (8, 256, 3, 1, 1), (10, 256, 3, 1, 1))
    _POOL_BEFORE = frozenset({3, 6})

    def __init__(self, weights: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        super().__init__()
        try:
            state = load_file(weights)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{weights}: not LPIPS weights ({error})") from error
        self.convs, self.heads = nn.ModuleDict(), nn.ParameterList()
        channels = 3
        for k, (index, width, kernel, stride, pad) in enumerate(self._LAYERS):
            conv = nn.Conv2d(channels, width, kernel, stride=stride, padding=pad)
            conv.load_state_dict({n: state[f"features.{index}.{n}"] for n in ("weight", "bias")})
            self.convs[str(index)] = conv
            self.heads.append(nn.Parameter(state[f"lin{k}.model.1.weight"]))
            channels = width
        self.requires_grad_(False)

    def _features(self, pixels: Tensor) -> list[Tensor]:
        shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
        scale = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
        x = ((pixels.float() / 127.5 - 1 - shift) / scale).unsqueeze(0)
        features = []
        for index, conv in self.convs.items():
            if int(index) in self._POOL_BEFORE:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(conv(x))
            features.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return features

    @torch.inference_mode()
    def forward(self, sr: Tensor, hr: Tensor) -> float:
        """Distance of two uint8 (3, H, W) pictures, whole, no shave."""
        distance = 0.0
        for a, b, head in zip(self._features(sr), self._features(hr), self.heads, strict=True):
            distance += F.conv2d((a - b).square(), head).mean().item()
        return distance
