"""OpenAI's discretised mixture of logistics (DMOL), the pixel likelihood of the VDVAE family.

    p(rgb) = sum_k pi_k  p_k(r) p_k(g | r) p_k(b | r, g)

Each factor is a logistic cut into grey-level bins (Salimans et al. 2017, "PixelCNN++"); the
location of green depends linearly on red, that of blue on red and green. The mixture's parameters
are one tensor ``(B, 10 K, H, W)``, K components: K logits shared by the colours, then for each
colour K means, K log scales and K coefficients.

Values are in [-1, 1], ``x / 127.5 - 1`` for a grey level x in 0..255. Everything is computed in
float32 whatever the dtype of the parameters: a mean in bfloat16 is off by half a grey level.

**8 and 5 bits.** The published ffhq256 model was trained on ``floor(x / 8) * 8`` and scores it with
32 bins of width 2/31. Targets are spaced 8/127.5, a little less, so its 32 probabilities sum to
1.03 (wide logistics) up to 1.19 (narrow ones), which flatters its likelihood. Its pictures are
dark: see :data:`LOW_BIT_OFFSET`.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS_PER_COMPONENT = 10
"""One logit, and a mean, a log scale and a coefficient for each of three colours."""

MIN_LOG_SCALE = -7.0
"""Lower bound of log scales: a standard deviation of 0.2 grey levels."""

LOW_BIT_NOTE = (
    "trained on 5 bits, grey levels floored to multiples of 8: its pictures are given the 3.5 "
    "levels that they lack on average"
)
"""For those who see the pictures of such a model."""

_NEGLIGIBLE = 1e-3
"""Weight of a component below which no quadrature is worth its while."""

UNIFORM_MARGIN = 1e-5
"""Uniform numbers are kept this far from 0 and 1, so a logistic stays within 11.51 scales."""

LOW_BIT_OFFSET = 3.5 / 255.0
"""Brightness that a model trained on 5 bits lacks, on the [0, 1] scale of :func:`to_image`.

``floor(x / 8) * 8`` lies 3.5 grey levels below x on average. Uncorrected, a perfect reconstruction
has a PSNR of at most 35.7 dB; with this offset, of at most 40.9 dB.
"""


class Mixture(NamedTuple):
    """The parameters taken apart, float32.

    Attributes:
        logits: (B, K, H, W), of the component's probability.
        mean: (B, 3, K, H, W), before the coefficients shift it.
        log_scale: (B, 3, K, H, W), at least :data:`MIN_LOG_SCALE`.
        coefficient: (B, 3, K, H, W) in [-1, 1]: green on red, blue on red, blue on green.
    """

    logits: Tensor
    mean: Tensor
    log_scale: Tensor
    coefficient: Tensor


def split_mixture(parameters: Tensor) -> Mixture:
    """Takes ``(B, 10 K, H, W)`` apart; raises ValueError if 10 does not divide the channels."""
    components, rest = divmod(parameters.shape[1], CHANNELS_PER_COMPONENT)
    if rest:
        raise ValueError(f"{parameters.shape[1]} channels are not 10 for each component")
    parameters = parameters.float()
    batch, _, height, width = parameters.shape
    by_colour = parameters[:, components:].reshape(batch, 3, 3, components, height, width)
    mean, log_scale, coefficient = by_colour.unbind(2)
    return Mixture(
        parameters[:, :components],
        mean,
        log_scale.clamp(min=MIN_LOG_SCALE),
        torch.tanh(coefficient),
    )


def dmol_log_prob(target: Tensor, parameters: Tensor, *, low_bit: bool = False) -> Tensor:
    """Log-probability of each pixel, all three colours, in nats.

    Args:
        target: (B, 3, H, W) in [-1, 1] on the model's grey levels; see :func:`to_levels`.
        parameters: (B, 10 K, H, W).
        low_bit: score 32 levels instead of 256.

    Returns:
        (B, H, W) float32.
    """
    target = target.float().unsqueeze(2)
    mixture = split_mixture(parameters)
    red, green, _ = target.unbind(1)
    mean, coefficient = mixture.mean, mixture.coefficient
    location = torch.stack(
        [
            mean[:, 0],
            mean[:, 1] + coefficient[:, 0] * red,
            mean[:, 2] + coefficient[:, 1] * red + coefficient[:, 2] * green,
        ],
        dim=1,
    )
    log_prob = logistic_bin_log_prob(target, location, mixture.log_scale, low_bit=low_bit)
    return torch.logsumexp(log_prob.sum(1) + F.log_softmax(mixture.logits, dim=1), dim=1)


def logistic_bin_log_prob(
    target: Tensor, location: Tensor, log_scale: Tensor, *, low_bit: bool = False
) -> Tensor:
    """Log-mass of the bin around ``target`` under a logistic, elementwise, in nats.

    The published code's own approximation, kept so that its likelihoods are reproduced: the
    difference of two CDFs; log-density times the bin's width where that difference is at most
    1e-5; and the whole tail beyond the first and the last level.
    """
    levels = 32 if low_bit else 256
    half_bin = 1.0 / (levels - 1)
    inverse_scale = torch.exp(-log_scale)
    centred = target - location
    upper = inverse_scale * (centred + half_bin)
    lower = inverse_scale * (centred - half_bin)
    middle = inverse_scale * centred
    mass = torch.sigmoid(upper) - torch.sigmoid(lower)
    log_density = middle - log_scale - 2 * F.softplus(middle) - math.log((levels - 1) / 2)
    inside = torch.where(mass > 1e-5, torch.log(mass.clamp(min=1e-12)), log_density)
    below_first_edge = upper - F.softplus(upper)
    above_last_edge = -F.softplus(lower)
    inside = torch.where(target > 0.999, above_last_edge, inside)
    return torch.where(target < -0.999, below_first_edge, inside)


def dmol_nll(target: Tensor, parameters: Tensor, *, low_bit: bool = False) -> Tensor:
    """Negative log-likelihood of each picture, (B,), in nats per picture.

    Arguments as :func:`dmol_log_prob`. Divide by 3 H W for the papers' nats per dimension.
    """
    return -dmol_log_prob(target, parameters, low_bit=low_bit).sum(dim=(1, 2))


def dmol_sample(parameters: Tensor, u_component: Tensor, u_value: Tensor) -> Tensor:
    """Draws a picture: the component by Gumbel-max, each colour by inverting the logistic's CDF.

    Each colour is clipped to [-1, 1] before the next one depends on it. The published codes do not
    temper this noise; at low temperatures it is most of the noise of their samples.

    Args:
        parameters: (B, 10 K, H, W).
        u_component: (B, K, H, W) uniform in (0, 1).
        u_value: (B, 3, H, W) uniform in (0, 1).

    Returns:
        (B, 3, H, W) float32 in [-1, 1].
    """
    mixture = split_mixture(parameters)
    gumbel = -torch.log(-torch.log(_keep_off_the_ends(u_component)))
    component = (mixture.logits + gumbel).argmax(dim=1)[:, None, None]
    mean, log_scale, coefficient = (
        torch.take_along_dim(values, component, dim=2).squeeze(2) for values in mixture[1:]
    )
    uniform = _keep_off_the_ends(u_value)
    values = mean + torch.exp(log_scale) * (torch.log(uniform) - torch.log1p(-uniform))
    red = values[:, 0].clamp(-1, 1)
    green = (values[:, 1] + coefficient[:, 0] * red).clamp(-1, 1)
    blue = values[:, 2] + coefficient[:, 1] * red + coefficient[:, 2] * green
    return torch.stack([red, green, blue.clamp(-1, 1)], dim=1)


def dmol_mean(parameters: Tensor) -> Tensor:
    """E[rgb] of the mixture: the picture of least squared error given the latents.

    The expectation is taken within each component first, values clipped to [-1, 1] counting as
    clipped: exact for red. Of green and blue, which depend on clipped colours and are clipped
    themselves, it is that at the expected colours, which is exact far from black and white, and
    near them a difference by quadrature, within 0.2 grey levels for log scales up to -2.

    Args:
        parameters: (B, 10 K, H, W).

    Returns:
        (B, 3, H, W) float32 in [-1, 1].
    """
    mixture = split_mixture(parameters)
    weight = torch.softmax(mixture.logits, dim=1)
    mean, log_scale, coefficient = (values.transpose(0, 1) for values in mixture[1:])
    red = clipped_logistic_mean(mean[0], log_scale[0])
    green = clipped_logistic_mean(mean[1] + coefficient[0] * red, log_scale[1])
    near = _is_near_an_edge(mean, log_scale, coefficient) & (weight > _NEGLIGIBLE)
    if parameters.device.type == "cpu":
        values = (value[:, near] for value in (mean, log_scale, coefficient))
        change = torch.zeros_like(mean[1:])
        change[:, near] = _beyond_the_expected(*values)
    else:  # no shape may depend on the values
        change = _beyond_the_expected(mean, log_scale, coefficient) * near
    green = green + change[0]
    blue_at = mean[2] + coefficient[1] * red + coefficient[2] * green
    blue = clipped_logistic_mean(blue_at, log_scale[2]) + change[1]
    means = weight * torch.stack([red, green, blue])
    return means.sum(dim=2).transpose(0, 1).clamp(-1, 1)


def _is_near_an_edge(mean: Tensor, log_scale: Tensor, coefficient: Tensor) -> Tensor:
    """Where clipping of green or blue weighs at all: within 8 scales, of all that moves them."""
    reach = 8 * torch.exp(log_scale)
    size = coefficient.abs()
    red = mean[0].clamp(-1, 1)
    green = mean[1] + coefficient[0] * red
    blue = mean[2] + coefficient[1] * red + coefficient[2] * green.clamp(-1, 1)
    green_reach = reach[1] + size[0] * reach[0]
    blue_reach = reach[2] + size[1] * reach[0] + size[2] * green_reach
    return (green.abs() + green_reach > 1) | (blue.abs() + blue_reach > 1)


def _beyond_the_expected(mean: Tensor, log_scale: Tensor, coefficient: Tensor) -> Tensor:
    """Expectations of green and blue (2, ...) beyond those at the expected colours:
    by one quadrature of both, so that where clipping does not matter it is nothing."""
    scale = torch.exp(log_scale)
    expected_red, expected_green, green, blue = torch.zeros_like(mean[0]), *torch.zeros_like(mean)
    for node, weight in _logistic_nodes():
        red = (mean[0] + scale[0] * node).clamp(-1, 1)
        green_at = mean[1] + coefficient[0] * red
        expected_red = expected_red + weight * red
        green = green + weight * clipped_logistic_mean(green_at, log_scale[1])
        for inner, share in _logistic_nodes():
            drawn = (green_at + scale[1] * inner).clamp(-1, 1)
            blue_at = mean[2] + coefficient[1] * red + coefficient[2] * drawn
            expected_green = expected_green + weight * share * drawn
            blue = blue + weight * share * clipped_logistic_mean(blue_at, log_scale[2])
    blue_at = mean[2] + coefficient[1] * expected_red + coefficient[2] * expected_green
    green_at = mean[1] + coefficient[0] * expected_red
    return torch.stack(
        [
            green - clipped_logistic_mean(green_at, log_scale[1]),
            blue - clipped_logistic_mean(blue_at, log_scale[2]),
        ]
    )


@cache
def _logistic_nodes() -> tuple[tuple[float, float], ...]:
    """Standard logistic values and weights: Gauss-Legendre's 8, of the quantiles."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    values = np.log1p(nodes) - np.log1p(-nodes)
    return tuple(zip(values.tolist(), (weights / 2).tolist(), strict=True))


def dmol_pixels(parameters: Tensor, noise: Tensor | None, *, low_bit: bool = False) -> Tensor:
    """Pixels given the mixture: its mean, or a draw, in the middle of their bins.

    A model of 5 bits is scored on the lower edges of its 32 bins, see :data:`LOW_BIT_OFFSET`; what
    it says is moved up by that.

    Args:
        parameters: (B, 10 K, H, W).
        noise: (B, 3 + K, H, W) standard logistic, or None for the mean.
        low_bit: whether the model is one of 5 bits.

    Returns:
        (B, 3, H, W) float32 in [-1, 1].
    """
    if noise is None:
        values = dmol_mean(parameters)
    else:
        uniform = torch.sigmoid(noise)
        values = dmol_sample(parameters, uniform[:, 3:], uniform[:, :3])
    return (values + 2 * LOW_BIT_OFFSET).clamp(max=1) if low_bit else values


def clipped_logistic_mean(location: Tensor, log_scale: Tensor) -> Tensor:
    """E[clip(x, -1, 1)] for x logistic, elementwise: -1 + the integral of P(x > y) over [-1, 1]."""
    scale = torch.exp(log_scale)
    above = F.softplus((location + 1) / scale) - F.softplus((location - 1) / scale)
    return scale * above - 1


def to_levels(image: Tensor, *, low_bit: bool = False) -> Tensor:
    """[0, 1] -> [-1, 1] on the grey levels that the likelihood knows, float32.

    Rounded to 8 bits; with ``low_bit`` then floored to multiples of 8, as the published ffhq256
    model's targets are.
    """
    grey = torch.round(image.float() * 255).clamp(0, 255)
    if low_bit:
        grey = torch.floor(grey / 8) * 8
    return (grey - 127.5) / 127.5


def to_image(values: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1], clamped, not rounded.

    The published code truncates to 8 bits, which darkens by another half grey level.
    """
    return ((values + 1) / 2).clamp(0, 1)


def _keep_off_the_ends(uniform: Tensor) -> Tensor:
    return uniform.float().clamp(UNIFORM_MARGIN, 1 - UNIFORM_MARGIN)
