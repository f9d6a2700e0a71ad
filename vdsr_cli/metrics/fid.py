"""The Fréchet Inception distance (Heusel et al. 2017): how far two sets of pictures are apart.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))

of the means and covariances of the 2048 features of :mod:`vdsr_cli.metrics.inception`.
"""

from typing import Final

import torch
from torch import Tensor

FEWEST_PICTURES: Final = 50
"""The least for which covariances say something."""


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """FID of two sets of features, float64 (n, d) and (m, d), n and m of 2 or more.

    With S1 = A A' and S2 = B B', tr (S1 S2)^(1/2) is the sum of the singular values of A' B, which
    needs no square root of a matrix and no regularisation of a singular one.
    """
    means, roots = zip(*(_mean_and_root(features) for features in (one, other)), strict=True)
    apart = (means[0] - means[1]).square().sum()
    spread = sum(root.square().sum() for root in roots)
    shared = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return float(apart + spread - 2 * shared)


def _mean_and_root(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (d,), and R (min(n, d), d) with R' R the covariance."""
    mean = features.mean(0)
    centred = (features - mean) / (len(features) - 1) ** 0.5
    root: Tensor = torch.linalg.qr(centred, mode="r").R
    return mean, root
