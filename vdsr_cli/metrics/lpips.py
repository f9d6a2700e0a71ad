"""LPIPS v0.1 (Zhang et al. 2018): the weighted distance of two pictures' deep features.

picture ─► shift, scale ─► backbone ─► taps ─► unit length per position ─┐
                                                                         ├─► squared difference
other   ─► ...                                                          ─┘   ─► head ─► mean, sum
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.metrics.backbones import BACKBONES, FEATURES, not_weights, read_state, tapped, under

Features = list[Tensor]
"""One unit-length map (B, C, h, w) a tap."""


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
        return self.maps((pixels.float() / 127.5 - 1).unsqueeze(0))

    def maps(self, pictures: Tensor) -> Features:
        """The maps that are compared of pictures (B, 3, H, W) in [-1, 1]; differentiable."""
        x = (pictures - self.shift.to(pictures)) / self.spread.to(pictures)
        x = x.contiguous(memory_format=torch.channels_last)
        taps = [tap.float() for tap in tapped(self.backbone, self.taps, x)]
        # The norm's gradient at 0 is 0, that of a square root is not a number.
        norms = (torch.linalg.vector_norm(tap, dim=1, keepdim=True) for tap in taps)
        return [tap / (norm + 1e-10) for tap, norm in zip(taps, norms, strict=True)]

    def distances(self, one: Features, other: Features) -> Tensor:
        """(B,) distances of the pictures of two batches; differentiable."""
        return torch.stack([layer.mean(dim=(1, 2, 3)) for layer in self._layers(one, other)]).sum(0)

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
