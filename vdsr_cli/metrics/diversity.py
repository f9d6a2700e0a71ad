"""How far apart the samples of one picture are."""

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def average_pairwise(items: Sequence[T], distance: Callable[[T, T], float]) -> float:
    """Average pairwise distance (APD): the mean of ``distance`` over all pairs, 0 for one item."""
    distances = [distance(one, other) for one, other in combinations(items, 2)]
    return sum(distances) / len(distances) if distances else 0.0


def mse_unit(one: Tensor, other: Tensor) -> float:
    """Mean squared difference of two uint8 pictures on the scale 0..1."""
    return (one.double() - other.double()).square().mean().item() / 255**2


def pairwise_rms(pictures: Tensor) -> float:
    """Mean over all pairs of pictures (n, ...), n > 1, of their root mean square difference."""
    flat = pictures.flatten(1).cpu().double()
    return torch.pdist(flat).mean().item() / math.sqrt(flat.shape[1])


def ntire_diversity(maps: Sequence[Tensor]) -> float:
    """Diversity score of the NTIRE 2021 challenge on learning the super-resolution space, in %.

    With L_i the map (H, W) of the distance of sample i to the HR picture:
    (min_i mean(L_i) - mean(min_i L_i)) / min_i mean(L_i); how much better the best sample of each
    place is than the best sample as a whole.
    """
    best_whole = min(distance.mean().item() for distance in maps)
    best_local = torch.stack(list(maps)).amin(0).mean().item()
    return 100 * (best_whole - best_local) / best_whole if best_whole > 0 else 0.0
