"""LPIPS v0.1 (Zhang et al. 2018): the weighted distance of two pictures' deep features.

picture ─► shift, scale ─► backbone ─► taps ─► unit length per position ─┐
                                                                         ├─► squared difference
other   ─► ...                                                          ─┘   ─► head ─► mean, sum
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vdsr_cli.metrics.backbones import BACKBONES, FEATURES, not_weights, read_state, tapped, under

Features = list[Tensor]
"""One unit-length map (B, C, h, w) a tap."""
_CACHED = 1 << 16
"""Features that are compared at once on a CPU: so many stay in its cache."""


class LPIPS(nn.Module):
    """LPIPS v0.1: a distance, 0 for equal pictures. Sides of 32 pixels or more.

    Args:
        weights: safetensors, one or several, with ``features.N.*`` as torchvision numbers the
            backbone and the heads ``linK.model.1.weight``.
        net: "alex", "squeeze" or "vgg".

    Raises:
        WeightsError: files that hold something else.
    """

    def __init__(self, *weights: Path, net: str = "alex") -> None:
        super().__init__()
        self.net, backbone = net, BACKBONES[net]
        self.taps = backbone.taps
        self.backbone = backbone.build()
        self.heads = nn.ModuleList(nn.Conv2d(w, 1, 1, bias=False) for w in backbone.widths)
        self.shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
        self.spread = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
        state = read_state("LPIPS", weights)
        try:
            self.backbone.load_state_dict(under(state, FEATURES))
            for index, head in enumerate(self.heads):
                head.load_state_dict(under(state, f"lin{index}.model.1."))
        except RuntimeError as error:
            raise not_weights("LPIPS", weights, error) from error
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def features(self, pixels: Tensor) -> Features:
        """The features that are compared of a uint8 (3, H, W) picture, to be used several times."""
        maps = self.maps((pixels.float() / 127.5 - 1).unsqueeze(0))
        return [_unit_length(tap, dim=1)[0] for tap in maps]

    def maps(self, pictures: Tensor) -> list[Tensor]:
        """Each tap (B, C, h, w) of pictures (B, 3, H, W) in [-1, 1]; differentiable."""
        x = (pictures - self.shift.to(pictures)) / self.spread.to(pictures)
        x = x.contiguous(memory_format=torch.channels_last)
        return tapped(self.backbone, self.taps, x)

    def distances(self, one: list[Tensor], other: list[Tensor]) -> Tensor:
        """(B,) distances of the pictures of two batches, from their maps; differentiable."""
        taps = zip(one, other, self.heads.parameters(), strict=True)
        found = [_UnitDistance.apply(a, b, head.flatten()) for a, b, head in taps]  # type: ignore[no-untyped-call]
        return torch.stack(found).sum(0)

    @torch.inference_mode()
    def distance(self, one: Features, other: Features) -> float:
        """Distance of two pictures' features."""
        return sum(layer.mean().item() for layer in self._layers(one, other))

    @torch.inference_mode()
    def distance_map(self, one: Features, other: Features, size: tuple[int, int]) -> Tensor:
        """Where two pictures differ: (H, W) of ``size``, each layer enlarged bilinearly."""
        maps = [
            F.interpolate(layer, size=size, mode="bilinear", align_corners=False)
            for layer in self._layers(one, other)
        ]
        return torch.stack(maps).sum(0)[0, 0]

    def _layers(self, one: Features, other: Features) -> list[Tensor]:
        pairs = zip(self.heads, one, other, strict=True)
        return [head((a - b).square()) for head, a, b in pairs]

    def forward(self, sr: Tensor, hr: Tensor) -> float:
        """Distance of two uint8 (3, H, W) pictures, whole, no shave."""
        return self.distance(self.features(sr), self.features(hr))


def _unit_length(x: Tensor, *, dim: int) -> tuple[Tensor, Tensor]:
    """Vectors along an axis at unit length, 0 where they are 0, and how long they were."""
    x = x.float()
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True) + 1e-10
    return x / norm, norm


class _UnitDistance(torch.autograd.Function):
    """Weighted squared distance of features at unit length: two (B, C, h, w) and weights (C,) ->
    (B,), the mean over positions.

    The gradients are found on the way, of a few positions at a time, while these are in the cache:
    operation by operation the maps would pass through memory some thirty times.
    """

    @staticmethod
    def forward(ctx: Any, one: Tensor, other: Tensor, weights: Tensor) -> Tensor:
        rows = [x.permute(0, 2, 3, 1).flatten(0, 2) for x in (one, other)]
        slopes = [torch.empty_like(x) for x in rows]
        found = weights.new_empty(len(rows[0]))
        step = len(found) if one.is_cuda else max(1, _CACHED // len(weights))
        for part in (slice(at, at + step) for at in range(0, len(found), step)):
            (a, a_norm), (b, b_norm) = (_unit_length(x[part], dim=1) for x in rows)
            slope = 2 * weights * (a - b)
            found[part] = (slope * (a - b)).sum(1) / 2
            slopes[0][part] = _across(slope, a) / a_norm
            slopes[1][part] = _across(slope, b) / -b_norm
        ctx.save_for_backward(*slopes)
        ctx.shape = one.permute(0, 2, 3, 1).shape
        return found.view(len(one), -1).mean(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        batch, height, width, _ = ctx.shape
        weight = (gradient / (height * width)).view(batch, 1, 1, 1)
        found = [
            (slope.view(ctx.shape) * weight.to(slope.dtype)).permute(0, 3, 1, 2) if wanted else None
            for slope, wanted in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
        ]
        return (*found, None)


def _across(slope: Tensor, unit: Tensor) -> Tensor:
    """Slopes (N, C) without what lies along unit vectors, which are as long wherever they end."""
    return slope - unit * (slope * unit).sum(1, keepdim=True)
