"""Fused convolutions give what the separate steps give."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from vdsr_cli.models import fused
from vdsr_cli.models.fused import conv_add, conv_gelu, conv_relu


def inputs(
    kernel: int, dtype: torch.dtype, channels: int, size: tuple[int, int]
) -> tuple[nn.Conv2d, torch.Tensor, torch.Tensor]:
    """A layer, its input (2, 16, *size) and something of its output's shape."""
    torch.manual_seed(0)
    layer = nn.Conv2d(16, channels, kernel, padding=kernel // 2).to(dtype)
    x, other = torch.randn(2, 16, *size, dtype=dtype), torch.randn(2, channels, *size, dtype=dtype)
    return layer, x.to(memory_format=torch.channels_last), other


@pytest.fixture(params=["as it is", "without the instructions"])
def _processor(request, monkeypatch) -> Iterator[None]:
    """This one, and one whose library refuses bfloat16."""
    added = fused._added

    def refusing(x: torch.Tensor, *arguments: object) -> torch.Tensor:
        if x.dtype == torch.bfloat16:
            raise RuntimeError("bf16 path needs the cpu support avx512bw")
        return added(x, *arguments)

    if request.param != "as it is":
        monkeypatch.setattr(fused, "_added", refusing)
    fused._takes.cache_clear()
    yield
    fused._takes.cache_clear()


@pytest.mark.usefixtures("_processor")
@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("channels", "size"), [(24, (9, 12)), (24, (1, 1)), (1, (9, 12))])
def test_equal_to_the_separate_steps(channels, size, kernel, dtype, is_training):
    layer, x, other = inputs(kernel, dtype, channels, size)
    double = nn.functional.conv2d(
        x.double(), layer.weight.double(), layer.bias.double(), padding=kernel // 2
    )
    error = 1e-2 if dtype == torch.bfloat16 else 1e-5
    tolerance = {"rtol": error, "atol": error}
    kept = x.clone(), other.clone()
    with torch.set_grad_enabled(is_training):
        relu, gelu = conv_relu(layer, x), conv_gelu(layer, x)
        summed = conv_add(x, layer.weight, layer.bias, other, padding=kernel // 2)
    assert relu.dtype == gelu.dtype == summed.dtype == dtype
    assert relu.requires_grad == gelu.requires_grad == summed.requires_grad == is_training
    torch.testing.assert_close(relu.double(), double.relu(), **tolerance)
    torch.testing.assert_close(gelu.double(), nn.functional.gelu(double), **tolerance)
    torch.testing.assert_close(summed.double(), double + other.double(), **tolerance)
    assert torch.equal(x, kept[0]) and torch.equal(other, kept[1])
