"""Whether a predicted deviation tells where a picture is wrong.

Rank correlation: do pixels of larger deviation have larger errors? Sparsification: leave out the
pixels of largest deviation first; how fast does the mean error of the rest fall? Chance leaves it
at 1 throughout, the true error (the oracle) gives the lowest curve there can be.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def ranks(values: Tensor) -> Tensor:
    """Ranks from 0, float64, equal values sharing the mean of theirs: (...) -> (N,)."""
    _, inverse, counts = torch.unique(
        values.flatten(), sorted=True, return_inverse=True, return_counts=True
    )
    last = counts.cumsum(0).double()
    middle: Tensor = last - (counts.double() + 1) / 2
    return middle[inverse]


def spearman(one: Tensor, other: Tensor) -> float:
    """Spearman's rank correlation of two tensors of one size; 0 where one is constant."""
    a, b = ranks(one), ranks(other)
    a, b = a - a.mean(), b - b.mean()
    norm = (a.norm() * b.norm()).item()
    return (a @ b).item() / norm if norm else 0.0


def sparsification(error: Tensor, deviation: Tensor, steps: int = 50) -> Tensor:
    """Mean error of what is left when the shares 0, 1/steps, ... of largest deviation are gone,
    over the mean error of all: (steps,) float64, beginning at 1."""
    order = deviation.flatten().argsort(descending=True, stable=True)
    sorted_error = error.flatten().double()[order]
    rest = sorted_error.flip(0).cumsum(0).flip(0)
    total = len(sorted_error)
    starts = torch.arange(steps) * total // steps
    left = rest[starts] / (total - starts)
    return left / left[0].clamp_min(1e-12)


def area(curve: Tensor) -> float:
    """Area under a sparsification curve: 1 for chance, less is better."""
    return curve.mean().item()


def gradient_magnitude(picture: Tensor) -> Tensor:
    """Length of the Sobel gradient of a picture's grey values: (3, H, W) -> (H, W).

    The baseline to beat: "edges are where errors are" needs no model.
    """
    grey = F.pad(picture.mean(0)[None, None], (1, 1, 1, 1), mode="replicate")
    slope = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]).to(grey)
    kernels = torch.stack([slope, slope.T]).unsqueeze(1)
    both: Tensor = F.conv2d(grey, kernels)
    return both.square().sum(1)[0].sqrt()
