"""The two blocks every model of the VDVAE family is made of (Child 2021, figure 2).

    bottom-up                         top-down, one stochastic layer
    ---------                         ------------------------------
    x ──► f ──(+)──► activation       x ─(+ gate * g)─┬──► prior ──► p(z | x), residual
          └────┘                                      ├──► enc(x, activation) ──► q(z | x, hr)
                                                      ▼
                                      x + residual + z_proj(z) ──► resnet ──► x

``f``, ``enc``, ``prior`` and ``resnet`` are built by a :class:`BlockStyle`: the published models'
bottleneck of four convolutions with GELU, or the compact models' plain pair with ReLU. The names
``enc``, ``enc_y``, ``prior``, ``z_proj``, ``resnet``, ``gate_param`` and ``c1..c4`` are those of
the published state dicts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.models.distributions import gaussian_kl, gaussian_log_ratio, gaussian_sample
from vdsr_cli.models.fused import conv_add, conv_gelu, conv_relu


class Bottleneck(nn.Module):
    """Four convolutions 1-k-k-1, each behind an exact GELU: (B, c_in, H, W) -> (B, c_out, H, W)."""

    def __init__(
        self, channels_in: int, channels_mid: int, channels_out: int, *, kernel: int, residual: bool
    ) -> None:
        super().__init__()
        self.residual = residual
        pad = kernel // 2
        self.c1 = nn.Conv2d(channels_in, channels_mid, 1)
        self.c2 = nn.Conv2d(channels_mid, channels_mid, kernel, padding=pad)
        self.c3 = nn.Conv2d(channels_mid, channels_mid, kernel, padding=pad)
        self.c4 = nn.Conv2d(channels_mid, channels_out, 1)

    @property
    def last(self) -> nn.Conv2d:
        """The convolution that writes the output; initialisation scales it."""
        return self.c4

    def hidden(self, x: Tensor) -> Tensor:
        """The input of :attr:`last`."""
        h = conv_gelu(self.c1, F.gelu(x))
        return conv_gelu(self.c3, conv_gelu(self.c2, h))

    def context(self, y: Tensor) -> Tensor:
        """The part of the first convolution's output that ``y``, the last input channels, adds."""
        return F.conv2d(F.gelu(y), self.c1.weight[:, -y.shape[1] :], self.c1.bias)

    def beside(self, x: Tensor, context: Tensor) -> Tensor:
        """The output for x, the first of the input's channels, beside those of a context."""
        weight = self.c1.weight[:, : x.shape[1]]
        h = F.gelu(conv_add(F.gelu(x), weight, None, context, padding=0))
        last: Tensor = self.c4(conv_gelu(self.c3, conv_gelu(self.c2, h)))
        return last

    def forward(self, x: Tensor) -> Tensor:
        h = self.hidden(x)
        if self.residual:
            return conv_add(h, self.c4.weight, self.c4.bias, x, padding=0)
        last: Tensor = self.c4(h)
        return last


class Plain(nn.Module):
    """Two convolutions with a ReLU between: 3x3 then ``last_kernel``; same shapes as Bottleneck.

    The densest arithmetic a processor's matrix unit can be given at 48-64 channels.
    """

    def __init__(
        self,
        channels_in: int,
        channels_mid: int,
        channels_out: int,
        *,
        last_kernel: int,
        residual: bool,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.c1 = nn.Conv2d(channels_in, channels_mid, 3, padding=1)
        self.c2 = nn.Conv2d(channels_mid, channels_out, last_kernel, padding=last_kernel // 2)

    @property
    def last(self) -> nn.Conv2d:
        """The convolution that writes the output; initialisation scales it."""
        return self.c2

    def hidden(self, x: Tensor) -> Tensor:
        """The input of :attr:`last`."""
        return conv_relu(self.c1, x)

    def context(self, y: Tensor) -> Tensor:
        """The part of the first convolution's output that ``y``, the last input channels, adds."""
        return F.conv2d(y, self.c1.weight[:, -y.shape[1] :], self.c1.bias, padding=1)

    def beside(self, x: Tensor, context: Tensor) -> Tensor:
        """The output for x, the first of the input's channels, beside those of a context."""
        weight = self.c1.weight[:, : x.shape[1]]
        last: Tensor = self.c2(F.relu(conv_add(x, weight, None, context, padding=1), inplace=True))
        return last

    def forward(self, x: Tensor) -> Tensor:
        h = self.hidden(x)
        if self.residual:
            return conv_add(h, self.c2.weight, self.c2.bias, x, padding=self.c2.kernel_size[0] // 2)
        last: Tensor = self.c2(h)
        return last


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStyle:
    """Which function the boxes of the diagram above are.

    Attributes:
        kind: "bottleneck" (published models) or "plain" (compact models).
        bottleneck_multiple: inner width over outer width, bottleneck only.
        log_std_range: clamp of log sigma, or None for none (published models).
    """

    kind: Literal["bottleneck", "plain"]
    bottleneck_multiple: float = 0.25
    log_std_range: tuple[float, float] | None = None

    def residual(self, width: int, *, kernel: int = 3) -> Bottleneck | Plain:
        """A shape-keeping residual block."""
        if self.kind == "plain":
            return Plain(width, width, width, last_kernel=3, residual=True)
        mid = int(width * self.bottleneck_multiple)
        return Bottleneck(width, mid, width, kernel=kernel, residual=True)

    def head(
        self, channels_in: int, width: int, channels_out: int, *, kernel: int = 3
    ) -> Bottleneck | Plain:
        """A block without a skip that predicts ``channels_out`` maps at width ``width``."""
        if self.kind == "plain":
            return Plain(channels_in, width, channels_out, last_kernel=1, residual=False)
        mid = int(width * self.bottleneck_multiple)
        return Bottleneck(channels_in, mid, channels_out, kernel=kernel, residual=False)


class TopDownBlock(nn.Module):
    """One stochastic layer of the top-down path, for training and for sampling.

    States x (B * n, width, H, W) may hold n samples of each of B pictures, side by side; their
    activations (B, width, H, W) then serve all samples.

    Args:
        width: channels of the running state x.
        latent_channels: channels of z.
        style: how its boxes are built.
        kernel: inner kernel of a bottleneck (1 at resolutions 1 and 2).
        gated: whether LR activations can enter: x + gate_param * g (Chira 2022, eq. 9).
        lr_posterior: whether it has ``enc_y``, the head of q(z | x, lr) (Prost 2024, eq. 12).
    """

    def __init__(
        self,
        width: int,
        latent_channels: int,
        style: BlockStyle,
        *,
        kernel: int = 3,
        gated: bool = False,
        lr_posterior: bool = False,
    ) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        self.log_std_range = style.log_std_range
        self.is_rate_drawn = False
        self.enc = style.head(2 * width, width, 2 * latent_channels, kernel=kernel)
        self.prior = style.head(width, width, 2 * latent_channels + width, kernel=kernel)
        self.z_proj = nn.Conv2d(latent_channels, width, 1)
        self.resnet = style.residual(width, kernel=kernel)
        self.gate_param = nn.Parameter(torch.zeros(1, width, 1, 1)) if gated else None
        self.enc_y = (
            style.head(2 * width, width, 2 * latent_channels, kernel=kernel)
            if lr_posterior
            else None
        )

    def condition(self, x: Tensor, lr_activation: Tensor | None) -> Tensor:
        """``x + gate * g`` (Chira 2022, eq. 9); x itself without an LR activation."""
        if self.gate_param is None or lr_activation is None:
            return x
        gate = self.gate_param.to(x.dtype)
        if len(x) == len(lr_activation):  # the same in fewer dimensions, which is faster
            return torch.addcmul(x, gate, lr_activation)
        samples = x.view(len(lr_activation), -1, *x.shape[1:])
        return torch.addcmul(samples, gate, lr_activation.unsqueeze(1)).flatten(0, 1)

    def prior_moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """p(z | x): mean and log std (B, latent_channels, H, W) in float32, and the state
        ``x + residual`` that the same network predicts."""
        hidden, last, moments = self.prior.hidden(x), self.prior.last, 2 * self.latent_channels
        bias = cast(Tensor, last.bias)
        mean, log_std = self._halves(F.conv2d(hidden, last.weight[:moments], bias[:moments]))
        return mean, log_std, self._prior_state(hidden, x)

    def _prior_state(self, hidden: Tensor, x: Tensor) -> Tensor:
        """``x + residual``, of the prior's last hidden maps."""
        last, moments = self.prior.last, 2 * self.latent_channels
        bias = cast(Tensor, last.bias)
        return conv_add(hidden, last.weight[moments:], bias[moments:], x, padding=0)

    def posterior_moments(self, x: Tensor, activation: Tensor) -> tuple[Tensor, Tensor]:
        """q(z | x, hr): mean and log std (B, latent_channels, H, W) in float32."""
        return self._moments(self.enc, x, activation)

    def lr_posterior_moments(self, x: Tensor, lr_activation: Tensor) -> tuple[Tensor, Tensor]:
        """q(z | x, lr) of a block with ``lr_posterior``: like :meth:`posterior_moments`."""
        if self.enc_y is None:
            raise ValueError("this block was built without lr_posterior")
        return self._moments(self.enc_y, x, lr_activation)

    def advance(self, state: Tensor, z: Tensor) -> Tensor:
        """The next state after drawing z: ``resnet(state + z_proj(z))``."""
        project, z = self.z_proj, z.to(state.dtype)
        advanced: Tensor = self.resnet(conv_add(z, project.weight, project.bias, state, padding=0))
        return advanced

    def infer(
        self, x: Tensor, activation: Tensor, epsilon: Tensor, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Training pass, z from the posterior: the next state and the rate, elementwise.

        ``seen`` is the state that the posterior sees, where it is not ``x``.
        """
        mean_q, log_std_q = self.posterior_moments(x if seen is None else seen, activation)
        mean_p, log_std_p, state = self.prior_moments(x)
        z = gaussian_sample(mean_q, log_std_q, epsilon)
        return self.advance(state, z), self.rate(z, mean_q, log_std_q, mean_p, log_std_p)

    def rate(
        self, z: Tensor, mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor
    ) -> Tensor:
        """KL(q || p), elementwise; inside :func:`drawn_rates` log q(z) - log p(z)."""
        if self.is_rate_drawn:
            return gaussian_log_ratio(z, mean_q, log_std_q, mean_p, log_std_p)
        return gaussian_kl(mean_q, log_std_q, mean_p, log_std_p)

    def generate(self, x: Tensor, epsilon: Tensor | None, temperature: float) -> Tensor:
        """Sampling pass: z from the prior at a temperature; its mean where epsilon is None."""
        mean, log_std, state = self.prior_moments(x)
        return self.advance(state, gaussian_sample(mean, log_std, epsilon, temperature))

    def infer_lr_posterior(
        self, x: Tensor, activation: Tensor, lr_activation: Tensor, epsilon: Tensor
    ) -> tuple[Tensor, Tensor]:
        """CVDVAE's training pass (Prost 2024, eq. 14): z from q(z | x, hr).

        Returns the next state and KL(q(z | x, hr) || q(z | x, lr)), elementwise.
        """
        mean, log_std = self.posterior_moments(x, activation)
        mean_lr, log_std_lr = self.lr_posterior_moments(x, lr_activation)
        state = self._prior_state(self.prior.hidden(x), x)
        z = gaussian_sample(mean, log_std, epsilon)
        return self.advance(state, z), gaussian_kl(mean, log_std, mean_lr, log_std_lr)

    def generate_lr_posterior(
        self, x: Tensor, lr_activation: Tensor, epsilon: Tensor | None, temperature: float
    ) -> Tensor:
        """CVDVAE's sampling pass: z from q(z | x, lr) at a temperature; else as ``generate``."""
        mean, log_std = self.lr_posterior_moments(x, lr_activation)
        state = self._prior_state(self.prior.hidden(x), x)
        return self.advance(state, gaussian_sample(mean, log_std, epsilon, temperature))

    def _moments(
        self, head: Bottleneck | Plain, x: Tensor, activation: Tensor
    ) -> tuple[Tensor, Tensor]:
        context = head.context(activation.to(x.dtype))
        return self._halves(head.beside(x, repeated(context, len(x) // len(context))))

    def _halves(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2 * latent_channels, H, W) -> mean, and log std within its range, float32."""
        # Converted whole: a half of the channels lies scattered, which takes several times as long.
        mean, log_std = moments.float().chunk(2, dim=1)
        return mean, log_std if self.log_std_range is None else log_std.clamp(*self.log_std_range)


@contextmanager
def drawn_rates(model: nn.Module) -> Iterator[None]:
    """A block in which the rates of a model are log q(z) - log p(z) of the latents that it drew,
    as importance weights need them, instead of their expectations."""
    blocks: list[Any] = [module for module in model.modules() if hasattr(module, "is_rate_drawn")]
    for block in blocks:
        block.is_rate_drawn = True
    try:
        yield
    finally:
        for block in blocks:
            block.is_rate_drawn = False


def repeated(maps: Tensor, repeats: int) -> Tensor:
    """(B, C, H, W) -> (B * repeats, C, H, W), those of one picture side by side, in the layout of
    the convolutions: pixel by pixel."""
    if repeats == 1:
        return maps
    return maps.permute(0, 2, 3, 1).repeat_interleave(repeats, 0).permute(0, 3, 1, 2)
