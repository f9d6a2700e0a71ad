"""The convolutional networks whose features metrics compare, and how their weights are read.

Each is the part of a torchvision network that comes before its classifier, with modules numbered
as torchvision numbers them, so that the published weights fit under ``features.``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.errors import WeightsError

FEATURES: Final = "features."
"""The beginning of the published names of a backbone's weights."""

VGG16_WIDTHS: Final = (64, 128, 256, 512, 512)
"""Channels of its five stages."""

_VGG16_CONVOLUTIONS: Final = (2, 2, 3, 3, 3)


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


def alexnet() -> nn.Sequential:
    """AlexNet up to its last ReLU."""
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


def squeezenet() -> nn.Sequential:
    """SqueezeNet 1.1."""
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


def vgg16(pool: Callable[[int], nn.Module] = lambda channels: nn.MaxPool2d(2)) -> nn.Sequential:
    """VGG16 up to its last ReLU; ``pool(channels)`` makes what halves the sides between stages."""
    modules: list[nn.Module] = []
    channels = 3
    for width, count in zip(VGG16_WIDTHS, _VGG16_CONVOLUTIONS, strict=True):
        if modules:
            modules.append(pool(channels))
        for _ in range(count):
            modules += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*modules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A network, the modules whose outputs are compared, and the channels of these."""

    build: Callable[[], nn.Sequential]
    taps: tuple[int, ...]
    widths: tuple[int, ...]


BACKBONES: Final[Mapping[str, Backbone]] = {
    "alex": Backbone(build=alexnet, taps=(1, 4, 7, 9, 11), widths=(64, 192, 384, 256, 256)),
    "squeeze": Backbone(
        build=squeezenet,
        taps=(1, 4, 7, 9, 10, 11, 12),
        widths=(64, 128, 256, 384, 384, 512, 512),
    ),
    "vgg": Backbone(build=vgg16, taps=(3, 8, 15, 22, 29), widths=VGG16_WIDTHS),
}
"""By the names that LPIPS gives them."""


def tapped(network: nn.Sequential, taps: Sequence[int], x: Tensor) -> list[Tensor]:
    """The outputs of some modules of a network, in their order."""
    found = []
    for index, module in enumerate(network):
        x = module(x)
        if index in taps:
            found.append(x)
    return found


def read_state(metric: str, paths: Sequence[Path]) -> dict[str, Tensor]:
    """Every tensor of some safetensors files, as float32.

    Raises:
        WeightsError: a file that is missing or damaged; ``metric`` is what it should be of.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    for path in paths:
        try:
            state |= {name: tensor.float() for name, tensor in load_file(path).items()}
        except (OSError, SafetensorError) as error:
            raise not_weights(metric, paths, error) from error
    return state


def not_weights(metric: str, paths: Sequence[Path], error: Exception) -> WeightsError:
    """The error for files that hold something else than a metric's weights."""
    names = ", ".join(map(str, paths))
    return WeightsError(f"{names}: not {metric} weights ({str(error).splitlines()[0]})")


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
