"""A convolution and what follows it in one pass over memory, where the processor's library can.

On the CPU a 3x3 convolution of 64 bfloat16 channels is so fast that what comes after it, a ReLU,
a GELU or an addition, costs a third as much again. oneDNN applies it while a result is still in the
cache; torch reaches it by the operators that its own compiler emits. Where they are missing, and
for training, the same arithmetic is done step by step.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HAS_POINTWISE = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_convolution_pointwise"
)


def conv_relu(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """``relu(layer(x))``: (B, c_in, H, W) -> (B, c_out, H', W')."""
    if not _is_fusible(x, layer.weight):
        return F.relu(layer(x), inplace=True)
    return _pointwise(layer, x, "relu", "")


def conv_gelu(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """``gelu(layer(x))``, the exact one: (B, c_in, H, W) -> (B, c_out, H', W')."""
    if not _is_fusible(x, layer.weight):
        return F.gelu(layer(x))
    return _pointwise(layer, x, "gelu", "none")


def _pointwise(layer: nn.Conv2d, x: Tensor, function: str, variant: str) -> Tensor:
    geometry = (layer.padding, layer.stride, layer.dilation, layer.groups)
    fused: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, layer.weight, layer.bias, *geometry, function, [], variant
    )
    return fused


def conv_add(
    x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor, *, padding: int
) -> Tensor:
    """``conv2d(x, weight, bias) + other``, stride 1: (B, c_in, H, W) -> (B, c_out, H, W).

    Args:
        x: (B, c_in, H, W).
        weight: (c_out, c_in, k, k).
        bias: (c_out,) or None.
        other: (B, c_out, H, W).
        padding: (k - 1) / 2.
    """
    is_fusible = _is_fusible(x, weight) and x.dtype == other.dtype
    if not (is_fusible and (_has_one_layout(other) or _takes(x.dtype, side=1))):
        return F.conv2d(x, weight, bias, padding=padding) + other
    return _added(x, weight, bias, other, padding)


def _added(x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor, padding: int) -> Tensor:
    geometry = ((padding, padding), (1, 1), (1, 1), 1)
    fused: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
        x, other, weight, bias, *geometry, "add", 1.0, None, [], None
    )
    return fused


def _has_one_layout(other: Tensor) -> bool:
    """Whether its strides tell NCHW from NHWC: one pixel's, or one channel's, fit both."""
    return other.shape[1] > 1 and other.shape[2] * other.shape[3] > 1


def _is_fusible(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's fused operators take these: on the CPU, without gradients."""
    return (
        _HAS_POINTWISE
        and x.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in (torch.bfloat16, torch.float32)
        and not torch.is_grad_enabled()
        and _takes(x.dtype, side=2)
    )


@cache
@torch.no_grad()
def _takes(dtype: torch.dtype, *, side: int) -> bool:
    """Whether oneDNN's fused operators take maps of a type and side. Of bfloat16 they need
    instructions that processors with AVX2 alone lack, where a plain convolution does without; with
    torch 2.6 the addition fails where strides fit two layouts, as those of one pixel. Tried when it
    is first asked, not at import, since a process that computes starts threads which its forks
    lack."""
    maps = torch.zeros(1, 8, side, side, dtype=dtype).to(memory_format=torch.channels_last)
    try:
        _added(maps, torch.zeros(8, 8, 1, 1, dtype=dtype), None, maps, 0)
    except RuntimeError:
        return False
    return True
