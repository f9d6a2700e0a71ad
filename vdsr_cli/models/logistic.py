"""The compact models' pixel likelihood: one discretised logistic a colour, coupled or not.

    p(rgb) = p(r) p(g | r) p(b | r, g)

    location of r = mean_r
    location of g = mean_g + c_gr (r - mean_r)
    location of b = mean_b + c_br (r - mean_r) + c_bg (g - mean_g)

The linear coefficients are those of PixelCNN++ (Salimans et al. 2017), here on what a colour
differs from its mean: so the means stay the expected picture, whatever the coefficients are, and
with all of them zero the colours are independent. Means beyond white or black count as white or
black in the differences.

The parameters are one tensor (B, 6, H, W), means and log scales, or (B, 9, H, W) with the
coefficients before :func:`bounded`. Pixels are in [-1, 1], on the 256 levels ``2 k / 255 - 1``.
"""

import torch
from torch import Tensor

from vdsr_cli.models.distributions import discretized_logistic_log_prob

COUPLED_CHANNELS = 9
"""Three means, three log scales, and the coefficients green on red, blue on red, blue on green."""


def bounded(raw: Tensor) -> Tensor:
    """The coefficients: the identity near 0, within (-2, 2)."""
    return 2 * torch.tanh(raw / 2)


def logistic_log_prob(hr: Tensor, parameters: Tensor) -> Tensor:
    """Log-probability of each colour given those before it, (B, 3, H, W) nats.

    Args:
        hr: (B, 3, H, W) in [-1, 1] on the 256 grey levels.
        parameters: (B, 6 or 9, H, W), float32 or wider.
    """
    mean, log_scale = parameters[:, :3], parameters[:, 3:6]
    if parameters.shape[1] == COUPLED_CHANNELS:
        off_red, off_green, _ = (hr - mean.clamp(-1, 1)).unbind(1)
        green_on_red, blue_on_red, blue_on_green = bounded(parameters[:, 6:]).unbind(1)
        green = green_on_red * off_red
        blue = blue_on_red * off_red + blue_on_green * off_green
        mean = mean + torch.stack([torch.zeros_like(green), green, blue], dim=1)
    return discretized_logistic_log_prob(hr, mean, log_scale)


def logistic_pixels(parameters: Tensor, noise: Tensor | None) -> Tensor:
    """The likelihood's parameters (B, 6 or 9, H, W) -> pixels (B, 3, H, W) on [-1, 1].

    Args:
        parameters: means, log scales and, of a coupled likelihood, coefficients.
        noise: (B, 3, H, W) standard logistic, or None for the mean, which is not clamped. Drawn
            colours are clamped before the next one depends on them.
    """
    mean, log_scale = parameters[:, :3], parameters[:, 3:6]
    if noise is None:
        return mean
    drawn = mean + log_scale.exp() * noise
    if parameters.shape[1] != COUPLED_CHANNELS:
        return drawn.clamp(-1, 1)
    red, green, blue = drawn.unbind(1)
    mean_red, mean_green, _ = mean.clamp(-1, 1).unbind(1)
    green_on_red, blue_on_red, blue_on_green = bounded(parameters[:, 6:]).unbind(1)
    red = red.clamp(-1, 1)
    green = (green + green_on_red * (red - mean_red)).clamp(-1, 1)
    blue = blue + blue_on_red * (red - mean_red) + blue_on_green * (green - mean_green)
    return torch.stack([red, green, blue.clamp(-1, 1)], dim=1)


def negative_log_likelihood(hr: Tensor, parameters: Tensor) -> Tensor:
    """-log p(hr | latents), (B,) nats per picture; arguments as :func:`logistic_log_prob`."""
    return -logistic_log_prob(hr, parameters).sum(dim=(1, 2, 3))
