"""Densities of the hierarchical models: diagonal Gaussians and the discretised logistic.

Everything here is float32 or wider: a half-precision exp(2 log_std) overflows above
log_std = 5.5 and divides by zero below -8.3.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

HALF_BIN_8BIT = 1.0 / 255.0
"""Half the width of one of 256 grey levels on [-1, 1]."""
OUTERMOST = 0.999
"""Levels beyond are black or white, whose bins have no end."""


def gaussian_kl(mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor) -> Tensor:
    """KL(q || p) of diagonal Gaussians, elementwise, in nats (Child 2021, equation 3).

    All tensors have one shape, float32 or wider; so has the result, which is >= 0.
    """
    difference = mean_q - mean_p
    return (
        -0.5
        + log_std_p
        - log_std_q
        + 0.5 * (torch.exp(2 * (log_std_q - log_std_p)) + difference**2 * torch.exp(-2 * log_std_p))
    )


def gaussian_log_ratio(
    z: Tensor, mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor
) -> Tensor:
    """log q(z) - log p(z) of diagonal Gaussians, elementwise, in nats: its mean over z ~ q is
    :func:`gaussian_kl`."""
    of_q, of_p = ((z - m) * torch.exp(-s) for m, s in ((mean_q, log_std_q), (mean_p, log_std_p)))
    return log_std_p - log_std_q + 0.5 * (of_p**2 - of_q**2)


def gaussian_sample(
    mean: Tensor, log_std: Tensor, epsilon: Tensor | None, temperature: float = 1.0
) -> Tensor:
    """``mean + temperature * exp(log_std) * epsilon``; the mean itself where epsilon is None.

    ``temperature`` multiplies the standard deviation (reference code: log_std + ln t).
    """
    if epsilon is None or temperature == 0.0:
        return mean
    return torch.addcmul(mean, log_std.exp(), epsilon, value=temperature)


def discretized_logistic_log_prob(
    target: Tensor, mean: Tensor, log_scale: Tensor, tail: Tensor | None = None
) -> Tensor:
    """Log-probability of 8-bit values under a logistic cut into 256 bins, elementwise, in nats.

    Args:
        target: (B, C, H, W) in [-1, 1], on the 256 levels ``2 k / 255 - 1``.
        mean: the same shape, unbounded.
        log_scale: the same shape; clamp it before (at -8 a bin holds all the mass but 2e-5).
        tail: the same shape, positive: the k of :func:`from_tails`; None for the logistic itself.

    The outermost bins reach to infinity, so that the 256 probabilities sum to one.
    """
    inverse_scale = torch.exp(-log_scale)
    centred = target - mean
    upper = inverse_scale * (centred + HALF_BIN_8BIT)
    lower = inverse_scale * (centred - HALF_BIN_8BIT)
    # log(sigmoid(upper) - sigmoid(lower)) without cancellation:
    # sigmoid(u) - sigmoid(l) = sigmoid(u) * sigmoid(-l) * (1 - exp(l - u)).
    width = 2 * HALF_BIN_8BIT * inverse_scale
    if tail is not None:
        upper, lower = from_tails(upper, tail), from_tails(lower, tail)
        width = (upper - lower).clamp_min(torch.finfo(upper.dtype).tiny)
    inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-width))
    first, last = target < -OUTERMOST, target > OUTERMOST
    return torch.where(first, F.logsigmoid(upper), torch.where(last, F.logsigmoid(-lower), inside))


def from_tails(distance: Tensor, tail: Tensor) -> Tensor:
    """asinh(k z) / k: that distance z of a logistic whose tails fall as the power 1/k.

    A sinh-arcsinh distribution (Jones and Pewsey 2009, equation 1) without skew and of unit slope
    at 0, where a logistic stands for the normal: ``sigmoid(from_tails(z, k))`` is its distribution
    function. Argument and result are in scales; the smaller k, the nearer to a logistic.
    """
    return torch.asinh(tail * distance) / tail


def to_tails(distance: Tensor, tail: Tensor) -> Tensor:
    """sinh(k z) / k: turns standard logistic draws into those of the same with tails; the inverse
    of :func:`from_tails`."""
    return torch.sinh(tail * distance) / tail


def importance_weighted_nll(log_weights: Tensor) -> Tensor:
    """-log (1/n sum of w) of each picture from n log weights (n, B): (B,) nats.

    An upper bound of -log p(hr) that falls with n (Burda et al. 2015). The published code has the
    opposite sign inside, which is close to the worst draw, and averages over the batch first.
    """
    return math.log(len(log_weights)) - torch.logsumexp(log_weights, dim=0)
