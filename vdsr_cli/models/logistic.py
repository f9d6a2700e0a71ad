"""The compact models' pixel likelihood: one discretised logistic a colour, coupled or not.

The parameters are one tensor: means and log scales (B, 6, H, W); behind them, where colours are
coupled, their coefficients (B, 9, H, W); and what neighbours weigh (B, 21, H, W), both before they
are bounded. See :mod:`~vdsr_cli.models.colours` and :mod:`~vdsr_cli.models.causal`. Pixels are in
[-1, 1], on the 256 levels ``2 k / 255 - 1``.

**Palettes.** A picture of few colours, of a GIF or in grey, can be sent as its palette and then
pixel by pixel, each probability divided by the palette's sum: what WebP and JPEG XL do as well.
"""

import torch
from torch import Tensor

from vdsr_cli.models.causal import PixelsBefore
from vdsr_cli.models.colours import Colours


def logistic_log_prob(hr: Tensor, parameters: Tensor, before: PixelsBefore | None = None) -> Tensor:
    """Log-probability of each colour given those before it, (B, 3, H, W) nats.

    Args:
        hr: (B, 3, H, W) in [-1, 1] on the 256 grey levels.
        parameters: (B, 6, 9 or 21, H, W), float32 or wider.
        before: of parameters of 21 channels.
    """
    return _given(hr, parameters, before).log_prob(hr.movedim(1, -1)).movedim(-1, 1)


def negative_log_likelihood(
    hr: Tensor,
    parameters: Tensor,
    before: PixelsBefore | None = None,
    palette: Tensor | None = None,
) -> Tensor:
    """-log p(hr | latents), (B,) nats per picture; arguments as :func:`logistic_log_prob`.

    Args:
        palette: (K, 3) in [-1, 1], all colours of hr, over which each pixel's likelihood then is
            normalised; None for every colour there is.
    """
    colours, pixels = _given(hr, parameters, before), hr.movedim(1, -1)
    log_prob = colours.log_prob(pixels).sum(-1)
    if palette is not None:
        log_prob = log_prob - _log_sum(colours, palette)
    return -log_prob.sum(dim=(1, 2))


def logistic_pixels(
    parameters: Tensor, noise: Tensor | None, before: PixelsBefore | None = None
) -> Tensor:
    """The likelihood's parameters (B, 6, 9 or 21, H, W) -> pixels (B, 3, H, W) on [-1, 1].

    Args:
        parameters, before: as :func:`logistic_log_prob` takes them.
        noise: (B, 3, H, W) standard logistic, or None for the mean, which is not clamped. Drawn
            colours are clamped before the next one depends on them.
    """
    if noise is None:
        return parameters[:, :3]
    if before is not None:
        return before.draw(parameters, noise)
    drawn = Colours.of(parameters.movedim(1, -1)).drawn(noise.movedim(1, -1))
    return drawn.movedim(-1, 1).contiguous()


def _given(hr: Tensor, parameters: Tensor, before: PixelsBefore | None) -> Colours:
    if before is not None:
        return before.colours(hr, parameters)
    return Colours.of(parameters.movedim(1, -1))


def _log_sum(colours: Colours, palette: Tensor) -> Tensor:
    """The log of the sum of a palette's probabilities at each pixel, (B, H, W)."""
    total = torch.full_like(colours.location[..., 0], -torch.inf)
    for colour in palette:
        log_prob = colours.log_prob(colour.expand_as(colours.location))
        total = torch.logaddexp(total, log_prob.sum(-1))
    return total
