"""How samples of one picture differ, and how well each keeps to the input: counted row by row."""

import math
from itertools import combinations

import torch
from torch import Tensor

from vdsr_cli.config import Edges
from vdsr_cli.consistency import StripDegradation
from vdsr_cli.consistency.degradation import REACH


class PairwiseDistances:
    """Mean squared differences between all pairs of samples, from their rows as they come."""

    def __init__(self, samples: int) -> None:
        self.sum = torch.zeros(samples, samples, dtype=torch.float64)
        self.values = 0

    def add(self, rows: Tensor) -> None:
        """Counts rows (samples, C, rows, W) in [0, 1]."""
        flat = rows.flatten(1)
        # Distances do not see what is taken from all alike, and float32 then suffices.
        centred = flat - flat.mean(0)
        products = (centred @ centred.T).double()
        squares = products.diagonal()
        self.sum += squares.unsqueeze(1) + squares.unsqueeze(0) - 2 * products
        self.values += flat.shape[1]

    def matrix(self) -> Tensor:
        """(samples, samples) float64; the diagonal is zero."""
        mean = (self.sum / max(self.values, 1)).clamp_min(0)
        return mean.fill_diagonal_(0)


def mean_of_pairs(distances: Tensor) -> float:
    """Average pairwise distance (APD, Prost 2024): the mean over all pairs; 0 for one sample."""
    count = len(distances)
    return distances.sum().item() / (count * (count - 1)) if count > 1 else 0.0


def medoid(distances: Tensor) -> int:
    """The sample with the smallest sum of distances to the others; the first of equals."""
    return int(distances.sum(1).argmin())


def farthest(distances: Tensor, count: int) -> tuple[int, ...]:
    """The ``count`` samples that differ most, in rising order: their sum of distances is largest.

    Every subset is looked at while they are at most some ten thousand; beyond that, samples are
    added one by one to the two that differ most, each the farthest from its nearest.
    """
    total = len(distances)
    count = min(count, total)
    if math.comb(total, count) <= 20_000:
        subsets = combinations(range(total), count)
        return max(subsets, key=lambda chosen: distances[list(chosen)][:, list(chosen)].sum())
    chosen = [int(i) for i in divmod(int(distances.argmax()), total)]
    while len(chosen) < count:
        chosen.append(int(distances[chosen].amin(0).argmax()))
    return tuple(sorted(chosen[:count]))


class LrFidelity:
    """How well pictures, as their rows come, degrade to the input.

    Args:
        edges: of the degradation.
        periodic: the axes, of x and y, along which it sees the opposite edge beyond an edge.
    """

    def __init__(
        self,
        lr: Tensor,
        samples: int,
        scale: int,
        edges: Edges = Edges.repeat,
        periodic: str = "",
    ) -> None:
        self.lr, self.scale = lr, scale
        self.above, self.aside = (REACH if axis in periodic else 0 for axis in "yx")
        self.top: list[Tensor] = []
        self.degradation = StripDegradation(lr.shape[1] + 2 * self.above, scale, edges)
        self.squares = torch.zeros(samples, dtype=torch.float64)
        self.near = torch.zeros(samples, dtype=torch.float64)
        self.known = 0

    def add(self, rows: Tensor) -> None:
        """Counts rows (samples, 3, rows, W) in [0, 1]."""
        again = 2 * self.above * self.scale
        lacking = again - sum(strip.shape[2] for strip in self.top)
        if lacking > 0:
            self.top.append(rows[:, :, :lacking].clone())
        self._count(rows)
        if again and self.degradation.known == self.lr.shape[1]:
            # The first rows see the last ones only now: they come once more, below them.
            top = torch.cat(self.top, dim=2)
            self._count(top[:, :, torch.arange(again) % top.shape[2]])

    def _count(self, rows: Tensor) -> None:
        if self.aside:
            width, aside = rows.shape[3], self.aside * self.scale
            rows = rows[..., torch.arange(-aside, width + aside) % width]
        reduced = self.degradation.push(rows)
        reduced = reduced[..., self.aside : reduced.shape[3] - self.aside]
        height = self.lr.shape[1]
        places = torch.arange(self.known, self.known + reduced.shape[2])
        is_whole = (places >= self.above) & (places < self.above + height)
        self.known += reduced.shape[2]
        error = (reduced[:, :, is_whole] - self.lr[:, places[is_whole] % height]).double()
        self.squares += error.square().sum(dim=(1, 2, 3))
        self.near += (error.abs() < 0.5 / 255).sum(dim=(1, 2, 3))

    def psnr(self) -> list[float]:
        """LR-PSNR of each picture in dB, its degradation not rounded; at most 200."""
        mse = self.squares / self.lr.numel()
        return [round(-10 * math.log10(max(value, 1e-20)), 2) for value in mse.tolist()]

    def same(self) -> list[float]:
        """Share of the LR samples that each picture gives back when rounded to 8 bits."""
        return [round(value, 6) for value in (self.near / self.lr.numel()).tolist()]
