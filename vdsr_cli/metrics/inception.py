"""The Inception v3 that the Fréchet distance is defined by.

It is TensorFlow's network of December 2015 as pytorch-fid has converted it, not torchvision's:
average pooling leaves the padding out of its mean, and the last block pools by maximum. Modules are
named as in the published file.

picture ─► 299x299 ─► stem ─► 3 x Wide ─► halve ─► 4 x Crossed ─► halve ─► 2 x Split ─► mean: 2048
"""

from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.metrics.backbones import not_weights, read_state

_SIDE_PX: Final = 299
_average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
_halve = partial(F.max_pool2d, kernel_size=3, stride=2)


class Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU; ``padded`` keeps the sides."""

    def __init__(
        self,
        channels: int,
        width: int,
        *kernel: int,
        stride: int = 1,
        padded: bool = True,
    ) -> None:
        super().__init__()
        height, wide = kernel if len(kernel) == 2 else kernel * 2
        padding = (height // 2, wide // 2) if padded else 0
        self.conv = nn.Conv2d(channels, width, (height, wide), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Wide(nn.Module):
    """1x1, 5x5, two 3x3 and a mean, side by side: C -> 224 + ``pooled`` channels."""

    def __init__(self, channels: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(channels, 64, 1)
        self.branch5x5_1 = Convolution(channels, 48, 1)
        self.branch5x5_2 = Convolution(48, 64, 5)
        self.branch3x3dbl_1 = Convolution(channels, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3)
        self.branch3x3dbl_3 = Convolution(96, 96, 3)
        self.branch_pool = Convolution(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_average(x))], 1)


class WideHalving(nn.Module):
    """Half the sides: 288 -> 768 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = Convolution(288, 384, 3, stride=2, padded=False)
        self.branch3x3dbl_1 = Convolution(288, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, stride=2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, _halve(x)], 1)


class Crossed(nn.Module):
    """1x1, 7x7 and two 7x7 as rows and columns, and a mean: 768 -> 768 channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(768, 192, 1)
        self.branch7x7_1 = Convolution(768, width, 1)
        self.branch7x7_2 = Convolution(width, width, 1, 7)
        self.branch7x7_3 = Convolution(width, 192, 7, 1)
        self.branch7x7dbl_1 = Convolution(768, width, 1)
        self.branch7x7dbl_2 = Convolution(width, width, 7, 1)
        self.branch7x7dbl_3 = Convolution(width, width, 1, 7)
        self.branch7x7dbl_4 = Convolution(width, width, 7, 1)
        self.branch7x7dbl_5 = Convolution(width, 192, 1, 7)
        self.branch_pool = Convolution(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_average(x))], 1)


class CrossedHalving(nn.Module):
    """Half the sides: 768 -> 1280 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = Convolution(768, 192, 1)
        self.branch3x3_2 = Convolution(192, 320, 3, stride=2, padded=False)
        self.branch7x7x3_1 = Convolution(768, 192, 1)
        self.branch7x7x3_2 = Convolution(192, 192, 1, 7)
        self.branch7x7x3_3 = Convolution(192, 192, 7, 1)
        self.branch7x7x3_4 = Convolution(192, 192, 3, stride=2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        three = self.branch3x3_2(self.branch3x3_1(x))
        return torch.cat([three, self.branch7x7x3_4(seven), _halve(x)], 1)


class Split(nn.Module):
    """1x1, 3x3 and two 3x3 that end as a row beside a column, and a pool: C -> 2048 channels."""

    def __init__(self, channels: int, *, is_last: bool = False) -> None:
        super().__init__()
        self.pool = _maximum if is_last else _average
        self.branch1x1 = Convolution(channels, 320, 1)
        self.branch3x3_1 = Convolution(channels, 384, 1)
        self.branch3x3_2a = Convolution(384, 384, 1, 3)
        self.branch3x3_2b = Convolution(384, 384, 3, 1)
        self.branch3x3dbl_1 = Convolution(channels, 448, 1)
        self.branch3x3dbl_2 = Convolution(448, 384, 3)
        self.branch3x3dbl_3a = Convolution(384, 384, 1, 3)
        self.branch3x3dbl_3b = Convolution(384, 384, 3, 1)
        self.branch_pool = Convolution(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [
            self.branch1x1(x),
            self.branch3x3_2a(three),
            self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(self.pool(x)),
        ]
        return torch.cat(parts, 1)


def fid_inception() -> nn.Sequential:
    """The network: (B, 3, 299, 299) in [-1, 1] -> (B, 2048, 8, 8)."""
    modules = {
        "Conv2d_1a_3x3": Convolution(3, 32, 3, stride=2, padded=False),
        "Conv2d_2a_3x3": Convolution(32, 32, 3, padded=False),
        "Conv2d_2b_3x3": Convolution(32, 64, 3),
        "pool1": nn.MaxPool2d(3, 2),
        "Conv2d_3b_1x1": Convolution(64, 80, 1),
        "Conv2d_4a_3x3": Convolution(80, 192, 3, padded=False),
        "pool2": nn.MaxPool2d(3, 2),
        "Mixed_5b": Wide(192, 32),
        "Mixed_5c": Wide(256, 64),
        "Mixed_5d": Wide(288, 64),
        "Mixed_6a": WideHalving(),
        "Mixed_6b": Crossed(128),
        "Mixed_6c": Crossed(160),
        "Mixed_6d": Crossed(160),
        "Mixed_6e": Crossed(192),
        "Mixed_7a": CrossedHalving(),
        "Mixed_7b": Split(1280),
        "Mixed_7c": Split(2048, is_last=True),
    }
    return nn.Sequential(OrderedDict(modules))


class InceptionFeatures:
    """The features that the Fréchet distance is taken of: 2048 numbers a picture.

    Args:
        weights: safetensors with pytorch-fid's names; the classifier ``fc`` is not looked at.

    Raises:
        WeightsError: a file that holds something else.
    """

    def __init__(self, weights: Path) -> None:
        state = read_state("Inception", [weights])
        self.network = fid_inception()
        try:
            kept = {name: value for name, value in state.items() if not name.startswith("fc.")}
            self.network.load_state_dict(kept)
        except RuntimeError as error:
            raise not_weights("Inception", [weights], error) from error
        self.network.eval().requires_grad_(False)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """A uint8 (3, H, W) picture, resized to 299x299 as pytorch-fid does -> (2048,) float64."""
        unit = (pixels.float() / 255).unsqueeze(0)
        resized = F.interpolate(unit, (_SIDE_PX, _SIDE_PX), mode="bilinear", align_corners=False)
        features: Tensor = self.network(2 * resized - 1)[0].mean((1, 2)).double()
        return features
