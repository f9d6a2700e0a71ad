"""RealNVP (Dinh et al. 2016) as srVAE's prior over u, and the simpler priors it can stand for.

    u (B, C, H, W) ─► 3 checkerboard couplings ─► squeeze, 3 channel couplings, unsqueeze
                   ─► squeeze; half of the channels ─► 4 checkerboard couplings ─► v ~ N(0, I)

A coupling changes one half of its input by a shift and a scale that it computes from the other:
``x <- (x + t) exp(s)``, whose log-determinant is the sum of s. Every prior has ``log_prob(u)`` and
``sample(noise, choice)``. Module names are those of the published state dicts; no weights were
ever published, so the order of channels in a squeeze is Dinh's.
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.models.srvae_config import DenseSpec
from vdsr_cli.models.srvae_layers import DenseLayer, NormedConv

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class LatentPrior(Protocol):
    """p(u)."""

    def log_prob(self, u: Tensor) -> Tensor:
        """(B, C, H, W) -> (B,) nats."""

    def sample(self, noise: Tensor, choice: Tensor) -> Tensor:
        """u from standard normals of its shape and, for a mixture, uniforms (B,) in [0, 1)."""


def gaussian_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log-density of a diagonal Gaussian, elementwise, in nats."""
    return -_HALF_LOG_TWO_PI - log_std - 0.5 * ((x - mean) * torch.exp(-log_std)) ** 2


def standard_log_prob(x: Tensor) -> Tensor:
    """Log-density of N(0, I): (B, ...) -> (B,) nats."""
    return (-_HALF_LOG_TWO_PI - 0.5 * x**2).flatten(1).sum(1)


class StandardNormal(nn.Module):
    """N(0, I)."""

    def log_prob(self, u: Tensor) -> Tensor:
        """See :class:`LatentPrior`."""
        return standard_log_prob(u)

    def sample(self, noise: Tensor, choice: Tensor) -> Tensor:
        """The noise itself."""
        return noise


class MixtureOfGaussians(nn.Module):
    """Equally likely diagonal Gaussians over a latent of fixed size.

    Args:
        dimensions: numbers of a latent.
    """

    def __init__(self, components: int, dimensions: int) -> None:
        super().__init__()
        self.z_pre = nn.Parameter(0.1 * torch.randn(1, 2 * components, dimensions))
        self.pi = nn.Parameter(torch.full((components,), 1 / components), requires_grad=False)

    def log_prob(self, u: Tensor) -> Tensor:
        """See :class:`LatentPrior`."""
        mean, log_std = self._moments()
        each = gaussian_log_prob(u.flatten(1).unsqueeze(1), mean, log_std).sum(2)
        return torch.logsumexp(each + self.pi.float().log(), dim=1)

    def sample(self, noise: Tensor, choice: Tensor) -> Tensor:
        """See :class:`LatentPrior`."""
        mean, log_std = self._moments()
        edges = self.pi.float().cumsum(0)
        index = torch.searchsorted(edges, choice).clamp(max=len(edges) - 1)
        chosen = mean[0, index] + log_std[0, index].exp() * noise.flatten(1)
        return chosen.view_as(noise)

    def _moments(self) -> tuple[Tensor, Tensor]:
        mean, pre_variance = self.z_pre.float().chunk(2, dim=1)
        return mean, 0.5 * torch.log(F.softplus(pre_variance) + 1e-10)


class Rescale(nn.Module):
    """A learned factor a channel, weight-normed: its length and its sign."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(channels, 1, 1))
        self.weight_v = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.weight_g * self.weight_v / self.weight_v.abs())


class Coupling(nn.Module):
    """One affine coupling.

    Args:
        channels: of the part that is changed.
        spec: of the network that computes shift and scale.
        is_checkerboard: the parts are the colours of a checkerboard, else halves of the channels.
        is_reversed: which part is changed; of a checkerboard unreversed the one with the top left
            pixel, of channels unreversed the first half.
    """

    def __init__(
        self, channels: int, spec: DenseSpec, *, is_checkerboard: bool, is_reversed: bool
    ) -> None:
        super().__init__()
        self.is_checkerboard, self.is_reversed = is_checkerboard, is_reversed
        layer = DenseLayer(channels, spec.growth, spec.steps)
        self.st_net = nn.Sequential(layer, NormedConv(layer.outputs, 2 * channels, 3))
        self.rescale = Rescale(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The changed x and the log-determinant (B,)."""
        if not self.is_checkerboard:
            kept, changed = self._halves(x)
            scale, shift = self._scale_and_shift(kept)
            return self._joined(kept, (changed + shift) * scale.exp()), _total(scale)
        scale, shift = self._masked(x)
        return (x + shift) * scale.exp(), _total(scale)

    def inverse(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`forward`."""
        if not self.is_checkerboard:
            kept, changed = self._halves(x)
            scale, shift = self._scale_and_shift(kept)
            return self._joined(kept, changed * torch.exp(-scale) - shift)
        scale, shift = self._masked(x)
        return x * torch.exp(-scale) - shift

    def _scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        seen = kept.to(self.rescale.weight_g.dtype)  # the flow itself is float32
        raw, shift = self.st_net(seen).float().chunk(2, dim=1)
        scale: Tensor = self.rescale(torch.tanh(raw))
        return scale, shift

    def _masked(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift of the pixels that change, zero on those that are kept."""
        kept = _checkerboard(x, is_reversed=self.is_reversed)
        scale, shift = self._scale_and_shift(x * kept)
        return scale * (1 - kept), shift * (1 - kept)

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The kept half of the channels and the one that changes."""
        first, second = x.chunk(2, dim=1)
        return (first, second) if self.is_reversed else (second, first)

    def _joined(self, kept: Tensor, changed: Tensor) -> Tensor:
        return torch.cat([kept, changed] if self.is_reversed else [changed, kept], dim=1)


def _total(scale: Tensor) -> Tensor:
    return scale.flatten(1).sum(1)


def _checkerboard(x: Tensor, *, is_reversed: bool) -> Tensor:
    """(H, W) of 0 and 1, 0 at the top left unless reversed."""
    rows = torch.arange(x.shape[2], device=x.device).unsqueeze(1)
    columns = torch.arange(x.shape[3], device=x.device)
    return ((rows + columns + int(is_reversed)) % 2).to(x.dtype)


def squeeze(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 4 C, H / 2, W / 2): the pixels of each 2x2 block, channel by channel."""
    return F.pixel_unshuffle(x, 2)


def unsqueeze(x: Tensor) -> Tensor:
    """Undoes :func:`squeeze`."""
    return F.pixel_shuffle(x, 2)


def split_diagonals(x: Tensor) -> tuple[Tensor, Tensor]:
    """The squeeze in the alternative order, split in half: two (B, 2 C, H / 2, W / 2).

    The first holds the top left and the bottom right pixels of the blocks, the second the others.
    """
    pixels = squeeze(x)
    top_left, top_right, bottom_left, bottom_right = (pixels[:, i::4] for i in range(4))
    main = torch.cat([top_left, bottom_right], dim=1)
    return main, torch.cat([top_right, bottom_left], dim=1)


def join_diagonals(main: Tensor, other: Tensor) -> Tensor:
    """Undoes :func:`split_diagonals`."""
    (top_left, bottom_right), (top_right, bottom_left) = main.chunk(2, 1), other.chunk(2, 1)
    blocks = torch.stack([top_left, top_right, bottom_left, bottom_right], dim=2)
    return unsqueeze(blocks.flatten(1, 2))


class FlowScale(nn.Module):
    """One scale of the flow and, inside, the next."""

    def __init__(self, channels: int, spec: DenseSpec, *, is_last: bool) -> None:
        super().__init__()
        flips = (False, True, False, True) if is_last else (False, True, False)
        self.in_couplings = nn.ModuleList(
            Coupling(channels, spec, is_checkerboard=True, is_reversed=flip) for flip in flips
        )
        self.out_couplings = nn.ModuleList(
            Coupling(2 * channels, spec, is_checkerboard=False, is_reversed=flip)
            for flip in (() if is_last else flips)
        )
        self.next_block = None if is_last else FlowScale(2 * channels, spec, is_last=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> the base variable in its place, and the log-determinant (B,)."""
        x, log_det = _through(self.in_couplings, x, x.new_zeros(len(x)))
        if self.next_block is None:
            return x, log_det
        squeezed, log_det = _through(self.out_couplings, squeeze(x), log_det)
        main, other = split_diagonals(unsqueeze(squeezed))
        main, more = self.next_block(main)
        return join_diagonals(main, other), log_det + more

    def inverse(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`forward`."""
        if self.next_block is not None:
            main, other = split_diagonals(x)
            x = squeeze(join_diagonals(self.next_block.inverse(main), other))
            x = unsqueeze(_back(self.out_couplings, x))
        return _back(self.in_couplings, x)


def _through(couplings: nn.ModuleList, x: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
    for coupling in couplings:
        x, more = coupling(x)
        log_det = log_det + more
    return x, log_det


def _back(couplings: nn.ModuleList, x: Tensor) -> Tensor:
    for coupling in reversed(couplings):
        x = coupling.inverse(x)  # type: ignore[operator]  # a list holds any module to mypy
    return x


class RealNVP(nn.Module):
    """The flow as a prior; sides of u are even.

    Args:
        spec: of each coupling's network.
    """

    def __init__(self, channels: int, spec: DenseSpec) -> None:
        super().__init__()
        self.flows = FlowScale(channels, spec, is_last=False)

    def log_prob(self, u: Tensor) -> Tensor:
        """log N(f(u)) + log |det df/du| (Gatopoulos 2020, eq. 2): (B, C, H, W) -> (B,) nats."""
        base, log_det = self.flows.forward(u)
        return standard_log_prob(base) + log_det

    def sample(self, noise: Tensor, choice: Tensor) -> Tensor:
        """The flow backwards; ``choice`` is not looked at."""
        return self.flows.inverse(noise)
