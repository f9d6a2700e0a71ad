"""IMDN x4 as published, the light CNN that the benchmarks of speed compare with.

    lr (B,3,h,w) ─► conv ─┬─► 6 IMDB ─► each output, concatenated ─► 1x1 ─► conv ─(+)─► conv ─► sr
                          └────────────────────────────────────────────────────────┘   pixel shuffle

Hui et al. 2019, "Lightweight Image Super-Resolution with Information Multi-distillation Network"
(arXiv 1909.11856): 64 channels, distillation rate 1/4, 715,176 parameters. Its weights, on which
its speed does not depend, are random here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PARAMETERS = 715_176
WIDTH, DISTILLED, BLOCKS = 64, 16, 6


def conv(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


class ContrastAttention(nn.Module):
    """CCA: scales channels by a function of their mean plus their standard deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(WIDTH, WIDTH // 16, 1)
        self.excite = nn.Conv2d(WIDTH // 16, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(variance.sqrt() + mean))))


class Distillation(nn.Module):
    """IMDB: each of three convolutions gives a quarter of its channels away, the rest goes on."""

    def __init__(self) -> None:
        super().__init__()
        rest = WIDTH - DISTILLED
        self.steps = nn.ModuleList([conv(WIDTH, WIDTH), conv(rest, WIDTH), conv(rest, WIDTH)])
        self.last = conv(rest, DISTILLED)
        self.attention = ContrastAttention()
        self.fuse = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts, rest = [], x
        for step in self.steps:
            refined = F.leaky_relu(step(rest), 0.05, inplace=True)
            part, rest = refined.split([DISTILLED, WIDTH - DISTILLED], dim=1)
            parts.append(part)
        gathered = torch.cat([*parts, self.last(rest)], dim=1)
        return self.fuse(self.attention(gathered)) + x


class IMDN(nn.Module):
    """(B, 3, h, w) -> (B, 3, 4h, 4w)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = conv(3, WIDTH)
        self.blocks = nn.ModuleList(Distillation() for _ in range(BLOCKS))
        self.gather = nn.Conv2d(BLOCKS * WIDTH, WIDTH, 1)
        self.last = conv(WIDTH, WIDTH)
        self.upsample = conv(WIDTH, 3 * 4**2)
        assert sum(p.numel() for p in self.parameters()) == PARAMETERS

    def forward(self, lr: Tensor) -> Tensor:
        first = x = self.first(lr)
        outputs = [x := block(x) for block in self.blocks]
        gathered = F.leaky_relu(self.gather(torch.cat(outputs, dim=1)), 0.05, inplace=True)
        return F.pixel_shuffle(self.upsample(self.last(gathered) + first), 4)
