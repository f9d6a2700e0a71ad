"""The VAE with a bijective prior that srVAE is compared with (Gatopoulos 2020, table 1).

    p(hr, z) = p(hr | z) p(z)       z is (B, 16, H / 4, W / 4); p(z) is a RealNVP;
    q(z | hr)                       pixels are mixtures of discretised logistics

Networks, names and likelihood are those of :mod:`~vdsr_cli.models.srvae`; the paper's has
34,276,364 parameters. It is an unconditional prior of pictures of one size.
"""

import torch
from torch import Tensor, nn

from vdsr_cli.config import Temperature
from vdsr_cli.models.dmol import CHANNELS_PER_COMPONENT, dmol_nll, dmol_pixels
from vdsr_cli.models.protocol import Elbo, LatentShape, NoiseSource, temperature_at
from vdsr_cli.models.realnvp import RealNVP
from vdsr_cli.models.srvae import SCALE, Bound, Gaussian, PixelDraw, to_dmol
from vdsr_cli.models.srvae_config import LATENT_CELL, FlowVAEConfig
from vdsr_cli.models.srvae_layers import Core, NormedConv, dense_decoder, dense_encoder


class FlowVAE(nn.Module):
    """The model. Pictures are (B, 3, S, S) in [0, 1], S the configuration's ``hr_size``."""

    is_low_bit = False
    """Whether its likelihood is of 5 bits."""
    scale = SCALE
    """Scale of the LR pictures beside those it is given, which it does not look at."""

    def __init__(self, config: FlowVAEConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_channels
        outputs = CHANNELS_PER_COMPONENT * config.components
        self.p_z = RealNVP(channels, config.flow)
        self.q_z = Core(dense_encoder(3, 2 * channels, config.q_z))
        self.p_x = Core(dense_decoder(channels, outputs, config.p_x))

    @property
    def side_px(self) -> int:
        """The side of the one size of picture it knows."""
        return self.config.hr_size

    @property
    def cell_px(self) -> int:
        """Sides of pictures are multiples of it: those of z are even, for the flow."""
        return 2 * LATENT_CELL

    @property
    def latent_shapes(self) -> list[LatentShape]:
        """z alone."""
        return [LatentShape(0, self.config.latent_channels, LATENT_CELL)]

    @property
    def pixel_noise_channels(self) -> int:
        """Channels of logistic noise that a draw takes: 3 colours and K components."""
        return 3 + self.config.components

    def widest_map(self, height: int, width: int) -> int:
        """Numbers of the largest feature map of one picture: that below the output."""
        *_, last = (module for module in self.p_x.modules() if isinstance(module, NormedConv))
        return last.conv.weight_v.shape[1] * height * width

    def forward(self, image: Tensor, noise: NoiseSource) -> Elbo:
        """One training pass: the parts of the negative ELBO, nats per picture."""
        parameters, rate = self.posterior(image, noise)
        return Elbo(self.distortion(image, parameters), rate)

    def posterior(self, image: Tensor, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        """Draws z from q(z | image): the likelihood's parameters (B, 10 K, S, S) and the rate
        (1, B) in nats, which a flow has from the draw alone: log q(z) - log p(z)."""
        q_z = self._posterior_z(image)
        z = q_z.sample(noise(self.latent_shapes[0]))
        rate = q_z.log_prob(z) - self.p_z.log_prob(z)
        return self._likelihood(z), rate.unsqueeze(0)

    def distortion(self, image: Tensor, parameters: Tensor) -> Tensor:
        """-log p(image | z), (B,) nats per picture of 256 grey levels."""
        return dmol_nll(2 * image.float() - 1, parameters)

    def bound(self, hr: Tensor, lr: Tensor, noise: NoiseSource) -> Bound:
        """The ELBO's parts at one draw of z; ``lr`` is not looked at, and costs nothing."""
        elbo = self.forward(hr, noise)
        nll, kl = elbo.distortion, elbo.rate[0]
        return Bound(nll, torch.zeros_like(nll), kl, torch.zeros_like(kl), -(nll + kl))

    def sample(
        self, batch: int, size: tuple[int, int], noise: NoiseSource | None, temperature: Temperature
    ) -> Tensor:
        """The likelihood's parameters at z of the prior; without noise, at the flow's origin."""
        shape = self.latent_shapes[0]
        if noise is None:
            sides = (side // shape.cell for side in size)
            device = next(self.parameters()).device
            base = torch.zeros(batch, shape.channels, *sides, device=device)
        else:
            base = temperature_at(temperature, shape) * noise(shape)
        return self._likelihood(self.p_z.sample(base, base.new_zeros(batch)))

    def pixels(self, parameters: Tensor, noise: Tensor | None) -> Tensor:
        """:func:`~vdsr_cli.models.dmol.dmol_pixels`."""
        return dmol_pixels(parameters, noise)

    def reconstruct(
        self, hr: Tensor, lr: Tensor, noise: NoiseSource | None, temperature: float
    ) -> Tensor:
        """z ~ q(z | hr) -> the likelihood's parameters; ``lr`` is not looked at."""
        epsilon = noise and noise(self.latent_shapes[0])
        return self._likelihood(self._posterior_z(hr).sample(epsilon, temperature))

    def codes(self, hr: Tensor, lr: Tensor) -> tuple[Tensor, ...]:
        """The mean of q(z | hr)."""
        return (self._posterior_z(hr).mean,)

    def decode(self, codes: tuple[Tensor, ...], draw: PixelDraw) -> Tensor:
        """The likelihood's parameters at z; nothing is drawn."""
        return self._likelihood(*codes)

    def _posterior_z(self, image: Tensor) -> Gaussian:
        return Gaussian.of(self.q_z(self._seen(image)))

    def _likelihood(self, z: Tensor) -> Tensor:
        return to_dmol(self.p_x(self._seen(z)))

    def _seen(self, tensor: Tensor) -> Tensor:
        """In the dtype of the networks' parameters."""
        return tensor.to(next(self.q_z.parameters()).dtype)
