"""The very deep VAE of Child (2021), architecture and numbers as published by OpenAI.

    image ─► in_conv ─► [256] ─► [128] ─► ... ─► [4] ─► [1]                bottom-up: Encoder
                          │        │              │      │   activations[resolution]
                          ▼        ▼              ▼      ▼   (training only)
    DMOL ◄─ out_net ◄── [256] ◄─ [128] ◄─ ... ◄─ [4] ◄─ [1] ◄─ bias_xs     top-down: Decoder
                        each block: z ~ q(z | x, activation) or z ~ p(z | x)

    -log p(image) <= distortion + sum over blocks of KL(q(z_i | z_<i, image) || p(z_i | z_<i))

R. Child, "Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images",
ICLR 2021, arXiv 2011.10650. State-dict names and shapes are the published ones. The model knows
one picture size: bias_xs are maps of fixed size and the coarsest level is a single pixel.

Images are (B, 3, H, W) in [0, 1]. Convolutions run in the dtype of the parameters (or of
autocast); moments, KL and likelihood, and the layer that writes the likelihood's parameters, are
float32.
"""

import itertools
import math
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vdsr_cli.config import Temperature
from vdsr_cli.models.blocks import BlockStyle, TopDownBlock
from vdsr_cli.models.dmol import CHANNELS_PER_COMPONENT, dmol_nll, to_levels
from vdsr_cli.models.protocol import Elbo, LatentShape, NoiseSource, temperature_at
from vdsr_cli.models.sampling import MixturePixels
from vdsr_cli.models.vdvae_config import PUBLISHED, EncoderConfig, Layer, VDVAEConfig

__all__ = [
    "PUBLISHED",
    "VDVAE",
    "Decoder",
    "Encoder",
    "EncoderConfig",
    "OutNet",
    "Step",
    "VDVAEConfig",
    "distortion",
    "kernel_at",
    "load_prior",
    "noise_at",
    "run_block",
    "set_trainable",
    "zero_conv_biases",
]

Step = Callable[[TopDownBlock, LatentShape, Tensor], Tensor]
"""Takes a block's input state to its output state: draws its latent in one way or another."""


T = TypeVar("T")


class Encoder(nn.Module):
    """The bottom-up path: image (B, 3, S, S) in [0, 1] -> activations by resolution.

    Of each resolution the output of the last block is kept, (B, width, r, r).
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = config.layers
        style = BlockStyle(kind="bottleneck", bottleneck_multiple=config.bottleneck_multiple)
        self.in_conv = nn.Conv2d(3, config.width, 3, padding=1)
        self.enc_blocks = nn.ModuleList(
            style.residual(config.width_at(layer.resolution), kernel=kernel_at(layer.resolution))
            for layer in self.layers
        )
        self._initialise()

    def _initialise(self) -> None:
        zero_conv_biases(self)
        with torch.no_grad():
            for block in self.enc_blocks:
                cast(nn.Conv2d, block.last).weight.mul_(math.sqrt(1 / len(self.enc_blocks)))

    def forward(self, image: Tensor, *, recompute: bool = False) -> dict[int, Tensor]:
        """Activations by resolution; ``recompute`` as :func:`run_block` takes it.

        Raises:
            ValueError: the image has another size.
        """
        size = self.config.image_size
        if image.shape[1:] != (3, size, size):
            raise ValueError(f"expected (B, 3, {size}, {size}), got {tuple(image.shape)}")
        x = self.in_conv(self.config.normalise(image).to(self.in_conv.weight.dtype))
        activations: dict[int, Tensor] = {}
        for block, layer in zip(self.enc_blocks, self.layers, strict=True):
            x = run_block(block, x, recompute=recompute)
            if layer.down_rate is not None:
                x = F.avg_pool2d(x, layer.down_rate)
            x = _pad_channels(x, self.config.width_at(x.shape[-1]))
            activations[x.shape[-1]] = x
        return activations


class OutNet(nn.Module):
    """State (B, width, S, S) -> parameters of the mixture (B, 10 K, S, S), always float32.

    In half precision they would be off by half a grey level.
    """

    def __init__(self, width: int, num_mixtures: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(width, CHANNELS_PER_COMPONENT * num_mixtures, 1)

    def forward(self, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        """Convolves ``x * gain + bias``, both (1, width, 1, 1), which the convolution takes in."""
        with torch.autocast(x.device.type, enabled=False):
            weight, own_bias = self.out_conv.weight.float(), cast(Tensor, self.out_conv.bias)
            moved = own_bias.float() + F.conv2d(bias.float(), weight).flatten()
            return F.conv2d(x.float(), weight * gain.float(), moved)


class Decoder(nn.Module):
    """The top-down path: learned initial states, the stochastic blocks, the likelihood.

    Args:
        gated: resolutions whose blocks take LR activations through a gate (VDVAE-SR).
        lr_posteriors: how many of the first blocks have the head ``enc_y`` (CVDVAE).
    """

    def __init__(
        self, config: VDVAEConfig, *, gated: Collection[int] = (), lr_posteriors: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        self.layers = config.decoder_layers
        self.shapes = config.latent_shapes
        style = BlockStyle(kind="bottleneck", bottleneck_multiple=config.bottleneck_multiple)
        self.gain = nn.Parameter(torch.ones(1, config.width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, config.width, 1, 1))
        self.dec_blocks = nn.ModuleList(
            TopDownBlock(
                config.width_at(layer.resolution),
                config.zdim,
                style,
                kernel=kernel_at(layer.resolution),
                gated=layer.resolution in gated,
                lr_posterior=index < lr_posteriors,
            )
            for index, layer in enumerate(self.layers)
        )
        self.bias_xs = nn.ParameterList(
            nn.Parameter(torch.zeros(1, config.width_at(r), r, r))
            for r in sorted({layer.resolution for layer in self.layers})
            if r <= config.no_bias_above
        )
        self.out_net = OutNet(config.width, config.num_mixtures)
        self._initialise()

    def _initialise(self) -> None:
        zero_conv_biases(self)
        factor = math.sqrt(1 / len(self.dec_blocks))
        with torch.no_grad():
            for block in self.blocks:
                block.z_proj.weight.mul_(factor)
                block.resnet.last.weight.mul_(factor)
                block.prior.last.weight.zero_()

    @property
    def blocks(self) -> list[TopDownBlock]:
        """The stochastic blocks in order, typed."""
        return [cast(TopDownBlock, block) for block in self.dec_blocks]

    def run(self, batch: int, step: Step, *, stop: int | None = None) -> Tensor:
        """Walks down the blocks (the first ``stop``) and returns the last one's output state.

        A resolution's state is let go as soon as no later block reads it.
        """
        states = {bias.shape[-1]: bias.expand(batch, -1, -1, -1) for bias in self.bias_xs}
        last_use = self._last_use()
        layers = zip(self.blocks, self.layers, self.shapes, strict=True)
        for block, layer, shape in itertools.islice(layers, stop):
            x = step(block, shape, self._enter(states, layer, batch))
            states[layer.resolution] = x
            for resolution in [r for r in states if last_use[r] <= shape.layer]:
                del states[resolution]
        return x

    def parameters_of(self, x: Tensor) -> Tensor:
        """Last state (B, width, S, S) -> the likelihood's parameters (B, 10 K, S, S), float32."""
        parameters: Tensor = self.out_net(x, self.gain, self.bias)
        return parameters

    def _enter(self, states: Mapping[int, Tensor], layer: Layer, batch: int) -> Tensor:
        """The input of a block: its resolution's state plus the upsampled one it mixes in."""
        resolution, width = layer.resolution, self.config.width_at(layer.resolution)
        x = states.get(resolution)
        if layer.mixin is None:
            shape = (batch, width, resolution, resolution)
            return self.gain.new_zeros(shape) if x is None else x
        coarse = states[layer.mixin][:, :width]
        up = F.interpolate(coarse, scale_factor=resolution // layer.mixin, mode="nearest")
        return up if x is None else x + up

    def _last_use(self) -> dict[int, int]:
        """By resolution, the index of the last block that reads or writes its state."""
        last: dict[int, int] = {}
        for index, layer in enumerate(self.layers):
            last[layer.resolution] = index
            if layer.mixin is not None:
                last[layer.mixin] = index
        return last


class VDVAE(MixturePixels, nn.Module):
    """The unconditional model; see the module's diagram.

    With ``recompute`` set, training keeps less in memory; see :func:`run_block`.
    """

    scale = 1
    """The factor of its training pairs: it sees no LR picture."""

    def __init__(self, config: VDVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.encoder = Encoder(config.encoder)
        self.decoder = Decoder(config)

    @property
    def hr_config(self) -> VDVAEConfig:
        """Its own configuration."""
        return self.config

    @property
    def latent_shapes(self) -> list[LatentShape]:
        """Every stochastic layer in the order of drawing, coarse to fine."""
        return self.config.latent_shapes

    @property
    def side_px(self) -> int | None:
        """The side of the one size of picture it knows."""
        return self.config.image_size

    @property
    def fixed_tile(self) -> int:
        """The side of the pictures that it is trained on."""
        return self.config.image_size

    @property
    def cell_px(self) -> int:
        """The same: the coarsest latent is of the whole picture."""
        return self.config.image_size

    @property
    def is_low_bit(self) -> bool:
        """Whether its likelihood is of 5 bits, as that of ffhq256."""
        return self.config.low_bit

    def widest_map(self, height: int, width: int) -> int:
        """Numbers of the decoder's largest feature map; the size is always the one it knows."""
        sides = {layer.resolution for layer in self.config.decoder_layers}
        return max(self.config.width_at(side) * side**2 for side in sides)

    def forward(self, image: Tensor, noise: NoiseSource) -> Elbo:
        """One training pass: the parts of the negative ELBO, in nats per picture.

        Arguments as :meth:`posterior`.
        """
        parameters, rate = self.posterior(image, noise)
        return Elbo(self.distortion(image, parameters), rate)

    def distortion(self, image: Tensor, parameters: Tensor) -> Tensor:
        """-log p(image | latents), (B,) nats per picture; of a 5-bit model, of the floored one."""
        return distortion(image, parameters, self.config)

    def posterior(self, image: Tensor, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        """Draws latents from q(z | image); returns what the decoder makes of them, and their KL.

        Args:
            image: (B, 3, S, S) in [0, 1].
            noise: standard normals of each layer.

        Returns:
            The likelihood's parameters (B, 10 K, S, S), float32, and the rate of each layer
            (layers, B) in nats per picture.
        """
        activations = self.encoder(image, recompute=self.recompute)
        rates: list[Tensor] = []

        def infer(block: TopDownBlock, shape: LatentShape, x: Tensor) -> Tensor:
            inputs = x, activations[x.shape[-1]], noise(shape)
            x, kl = run_block(block.infer, *inputs, recompute=self.recompute)
            rates.append(kl.sum(dim=(1, 2, 3)))
            return x

        parameters = self.decoder.parameters_of(self.decoder.run(image.shape[0], infer))
        return parameters, torch.stack(rates)

    def sample(
        self,
        batch: int,
        size: tuple[int, int],
        noise: NoiseSource | None,
        temperature: Temperature = 1.0,
    ) -> Tensor:
        """Draws ``batch`` pictures' latents from the prior; returns the likelihood's parameters.

        Args:
            size: their height and width, which can only be those it knows.
            noise: standard normals of each layer; None for the mean path.
            temperature: of all blocks or of each level; at 0 no noise is asked for.

        Returns:
            (B, 10 K, S, S) float32; see :func:`~vdsr_cli.models.dmol.dmol_mean` and
            :func:`~vdsr_cli.models.dmol.dmol_sample`.
        """

        if size != (self.side_px, self.side_px):
            raise ValueError(f"pictures of {size} from a model of {self.side_px}")

        def generate(block: TopDownBlock, shape: LatentShape, x: Tensor) -> Tensor:
            factor = temperature_at(temperature, shape)
            return block.generate(x, noise_at(noise, shape, factor), factor)

        return self.decoder.parameters_of(self.decoder.run(batch, generate))


def distortion(
    image: Tensor, parameters: Tensor, config: VDVAEConfig, *, is_floored: bool | None = None
) -> Tensor:
    """-log p(image | latents), (B,), nats per picture; image (B, 3, S, S) in [0, 1].

    ``is_floored`` says whether it is of the picture floored to 5 bits, where that is not what the
    prior was trained on.
    """
    floored = config.low_bit if is_floored is None else is_floored
    target = to_levels(image, low_bit=floored)
    return dmol_nll(target, parameters, low_bit=config.low_bit)


def noise_at(noise: NoiseSource | None, shape: LatentShape, temperature: float) -> Tensor | None:
    """The noise of one layer, or None where the mean is wanted."""
    return None if noise is None or temperature == 0 else noise(shape)


def run_block(function: Callable[..., T], *inputs: Tensor, recompute: bool) -> T:
    """``function(*inputs)``, of which training keeps all inner maps, or with ``recompute`` none.

    They are then computed again in the backward pass: a step takes a third longer, and a model of
    256x256 pictures fits where it would not (Chen et al. 2016).
    """
    if not (recompute and torch.is_grad_enabled()):
        return function(*inputs)
    again: T = checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
    return again


def set_trainable(model: nn.Module, is_trained: Callable[[str], bool]) -> int:
    """Sets ``requires_grad`` of every parameter by its name; returns how many values train."""
    trained = 0
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name))
        trained += parameter.numel() if parameter.requires_grad else 0
    return trained


def load_prior(model: nn.Module, prior: VDVAE) -> None:
    """Copies every tensor of ``prior`` into a model that extends it, and its dtype and device."""
    model.to(prior.decoder.gain)
    _, unexpected = model.load_state_dict(prior.state_dict(), strict=False)
    if unexpected:
        raise ValueError(f"the model does not extend the prior: no {unexpected[:3]}")


def kernel_at(resolution: int) -> int:
    """Inner kernel of a block: 3x3 would see only padding at 1x1 and 2x2."""
    return 3 if resolution > 2 else 1


def zero_conv_biases(module: nn.Module) -> None:
    """Sets the bias of every convolution inside to zero; weights keep PyTorch's default."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and conv.bias is not None:
            nn.init.zeros_(conv.bias)


def _pad_channels(x: Tensor, width: int) -> Tensor:
    return F.pad(x, (0, 0, 0, 0, 0, width - x.shape[1])) if width > x.shape[1] else x
