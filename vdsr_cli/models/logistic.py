"""The compact models' pixel likelihood: one discretised logistic a colour, coupled or not.

    p(rgb) = p(r) p(g | r) p(b | r, g)

    location of r = mean_r + n_r
    location of g = mean_g + n_g + c_gr (r - mean_r - n_r)
    location of b = mean_b + n_b + c_br (r - mean_r - n_r) + c_bg (g - mean_g - n_g)

    n = sum over k of a_k (pixel_k - mean_k)    k: left, above, above left, above right

The linear coefficients c are those of PixelCNN++ (Salimans et al. 2017), here on what a colour
differs from what is expected of it: so the means stay the expected picture, whatever the
coefficients are, and with all of them zero the colours are independent. The a, one a colour, tell
what a pixel takes over from its neighbours that come before it in its block of 8x8, so that what
the latents leave open may be grain of any direction and size; their magnitudes sum to less than 1,
so that no draw runs away. Blocks are independent given the latents: they are drawn side by side,
and tiles that start on them agree. Means beyond white or black count as white or black in the
differences.

The parameters are one tensor, means and log scales (B, 6, H, W), behind them the c (B, 9, H, W)
and the a (B, 21, H, W), both before they are bounded. Pixels are in [-1, 1], on the 256 levels
``2 k / 255 - 1``.
"""

from itertools import product

import torch
from torch import Tensor

from vdsr_cli.models.distributions import discretized_logistic_log_prob

COLOUR_CHANNELS = 3
"""Coefficients of a pixel's colours: green on red, blue on red, blue on green."""
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Rows up and columns to the left: left, above, above left, above right."""
NEIGHBOUR_CHANNELS = 3 * len(NEIGHBOURS)
BLOCK = 8
"""Side of the blocks of pixels that depend on each other."""

_COLOURS = slice(6, 6 + COLOUR_CHANNELS)


def bounded(raw: Tensor) -> Tensor:
    """The coefficients: the identity near 0, within (-2, 2)."""
    return 2 * torch.tanh(raw / 2)


def logistic_log_prob(hr: Tensor, parameters: Tensor) -> Tensor:
    """Log-probability of each colour given those before it, (B, 3, H, W) nats.

    Args:
        hr: (B, 3, H, W) in [-1, 1] on the 256 grey levels.
        parameters: (B, 6, 9 or 21, H, W), float32 or wider; of 21 channels H and W are multiples
            of 8.
    """
    return discretized_logistic_log_prob(hr, locations(hr, parameters), parameters[:, 3:6])


def locations(hr: Tensor, parameters: Tensor) -> Tensor:
    """The location of each colour's logistic given the pixels before it, (B, 3, H, W); arguments
    as :func:`logistic_log_prob`."""
    location, channels = parameters[:, :3], parameters.shape[1]
    off = hr - location.clamp(-1, 1)
    if channels > _COLOURS.stop:
        weighted = zip(_neighbour_weights(parameters), NEIGHBOURS, strict=True)
        expected = sum(weight * _from_neighbour(off, *place) for weight, place in weighted)
        location, off = location + expected, off - expected
    if channels > _COLOURS.start:
        off_red, off_green, _ = off.unbind(1)
        green_on_red, blue_on_red, blue_on_green = bounded(parameters[:, _COLOURS]).unbind(1)
        green = green_on_red * off_red
        blue = blue_on_red * off_red + blue_on_green * off_green
        location = location + torch.stack([torch.zeros_like(green), green, blue], dim=1)
    return location


def logistic_pixels(parameters: Tensor, noise: Tensor | None) -> Tensor:
    """The likelihood's parameters (B, 6, 9 or 21, H, W) -> pixels (B, 3, H, W) on [-1, 1].

    Args:
        parameters: as :func:`logistic_log_prob` takes them.
        noise: (B, 3, H, W) standard logistic, or None for the mean, which is not clamped. Drawn
            colours are clamped before the next one depends on them.
    """
    mean = parameters[:, :3]
    if noise is None:
        return mean
    deviation = parameters[:, 3:6].exp() * noise
    if parameters.shape[1] == _COLOURS.start:
        return (mean + deviation).clamp(-1, 1)
    raw = parameters[:, _COLOURS]
    if parameters.shape[1] == _COLOURS.stop:
        return _colours(mean, 0.0, deviation, raw)
    return _blockwise(mean, deviation, raw, _neighbour_weights(parameters))


def _neighbour_weights(parameters: Tensor) -> tuple[Tensor, ...]:
    """The a of each neighbour, (B, 3, H, W)."""
    raw = parameters[:, _COLOURS.stop :].chunk(len(NEIGHBOURS), dim=1)
    total = torch.stack([one.abs() for one in raw]).sum(0)
    within = (1 + total.square()).rsqrt()
    return tuple(one * within for one in raw)


def _from_neighbour(pixels: Tensor, up: int, left: int) -> Tensor:
    """At each pixel its neighbour so many rows up and columns to the left, 0 where that is of
    another block."""
    rows, columns = (torch.arange(side, device=pixels.device) % BLOCK for side in pixels.shape[-2:])
    columns = columns - left
    inside = (rows >= up).unsqueeze(1) & (columns >= 0) & (columns < BLOCK)
    return pixels.roll((up, left), (-2, -1)) * inside


def _colours(mean: Tensor, expected: Tensor | float, deviation: Tensor, raw: Tensor) -> Tensor:
    """Draws colours in their order: mean, what neighbours add to it, and the deviation of each."""
    red, green, blue = (mean + expected + deviation).unbind(1)
    centre_red, centre_green, _ = (mean.clamp(-1, 1) + expected).unbind(1)
    green_on_red, blue_on_red, blue_on_green = bounded(raw).unbind(1)
    red = red.clamp(-1, 1)
    green = (green + green_on_red * (red - centre_red)).clamp(-1, 1)
    blue = blue + blue_on_red * (red - centre_red) + blue_on_green * (green - centre_green)
    return torch.stack([red, green, blue.clamp(-1, 1)], dim=1)


def _blockwise(mean: Tensor, deviation: Tensor, raw: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
    """Draws one pixel after the other, in all blocks at once."""
    drawn, off = torch.empty_like(mean), torch.empty_like(mean)
    for y, x in product(range(BLOCK), repeat=2):
        here = (..., slice(y, None, BLOCK), slice(x, None, BLOCK))
        expected = torch.zeros_like(mean[here])
        for weight, (up, left) in zip(weights, NEIGHBOURS, strict=True):
            if y >= up and 0 <= x - left < BLOCK:
                before = off[..., y - up :: BLOCK, x - left :: BLOCK]
                expected.addcmul_(weight[here], before)
        drawn[here] = _colours(mean[here], expected, deviation[here], raw[here])
        off[here] = drawn[here] - mean[here].clamp(-1, 1)
    return drawn


def negative_log_likelihood(hr: Tensor, parameters: Tensor) -> Tensor:
    """-log p(hr | latents), (B,) nats per picture; arguments as :func:`logistic_log_prob`."""
    return -logistic_log_prob(hr, parameters).sum(dim=(1, 2, 3))
