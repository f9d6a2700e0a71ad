"""The configuration of a VDVAE: layer strings, configurations, the five published models.

**Layer strings.** ``"64x3,64d2,32x2"`` and ``"1x2,4m1,4x3"``: comma-separated items ``RxN``, N
blocks at resolution R; ``RmM``, one block at R whose input receives the state of resolution M,
upsampled (decoder); ``RdK``, one block at R, its output average-pooled by K (encoder); ``R``, one
block.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from types import MappingProxyType

import torch
from torch import Tensor

from vdsr_cli.models.protocol import LatentShape

MAX_LAYERS = 1000
"""Blocks of a layer string: it comes from files, and a list of so many is still made at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One block of a layer string.

    Attributes:
        resolution: side of the maps the block works on.
        mixin: resolution whose state is added to the input (decoder), or None.
        down_rate: average pooling behind the block (encoder), or None.
    """

    resolution: int
    mixin: int | None = None
    down_rate: int | None = None


@lru_cache(maxsize=64)
def parse_layers(text: str) -> tuple[Layer, ...]:
    """The blocks of a layer string in order; raises ValueError where it is malformed."""
    layers: list[Layer] = []
    for item in text.split(","):
        match = re.fullmatch(r"([1-9]\d{0,5})(?:([xmd])([1-9]\d{0,5}))?", item.strip())
        if match is None:
            raise ValueError(f"{item!r} in the layer string {text!r} is none of RxN, RmM, RdK, R")
        resolution, kind, number = int(match[1]), match[2], int(match[3] or 1)
        if kind == "m":
            layers.append(Layer(resolution=resolution, mixin=number))
        elif kind == "d":
            layers.append(Layer(resolution=resolution, down_rate=number))
        else:
            layers.extend([Layer(resolution=resolution)] * min(number, MAX_LAYERS + 1))
        if len(layers) > MAX_LAYERS:
            raise ValueError(f"there are more than {MAX_LAYERS} blocks in the layer string")
    return tuple(layers)


def parse_widths(text: str) -> dict[int, int]:
    """``"8:24,4:32"`` -> ``{8: 24, 4: 32}``: channels by resolution."""
    if not text:
        return {}
    pairs = (item.partition(":") for item in text.split(","))
    return {int(resolution): int(width) for resolution, _, width in pairs}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """A bottom-up network: everything :class:`Encoder` needs.

    Attributes:
        image_size: side of the square input.
        enc_blocks: layer string from ``image_size`` down.
        width: channels of each resolution that ``custom_width_str`` does not name.
        custom_width_str: ``"resolution:width,..."``; widths may not shrink towards the top.
        bottleneck_multiple: inner over outer width of a block.
        input_white: what 1.0 of the input is in the units of the next two (255 for grey levels).
        input_shift, input_scale: the network sees ``(image * input_white + shift) * scale``.
    """

    image_size: int
    enc_blocks: str
    width: int
    custom_width_str: str = ""
    bottleneck_multiple: float = 0.25
    input_shift: float
    input_scale: float
    input_white: float = 255.0

    def __post_init__(self) -> None:
        _require(self.width_at(self.image_size) == self.width, "width must hold at image_size")
        size = self.image_size
        for layer in self.layers:
            _require(layer.mixin is None, "an encoder string has no m")
            _require(layer.resolution == size, f"{layer} follows an output of side {size}")
            _require(size % (layer.down_rate or 1) == 0, f"{layer} does not divide its input")
            size //= layer.down_rate or 1
            _require(
                self.width_at(size) >= self.width_at(layer.resolution),
                f"the width shrinks from resolution {layer.resolution} to {size}",
            )

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The blocks of ``enc_blocks``."""
        return parse_layers(self.enc_blocks)

    @property
    def resolutions(self) -> frozenset[int]:
        """Resolutions of which there is an activation."""
        return frozenset(layer.resolution // (layer.down_rate or 1) for layer in self.layers)

    def width_at(self, resolution: int) -> int:
        """Channels of the maps at a resolution."""
        return parse_widths(self.custom_width_str).get(resolution, self.width)

    def normalise(self, image: Tensor) -> Tensor:
        """[0, 1] -> about zero mean and unit variance, float32 or wider."""
        image = image.to(torch.promote_types(image.dtype, torch.float32))
        return (image * self.input_white + self.input_shift) * self.input_scale


@dataclass(frozen=True, slots=True, kw_only=True)
class VDVAEConfig(EncoderConfig):
    """A whole VDVAE, its encoder's configuration first; names of fields are the published code's.

    Attributes:
        dec_blocks: layer string from the top down to ``image_size``.
        zdim: channels of every latent.
        num_mixtures: components of the likelihood.
        no_bias_above: the largest resolution with a learned initial state.
        low_bit: whether the likelihood is over 32 grey levels (ffhq256) instead of 256.
    """

    dec_blocks: str
    zdim: int = 16
    num_mixtures: int = 10
    no_bias_above: int = 64
    low_bit: bool = False

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        seen, encoded = set[int](), self.resolutions
        for layer in self.decoder_layers:
            _require(layer.down_rate is None, "a decoder string has no d")
            _require(
                layer.resolution in encoded,
                f"the encoder has no activation at resolution {layer.resolution}",
            )
            if layer.mixin is not None:
                _require(layer.mixin in seen, f"{layer} mixes in what comes later")
                _require(layer.resolution % layer.mixin == 0, f"{layer} is no whole upsampling")
                _require(
                    self.width_at(layer.mixin) >= self.width_at(layer.resolution),
                    f"{layer} mixes in fewer channels than it has",
                )
            seen.add(layer.resolution)
        _require(
            self.decoder_layers[-1].resolution == self.image_size,
            "dec_blocks must end at image_size",
        )

    @property
    def encoder(self) -> EncoderConfig:
        """The bottom-up part."""
        names = [field.name for field in fields(EncoderConfig)]
        return EncoderConfig(**{name: getattr(self, name) for name in names})

    @property
    def decoder_layers(self) -> tuple[Layer, ...]:
        """The blocks of ``dec_blocks``."""
        return parse_layers(self.dec_blocks)

    @property
    def latent_shapes(self) -> list[LatentShape]:
        """Every stochastic layer in the order of drawing, coarse to fine."""
        return [
            LatentShape(
                index,
                self.zdim,
                self.image_size // layer.resolution,
                is_global=layer.resolution == 1,
            )
            for index, layer in enumerate(self.decoder_layers)
        ]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


PUBLISHED: Mapping[str, VDVAEConfig] = MappingProxyType(
    {
        "cifar10": VDVAEConfig(
            image_size=32,
            enc_blocks="32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3",
            dec_blocks="1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21",
            width=384,
            input_shift=-120.63838,
            input_scale=1 / 64.16736,
        ),
        "imagenet32": VDVAEConfig(
            image_size=32,
            enc_blocks="32x15,32d2,16x9,16d2,8x8,8d2,4x6,4d4,1x6",
            dec_blocks="1x2,4m1,4x4,8m4,8x9,16m8,16x19,32m16,32x40",
            width=512,
            input_shift=-116.2373,
            input_scale=1 / 69.37404,
        ),
        "imagenet64": VDVAEConfig(
            image_size=64,
            enc_blocks="64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5",
            dec_blocks="1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12",
            width=512,
            input_shift=-115.92961967,
            input_scale=1 / 69.37404,
        ),
        "ffhq256": VDVAEConfig(
            image_size=256,
            enc_blocks=(
                "256x3,256d2,128x8,128d2,64x12,64d2,32x17,32d2,16x7,16d2,8x5,8d2,4x5,4d4,1x4"
            ),
            dec_blocks=(
                "1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x21,64m32,64x13,128m64,128x7,256m128"
            ),
            width=512,
            low_bit=True,
            input_shift=-112.8666757481,
            input_scale=1 / 69.84780273,
        ),
        "ffhq1024": VDVAEConfig(
            image_size=1024,
            enc_blocks=(
                "1024x1,1024d2,512x3,512d2,256x5,256d2,128x7,128d2,64x10,64d2,"
                "32x14,32d2,16x7,16d2,8x5,8d2,4x5,4d4,1x4"
            ),
            dec_blocks=(
                "1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x20,64m32,64x14,"
                "128m64,128x7,256m128,256x2,512m256,1024m512"
            ),
            width=16,
            custom_width_str="512:32,256:64,128:512,64:512,32:512,16:512,8:512,4:512,1:512",
            num_mixtures=2,
            input_shift=-0.4387,
            input_scale=1 / 0.2743,
            input_white=1.0,
        ),
    }
)
"""The five published models. Their weights and scores are rows of weights.toml."""
