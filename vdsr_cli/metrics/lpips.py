"""LPIPS v0.1 (Zhang et al. 2018): the weighted distance of two pictures' deep features.

picture ─► shift, scale ─► backbone ─► taps ─► unit length per position ─┐
                                                                         ├─► squared difference
other   ─► ...                                                          ─┘   ─► head ─► mean, sum
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.errors import WeightsError

Features = list[Tensor]
"""One unit-length map (1, C, h, w) a tap."""


class Fire(nn.Module):
    """SqueezeNet's block: 1x1 to fewer channels, then 1x1 and 3x3 side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


def _alexnet() -> nn.Sequential:
    """The convolutions of AlexNet, numbered as torchvision numbers them."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def _squeezenet() -> nn.Sequential:
    """The blocks of SqueezeNet 1.1, numbered as torchvision numbers them."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    )


@dataclass(frozen=True, slots=True)
class _Backbone:
    """Which modules' outputs are compared."""

    taps: tuple[int, ...]
    widths: tuple[int, ...]


_BACKBONES: Final[Mapping[str, _Backbone]] = {
    "alex": _Backbone((1, 4, 7, 9, 11), (64, 192, 384, 256, 256)),
    "squeeze": _Backbone((1, 4, 7, 9, 10, 11, 12), (64, 128, 256, 384, 384, 512, 512)),
}
_BUILDERS: Final = {"alex": _alexnet, "squeeze": _squeezenet}


class LPIPS(nn.Module):
    """LPIPS v0.1: a distance, 0 for equal pictures. Sides of 32 pixels or more.

    Args:
        weights: safetensors with ``features.N.*`` as torchvision numbers the backbone and the
            heads ``linK.model.1.weight``.
        net: "alex" or "squeeze".

    Raises:
        WeightsError: a file that holds something else.
    """

    def __init__(self, weights: Path, net: str = "alex") -> None:
        super().__init__()
        self.taps = _BACKBONES[net].taps
        self.backbone = _BUILDERS[net]()
        self.heads = nn.ModuleList(nn.Conv2d(w, 1, 1, bias=False) for w in _BACKBONES[net].widths)
        self.shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
        self.spread = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
        self._load(weights)
        self.eval().requires_grad_(False)

    def _load(self, weights: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state = load_file(weights)
            self.backbone.load_state_dict(_under(state, "features."))
            for index, head in enumerate(self.heads):
                head.load_state_dict(_under(state, f"lin{index}.model.1."))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise WeightsError(f"{weights}: not LPIPS weights ({reason})") from error

    @torch.inference_mode()
    def features(self, pixels: Tensor) -> Features:
        """What is compared of a uint8 (3, H, W) picture, to be used several times."""
        x = ((pixels.float() / 127.5 - 1 - self.shift) / self.spread).unsqueeze(0)
        features = []
        for index, module in enumerate(self.backbone):
            x = module(x)
            if index in self.taps:
                features.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return features

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


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return {k: v.float() for k, v in found.items()}
