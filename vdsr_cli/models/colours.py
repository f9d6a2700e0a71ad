"""The logistics of a pixel's three colours, each given those before it.

    location of r = location_r
    location of g = location_g + c_gr (r - centre_r)
    location of b = location_b + c_br (r - centre_r) + c_bg (g - centre_g)

The linear coefficients c are those of PixelCNN++ (Salimans et al. 2017), here on what a colour
differs from its mean: so the means stay the expected picture, whatever the coefficients are, and
with all of them zero the colours are independent. Centres are the means, those beyond white or
black counted as white or black.

Where the pixels before are known, a colour also tells how far off the next ones may be,

    log scale of g = log scale_g + d_gr log(1 + |z_r|)
    log scale of b = log scale_b + d_br log(1 + |z_r|) + d_bg log(1 + |z_g|)

z: by how many of its scales a colour is off its location; and tails are as heavy as they need to
be, see :func:`~vdsr_cli.models.distributions.from_tails`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vdsr_cli.models.distributions import discretized_logistic_log_prob, to_tails

COLOUR_CHANNELS = 3
"""Coefficients of a pixel's colours: green on red, blue on red, blue on green."""
LOG_SCALES = (-8.0, 2.0)
"""The least and the largest log scale of a colour."""
USUAL_TAIL = 0.15
"""The k of a network that knows nothing yet."""
SHAPE_CHANNELS = 6
"""Numbers that tell of spread and tails."""


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
        log_scale: of each colour whose predecessors are at their locations.
        coupling: the c, (..., 3); None for independent colours.
        spread: the d, (..., 3): green on red, blue on red, blue on green; None for scales that
            depend on no colour.
        tail: the k of each colour's tails, None for those of logistics.
    """

    location: Tensor
    centre: Tensor
    log_scale: Tensor
    coupling: Tensor | None
    spread: Tensor | None = None
    tail: Tensor | None = None

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

    @classmethod
    def joined(cls, found: Sequence["Colours"]) -> "Colours":
        """Those of several groups (P, N, 3) of pixels, which know the same kinds of parts."""
        first, parts = found[0], [each._known() for each in found]
        whole = {name: torch.cat([part[name] for part in parts], 1) for name in first._known()}
        return first._replace(**whole)

    def shaped(self, raw: Tensor) -> "Colours":
        """The same with the spread and the tails of six numbers (..., 6), 0 for none and usual."""
        tail = USUAL_TAIL * bounded(raw[..., 3:]).exp()
        return self._replace(spread=bounded(raw[..., :3]), tail=tail)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Colours":
        """The same of every part changed, such as into another layout."""
        return self._replace(**{name: change(part) for name, part in self._known().items()})

    def _known(self) -> dict[str, Tensor]:
        return {name: part for name, part in self._asdict().items() if part is not None}

    def located(self, pixels: Tensor) -> Tensor:
        """The location of each colour given those before it in ``pixels``."""
        if self.coupling is None:
            return self.location
        return self.location + from_colours(pixels - self.centre, self.coupling)

    def scaled(self, off: Tensor) -> Tensor:
        """The log scale of each colour where those before it are ``off`` from their locations."""
        if self.spread is None:
            return self.log_scale
        (red, green, blue), (off_red, off_green, _) = self.log_scale.unbind(-1), off.unbind(-1)
        green_on_red, blue_on_red, blue_on_green = self.spread.unbind(-1)
        far_red = _far(off_red, red)
        green = (green + green_on_red * far_red).clamp(*LOG_SCALES)
        blue = blue + blue_on_red * far_red + blue_on_green * _far(off_green, green)
        return torch.stack([red, green, blue.clamp(*LOG_SCALES)], -1)

    def log_prob(self, pixels: Tensor) -> Tensor:
        """Log-probability of each colour given those before it, nats."""
        located = self.located(pixels)
        log_scale = self.scaled(pixels - located)
        return discretized_logistic_log_prob(pixels, located, log_scale, self.tail)

    def drawn(self, noise: Tensor) -> Tensor:
        """Pixels on [-1, 1] by standard logistic noise (..., 3); each colour is clamped before
        the next one depends on it."""
        if self.tail is not None:
            noise = to_tails(noise, self.tail)
        pixels, off = self.centre, torch.zeros_like(noise)
        # Each round makes one colour more what it is given those before it.
        for _ in range(1 if self.coupling is None else 3):
            located = self.located(pixels)
            pixels = (located + self.scaled(off).exp() * noise).clamp(-1, 1)
            off = pixels - located
        return pixels


def _far(off: Tensor, log_scale: Tensor) -> Tensor:
    """The logarithm of one and of how many scales a colour is off."""
    return (off.abs() * (-log_scale).exp()).log1p()
