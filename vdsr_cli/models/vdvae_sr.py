"""VDVAE-SR: a VDVAE whose prior sees the low-resolution picture (Chira 2022).

    lr ─► LR encoder ─► g[64], g[32], g[16], g[8], g[4], g[1]
                           │ gate   one per block and channel, zero at the start
                           ▼
    x ───────────────────(+)─┬─► prior ─► p(z_i | z_<i, lr)              equation 9
                             └─► enc(x, activation) ─► q(z_i | z_<i, hr, lr)

    -log p(hr | lr) <= distortion + sum_i KL(q(z_i | z_<i, hr, lr) || p(z_i | z_<i, lr))   (11)

Prior and posterior both see the gated activation: with it in the prior alone training diverges.
At zero gates the outputs are the pretrained prior's, whatever the LR picture.

Where paper, thesis and released code differ, and what is done here unless a :class:`Variant` says
otherwise:

* *Levels*: the paper gives g to every level of the LR encoder; the released code only to
  resolutions below 32, so the finest that its 256-pixel model ever sees of a 64x64 picture is
  16x16. Default here: every level; ``gate_below=32`` is the released code.
* *Gates*: a scalar per block in the paper, a vector over channels in the code. Here the vector.
* *Top*: the paper replaces the first block's input by g and predicts p(z_0 | lr) from it with two
  linear layers (equations 9 and 10); in the released code that branch is unreachable and z_0 is an
  ordinary block. Default here: the ordinary block; ``conditional_top=True`` is the paper. It does
  not start at the pretrained prior's outputs.
* *Where g goes*: the thesis (section 5.6) also adds it to the HR activations alone, which the
  posterior sees; ``lr_into="posterior"``, here behind gates, which the thesis did not have there.
* *LR encoder*: the thesis begins with a single linear layer (section 5.4): ``trivial_encoder``.
* *What trains*: HR encoder frozen, the rest trained, in both texts; the thesis also tries a frozen
  decoder. The released 256-pixel model trains the encoder and freezes the LR encoder.
* *Targets*: ffhq256 was trained on grey levels floored to 5 bits, and so is a model on it here; the
  released code gives it 8 bits and keeps its 32 bins: ``target_bits=8``. What it then calls
  bits are those of no 8-bit picture.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from vdsr_cli.config import Temperature
from vdsr_cli.models.blocks import TopDownBlock, repeated
from vdsr_cli.models.distributions import gaussian_sample
from vdsr_cli.models.protocol import Elbo, LatentShape, NoiseSource, temperature_at
from vdsr_cli.models.sampling import FixedSizeSampling
from vdsr_cli.models.vdvae import (
    PUBLISHED,
    VDVAE,
    Decoder,
    Encoder,
    EncoderConfig,
    VDVAEConfig,
    distortion,
    load_prior,
    noise_at,
    run_block,
    set_trainable,
    zero_conv_biases,
)

PUBLISHED_LR_ENCODERS: Mapping[str, EncoderConfig] = MappingProxyType(
    {
        "ffhq256": PUBLISHED["imagenet64"].encoder,
        "imagenet64": replace(
            PUBLISHED["imagenet32"].encoder,
            image_size=16,
            enc_blocks="16x9,16d2,8x8,8d2,4x6,4d4,1x6",
        ),
    }
)
"""The LR encoders of the papers' two models, 64 to 256 and 16 to 64, by their prior."""


PARTS = ("encoder", "decoder", "lr-encoder")
"""Parts that can be trained or frozen."""
LR_INTO = ("both", "prior", "posterior")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Which VDVAE-SR of paper, thesis and released code; the module says where each is from.

    Attributes:
        gate_below: only blocks at resolutions below it take LR activations; None for all that
            the LR encoder has, 0 for none. The released code: 32.
        conditional_top: predict p(z_0 | lr) by linear layers on the top LR activation.
        lr_into: what sees the LR activations: "both", "prior" or "posterior".
        trivial_encoder: whether the LR encoder is one linear layer to the 1x1 top.
        trained: of :data:`PARTS`; gates and the top prior always are.
        target_bits: 8 for the released code's targets on a 5-bit prior; None for the prior's own.
    """

    gate_below: int | None = None
    conditional_top: bool = False
    lr_into: str = "both"
    trivial_encoder: bool = False
    trained: tuple[str, ...] = ("decoder", "lr-encoder")
    target_bits: int | None = None

    def __post_init__(self) -> None:
        if self.lr_into not in LR_INTO:
            raise ValueError(f"lr_into is one of {', '.join(LR_INTO)}, not {self.lr_into!r}")
        if unknown := sorted(set(self.trained) - set(PARTS)):
            raise ValueError(f"trained are some of {', '.join(PARTS)}, not {', '.join(unknown)}")
        if self.target_bits not in (None, 5, 8):
            raise ValueError(f"target_bits is 5 or 8, not {self.target_bits}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VDVAESRConfig(Variant):
    """A VDVAE-SR.

    Attributes:
        prior: the high-resolution VDVAE.
        lr: the LR encoder, e.g. ``PUBLISHED["imagenet64"].encoder``; it normalises the LR picture
            by its own constants (the released code uses ImageNet-64's for both pictures).
    """

    prior: VDVAEConfig
    lr: EncoderConfig

    def __post_init__(self) -> None:
        Variant.__post_init__(self)
        for resolution in self.gated_resolutions:
            if self.lr.width_at(resolution) != self.prior.width_at(resolution):
                raise ValueError(f"LR encoder and prior differ in width at {resolution}")
        top = self.prior.decoder_layers[0].resolution
        if self.conditional_top and top not in self.lr_resolutions:
            raise ValueError(f"no LR activation at the top resolution {top}")
        if self.target_bits == 5 and not self.prior.low_bit:
            raise ValueError("the prior knows 8 bits: its targets cannot have 5")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict``; raises TypeError on unknown or missing names."""
        prior, lr = VDVAEConfig(**values["prior"]), EncoderConfig(**values["lr"])
        trained = tuple(values.get("trained", Variant().trained))
        return cls(**{**values, "prior": prior, "lr": lr, "trained": trained})

    @property
    def is_floored(self) -> bool:
        """Whether targets are floored to 5 bits."""
        return self.prior.low_bit and self.target_bits != 8

    @property
    def lr_resolutions(self) -> frozenset[int]:
        """Resolutions that the LR encoder has an activation of."""
        return frozenset({1}) if self.trivial_encoder else self.lr.resolutions

    @property
    def scale(self) -> int:
        """Super-resolution factor."""
        return self.prior.image_size // self.lr.image_size

    @property
    def gated_resolutions(self) -> frozenset[int]:
        """Resolutions whose blocks take LR activations."""
        limit = self.gate_below
        common = self.lr_resolutions & self.prior.encoder.resolutions
        return frozenset(r for r in common if limit is None or r < limit)


class TrivialEncoder(nn.Module):
    """lr (B, 3, s, s) in [0, 1] -> {1: (B, width, 1, 1)}, a linear map of the whole picture."""

    def __init__(self, config: EncoderConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Conv2d(3, width, config.image_size)
        zero_conv_biases(self)

    def forward(self, lr: Tensor) -> dict[int, Tensor]:
        return {1: self.linear(self.config.normalise(lr).to(self.linear.weight.dtype))}


class TopPrior(nn.Module):
    """p(z_0 | lr) = N(mu(g_0), sigma(g_0)) with linear mu and log sigma (equation 10).

    The block's own prior net then only gives the residual; its input, and what the state goes on
    from, is g_0 (equation 9), while q(z_0 | hr) sees the unconditioned state (equation 11).
    """

    def __init__(self, width: int, latent_channels: int) -> None:
        super().__init__()
        self.mean = nn.Conv2d(width, latent_channels, 1)
        self.log_std = nn.Conv2d(width, latent_channels, 1)
        for layer in (self.mean, self.log_std):
            nn.init.zeros_(layer.weight)
        zero_conv_biases(self)

    def forward(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """g_0 (B, width, r, r) -> mean and log std (B, latent_channels, r, r), float32."""
        return self.mean(g).float(), self.log_std(g).float()

    def infer(
        self, block: TopDownBlock, x: Tensor, activation: Tensor, g: Tensor, epsilon: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Training pass: next state and rate of q(z_0 | hr) over p(z_0 | lr), elementwise."""
        mean_q, log_std_q = block.posterior_moments(x, activation)
        mean_p, log_std_p = self(g)
        z = gaussian_sample(mean_q, log_std_q, epsilon)
        rate = block.rate(z, mean_q, log_std_q, mean_p, log_std_p)
        return block.advance(block.prior_moments(g)[2], z), rate

    def generate(
        self, block: TopDownBlock, g: Tensor, epsilon: Tensor | None, temperature: float
    ) -> Tensor:
        """Sampling pass: the next state."""
        mean, log_std = self(g)
        z = gaussian_sample(mean, log_std, epsilon, temperature)
        return block.advance(block.prior_moments(g)[2], z)


class VDVAESR(FixedSizeSampling, nn.Module):
    """p(hr | lr) with its posterior; see the module's diagram.

    Pictures are in [0, 1]: hr (B, 3, S, S), lr (B, 3, S / scale, S / scale). With ``recompute``
    set, training keeps less in memory; see :func:`~vdsr_cli.models.vdvae.run_block`.
    """

    def __init__(self, config: VDVAESRConfig) -> None:
        super().__init__()
        prior = config.prior
        self.config = config
        self.scale = config.scale
        self.encoder = Encoder(prior.encoder)
        self.decoder = Decoder(prior, gated=config.gated_resolutions)
        top = prior.width_at(prior.decoder_layers[0].resolution)
        self.lr_encoder = (
            TrivialEncoder(config.lr, top) if config.trivial_encoder else Encoder(config.lr)
        )
        self.recompute = False
        self.top_prior = TopPrior(top, prior.zdim) if config.conditional_top else None

    @classmethod
    def from_prior(cls, prior: VDVAE, lr: EncoderConfig, variant: Variant | None = None) -> Self:
        """A model that starts from a copy of ``prior``, its LR encoder fresh, its gates zero."""
        chosen = asdict(variant or Variant())
        model = cls(VDVAESRConfig(prior=prior.config, lr=lr, **chosen))
        load_prior(model, prior)
        return model

    @property
    def hr_config(self) -> VDVAEConfig:
        """Configuration of the network that makes the HR picture."""
        return self.config.prior

    @property
    def is_floored(self) -> bool:
        """Whether it was trained on grey levels floored to 5 bits."""
        return self.config.is_floored

    def select_trainable(self) -> int:
        """Chooses what trains, by ``requires_grad``, as the configuration has it; returns how many
        values do. The decoder has the posterior's heads; gates and the top prior always train."""
        frozen = [part.replace("-", "_") for part in PARTS if part not in self.config.trained]

        def is_trained(name: str) -> bool:
            return name.endswith(".gate_param") or name.split(".", 1)[0] not in frozen

        return set_trainable(self, is_trained)

    def forward(self, hr: Tensor, lr: Tensor, noise: NoiseSource) -> Elbo:
        """One training pass: the parts of the negative ELBO of hr given lr, nats per picture.

        Args:
            hr: (B, 3, S, S) in [0, 1].
            lr: (B, 3, S / scale, S / scale) in [0, 1].
            noise: standard normals of each layer, for the posterior.
        """
        activations, lr_activations = self.encoder(hr), self.lr_encoder(lr)
        rates: list[Tensor] = []

        def infer(block: TopDownBlock, shape: LatentShape, x: Tensor) -> Tensor:
            activation, g = activations[x.shape[-1]], lr_activations.get(x.shape[-1])
            if self.top_prior is not None and g is not None and shape.layer == 0:
                x, kl = self.top_prior.infer(block, x, activation, g, noise(shape))
            else:
                x, activation, seen = self._conditioned(block, x, activation, g)
                inputs = x, activation, noise(shape), seen
                x, kl = run_block(block.infer, *inputs, recompute=self.recompute)
            rates.append(kl.sum(dim=(1, 2, 3)))
            return x

        parameters = self.decoder.parameters_of(self.decoder.run(hr.shape[0], infer))
        floored, prior = self.config.is_floored, self.config.prior
        return Elbo(distortion(hr, parameters, prior, is_floored=floored), torch.stack(rates))

    def _conditioned(
        self, block: TopDownBlock, x: Tensor, activation: Tensor, g: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Input of a block's prior, the HR activation, and the state that its posterior sees."""
        conditioned, where = block.condition(x, g), self.config.lr_into
        if where == "posterior":
            return x, block.condition(activation, g), x
        return conditioned, activation, conditioned if where == "both" else x

    def elbo_and_mean(self, hr: Tensor, lr: Tensor, noise: NoiseSource) -> tuple[Elbo, Tensor]:
        """:meth:`forward` of hr in [-1, 1], and the mean path's pixels."""
        return self((hr + 1) / 2, lr, noise), self.mean_path(lr)

    def sample(
        self,
        lr: Tensor,
        noise: NoiseSource | None,
        temperature: Temperature = 1.0,
        *,
        repeats: int = 1,
    ) -> Tensor:
        """Draws latents from the conditional prior; returns the likelihood's parameters
        (B * repeats, 10 K, S, S), as :meth:`~vdsr_cli.models.protocol.Sampler.sample` says.

        The released code has no temperature, though its papers' tables vary it.
        """
        lr_activations = self.lr_encoder(lr)

        def generate(block: TopDownBlock, shape: LatentShape, x: Tensor) -> Tensor:
            g, factor = lr_activations.get(x.shape[-1]), temperature_at(temperature, shape)
            epsilon = noise_at(noise, shape, factor)
            if self.top_prior is not None and g is not None and shape.layer == 0:
                return self.top_prior.generate(block, repeated(g, repeats), epsilon, factor)
            x = x if self.config.lr_into == "posterior" else block.condition(x, g)
            return block.generate(x, epsilon, factor)

        return self.decoder.parameters_of(self.decoder.run(lr.shape[0] * repeats, generate))

    def mean_path(self, lr: Tensor) -> Tensor:
        """The picture at the prior's means: (B, 3, S, S) float32 on [-1, 1]."""
        return self.pixels(self.sample(lr, None, 0.0), None)
