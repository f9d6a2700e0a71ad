"""Layers of srVAE (Gatopoulos 2020, figure 4): weight-normed convolutions, DenseNets, attention.

Module names are those of the published state dicts (``core_nn``, ``dense_block``, ``ca_block``,
``conv``). The convolutions are linear: the only activation is the ELU over each concatenation, so
early features of a dense layer pass it several times. All tensors are (B, C, H, W).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.models.srvae_config import DenseSpec

ATTENTION_REDUCTION = 8
BOTTLENECK = 4
"""A dense block's 1x1 convolution gives so many times its growth."""


class NormedWeights(nn.Module):
    """Direction v, length g and bias of a convolution (Salimans and Kingma 2016): w = g v / |v|.

    ``shape`` is the weight's, whose output channels lie along ``axis``.
    """

    def __init__(self, shape: tuple[int, int, int, int], axis: int) -> None:
        super().__init__()
        self.axes = tuple(other for other in range(4) if other != axis)
        self.bias = nn.Parameter(torch.zeros(shape[axis]))
        ones = [size if other == axis else 1 for other, size in enumerate(shape)]
        self.weight_g = nn.Parameter(torch.ones(ones))
        self.weight_v = nn.Parameter(torch.randn(shape) * 0.05)

    def forward(self) -> Tensor:
        """The weight."""
        length = torch.linalg.vector_norm(self.weight_v, dim=self.axes, keepdim=True)
        weight: Tensor = self.weight_v * (self.weight_g / length)
        return weight


class NormedConv(nn.Module):
    """A weight-normed convolution, with data-dependent initialisation on request.

    Args:
        inputs, outputs: channels.
        kernel: side; padded by half of it.
        stride: 2 to halve the picture.
        transposed: doubles the picture instead.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, transposed: bool = False
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.transposed = stride, kernel // 2, transposed
        channels = (inputs, outputs) if transposed else (outputs, inputs)
        self.conv = NormedWeights((*channels, kernel, kernel), axis=1 if transposed else 0)
        self.first_deviation: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.first_deviation is not None:
            self._initialise(x, self.first_deviation)
        return self._convolve(x)

    def _convolve(self, x: Tensor) -> Tensor:
        weight, bias = self.conv(), self.conv.bias
        if self.transposed:
            return F.conv_transpose2d(
                x, weight, bias, stride=2, padding=self.padding, output_padding=1
            )
        return F.conv2d(x, weight, bias, stride=self.stride, padding=self.padding)

    @torch.no_grad()
    def _initialise(self, x: Tensor, deviation: float) -> None:
        """Makes the output on this batch have mean 0 and ``deviation`` in every channel."""
        weights = self.conv
        weights.weight_g.fill_(1.0)
        weights.bias.zero_()
        variance, mean = torch.var_mean(self._convolve(x).float(), dim=(0, 2, 3))
        scale = deviation / torch.sqrt(variance + 1e-8)
        weights.weight_g.mul_(scale.view_as(weights.weight_g))
        weights.bias.sub_(mean * scale)


@contextmanager
def data_dependent_initialisation(model: nn.Module, deviation: float) -> Iterator[None]:
    """Within it every forward pass initialises the weight-normed convolutions that it meets.

    The published code does so at the first pass after construction, also where weights were loaded
    in between; here it is asked for, and loading needs no pass. The batch must hold two pictures
    or more: channel attention works on 1x1 maps, whose variance one picture does not have.
    """
    convolutions = [module for module in model.modules() if isinstance(module, NormedConv)]
    for convolution in convolutions:
        convolution.first_deviation = deviation
    try:
        yield
    finally:
        for convolution in convolutions:
            convolution.first_deviation = None


class DenseBlock(nn.Module):
    """C channels -> C + growth: the input and what a bottleneck makes of it."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.dense_block = nn.Sequential(
            NormedConv(channels, BOTTLENECK * growth, 1), NormedConv(BOTTLENECK * growth, growth, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        added = self.dense_block(x)
        return torch.cat([x.to(added.dtype), added], dim=1)


class ChannelAttention(nn.Module):
    """Scales each channel by a gate that looks at the mean of all (Zhang et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = max(1, channels // ATTENTION_REDUCTION)
        self.ca_block = nn.Sequential(
            NormedConv(channels, reduced, 1), NormedConv(reduced, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.ca_block(x.mean(dim=(2, 3), keepdim=True)))


class Core(nn.Module):
    """A network under its published name."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.core_nn = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.core_nn(x)
        return y


class DenseLayer(Core):
    """C channels -> C + steps * growth: blocks, an ELU after each, and channel attention."""

    def __init__(self, channels: int, growth: int, steps: int) -> None:
        parts: list[nn.Module] = []
        for step in range(steps):
            parts += [DenseBlock(channels + step * growth, growth), nn.ELU()]
        outputs = channels + steps * growth
        super().__init__(*parts, ChannelAttention(outputs))
        self.outputs = outputs


class Resample(Core):
    """Half the size and twice the channels, or the reverse."""

    def __init__(self, channels: int, *, up: bool) -> None:
        outputs, stride = (channels // 2, 1) if up else (2 * channels, 2)
        super().__init__(NormedConv(channels, outputs, 3, stride=stride, transposed=up))
        self.outputs = outputs


def dense_encoder(inputs: int, outputs: int, spec: DenseSpec) -> Core:
    """(B, inputs, H, W) -> (B, outputs, H / 2^depth, W / 2^depth); the growth doubles."""
    parts, channels, growth = _dense_layers(inputs, spec, up=False)
    last = DenseLayer(channels, growth, spec.steps)
    return Core(*parts, last, NormedConv(last.outputs, outputs, 1))


def dense_decoder(inputs: int, outputs: int, spec: DenseSpec) -> Core:
    """(B, inputs, h, w) -> (B, outputs, h 2^depth, w 2^depth); the growth halves."""
    parts, channels, _ = _dense_layers(inputs, spec, up=True)
    return Core(*parts, NormedConv(channels, outputs, 3))


def dense_network(inputs: int, outputs: int, spec: DenseSpec) -> Core:
    """(B, inputs, H, W) -> (B, outputs, H, W)."""
    parts, channels, _ = _dense_layers(inputs, spec)
    return Core(*parts, NormedConv(channels, outputs, 1))


def _dense_layers(
    channels: int, spec: DenseSpec, *, up: bool | None = None
) -> tuple[list[nn.Module], int, int]:
    """Dense layers, with resampling behind each unless ``up`` is None; their output channels, and
    the growth of the layer that would follow."""
    parts: list[nn.Module] = []
    growth = spec.growth
    for _ in range(spec.depth):
        layer: DenseLayer | Resample = DenseLayer(channels, growth, spec.steps)
        parts.append(layer)
        if up is not None:
            layer = Resample(layer.outputs, up=up)
            parts.append(layer)
            growth = growth // 2 if up else 2 * growth
        channels = layer.outputs
    return parts, channels, growth
