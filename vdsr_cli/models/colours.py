"""The logistics of a pixel's three colours, each given those before it.

    location of r = location_r
    location of g = location_g + c_gr (r - centre_r)
    location of b = location_b + c_br (r - centre_r) + c_bg (g - centre_g)

The linear coefficients c are those of PixelCNN++ (Salimans et al. 2017), here on what a colour
differs from its mean: so the means stay the expected picture, whatever the coefficients are, and
with all of them zero the colours are independent. Centres are the means, those beyond white or
black counted as white or black.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vdsr_cli.models.distributions import discretized_logistic_log_prob

COLOUR_CHANNELS = 3
"""Coefficients of a pixel's colours: green on red, blue on red, blue on green."""
LOG_SCALES = (-7.0, 2.0)
"""The least and the largest log scale of a colour."""


def bounded(raw: Tensor) -> Tensor:
    """The identity near 0, within (-2, 2)."""
    return 2 * torch.tanh(raw / 2)


def from_colours(off: Tensor, coupling: Tensor) -> Tensor:
    """By how much each colour is moved by those before it, which are ``off`` from their centres
    (..., 3), by the c (..., 3)."""
    red, green, _ = off.unbind(-1)
    green_on_red, blue_on_red, blue_on_green = coupling.unbind(-1)
    blue = blue_on_red * red + blue_on_green * green
    return torch.stack([torch.zeros_like(red), green_on_red * red, blue], -1)


class Colours(NamedTuple):
    """Logistics of pixels whose colours are the last dimension, (..., 3) each.

    Attributes:
        location: of each colour whose predecessors are at their centres.
        centre: what a colour is compared with, for those after it.
        log_scale: of each colour.
        coupling: the c, (..., 3); None for independent colours.
    """

    location: Tensor
    centre: Tensor
    log_scale: Tensor
    coupling: Tensor | None

    @classmethod
    def of(cls, parameters: Tensor) -> "Colours":
        """Those of a likelihood's parameters (..., 6 or more)."""
        mean, coupling = parameters[..., :3], parameters[..., 6 : 6 + COLOUR_CHANNELS]
        return cls(
            location=mean,
            centre=mean.clamp(-1, 1),
            log_scale=parameters[..., 3:6],
            coupling=bounded(coupling) if coupling.shape[-1] else None,
        )

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Colours":
        """The same of every part changed, such as into another layout."""
        coupling = None if self.coupling is None else change(self.coupling)
        return Colours(change(self.location), change(self.centre), change(self.log_scale), coupling)

    def located(self, pixels: Tensor) -> Tensor:
        """The location of each colour given those before it in ``pixels``."""
        if self.coupling is None:
            return self.location
        return self.location + from_colours(pixels - self.centre, self.coupling)

    def log_prob(self, pixels: Tensor) -> Tensor:
        """Log-probability of each colour given those before it, nats."""
        return discretized_logistic_log_prob(pixels, self.located(pixels), self.log_scale)

    def drawn(self, noise: Tensor) -> Tensor:
        """Pixels on [-1, 1] by standard logistic noise (..., 3); each colour is clamped before
        the next one depends on it."""
        free = self.location + self.log_scale.exp() * noise
        if self.coupling is None:
            return free.clamp(-1, 1)
        (red, green, blue), (centre_red, centre_green, _) = free.unbind(-1), self.centre.unbind(-1)
        green_on_red, blue_on_red, blue_on_green = self.coupling.unbind(-1)
        red = red.clamp(-1, 1)
        green = (green + green_on_red * (red - centre_red)).clamp(-1, 1)
        blue = blue + blue_on_red * (red - centre_red) + blue_on_green * (green - centre_green)
        return torch.stack([red, green, blue.clamp(-1, 1)], dim=-1)
