"""LR pictures as phones and the web have them: blur, resizing, noise and JPEG, twice over.

    hr ─► (blur ─► resize ─► noise ─► JPEG) ─► blur ─► resize ─► noise ─► (sinc + JPEG) ─► lr
           one batch in six

The second-order recipe of Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833), in batches on tensors.
Its ranges are milder where a picture would be past saving; the JPEG comes last more often, as it
does on the web; and five batches of six are degraded once only: a network that has seen nothing
mild smears what is (Zhang et al. 2022, arXiv 2205.04910). One picture in eight is reduced and
nothing else, and three of four that are plain all over, or grain would be added to the plain
colours of a picture that is clean. Every picture of a batch has its own kernel, noise and quality;
the intermediate size and where the blocks of a JPEG begin are drawn once a batch.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vdsr_cli.images.levels import to_levels
from vdsr_cli.training.adversarial import plainness
from vdsr_cli.training.jpeg import BLOCK, jpeg
from vdsr_cli.training.randomness import StepRandom
from vdsr_cli.training.world import World

_MODES = ("area", "bilinear", "bicubic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One of the two passes.

    Attributes:
        blur_probability: of a picture to be blurred at all.
        sigma: range of the blur's standard deviations, pixels of its input.
        size: range of the side after it, as a share of the HR side.
        noise: largest standard deviation of the noise, grey levels.
        quality: range of JPEG qualities.
    """

    blur_probability: float
    sigma: tuple[float, float]
    size: tuple[float, float]
    noise: float
    quality: tuple[float, float] = (30.0, 95.0)


FIRST = Pass(blur_probability=0.9, sigma=(0.2, 3.0), size=(0.3, 1.2), noise=20.0)
SECOND = Pass(blur_probability=0.4, sigma=(0.2, 1.5), size=(0.2, 0.6), noise=12.0)
TWICE = 1 / 6
"""Share of the batches that are degraded twice."""
CLEAN = 1 / 8
"""Share of the pictures that are reduced and nothing else."""
CLEAN_PLAIN = 3 / 4
"""That share among pictures without detail: of plain colours and smooth gradients."""
WHOLLY_PLAIN = 0.9
"""Mean of a picture's :func:`plainness` from which on it counts as without detail."""
KERNEL = 21
"""Side of the blur kernels."""


class RealDegradation:
    """hr uint8 (B, 3, H, W) -> lr uint8 (B, 3, H / scale, W / scale), another one each step."""

    def __init__(self, scale: int, first: Pass = FIRST, second: Pass = SECOND) -> None:
        self.scale, self.first, self.second = scale, first, second

    def __call__(self, hr: Tensor, random: StepRandom, world: World | None = None) -> Tensor:
        """Degrades a process's share of a batch; ``random`` decides everything."""
        draw = _Draw(random, len(hr), hr.device, world or World())
        side, whole = hr.shape[-1], hr.float() / 255
        x = whole
        if draw.chance(TWICE):
            x = self._pass(x, self.first, side, draw)
            x = compress(x, self.first.quality, draw)
        x = self._pass(x, self.second, side, draw)
        sinc_first = draw.chance(0.8)
        if sinc_first:
            x = self._shrink(x, side, draw)
            x = compress(x, self.second.quality, draw)
        else:
            x = compress(x, self.second.quality, draw)
            x = self._shrink(x, side, draw)
        is_plain = plainness(2 * whole - 1).mean((1, 2, 3)) > WHOLLY_PLAIN
        share = torch.where(is_plain, CLEAN_PLAIN, CLEAN)
        is_clean = (draw.uniform(0, 1) < share).view(-1, 1, 1, 1)
        reduced = resize(whole, side // self.scale, draw)
        return to_levels(torch.where(is_clean, reduced, x))

    def _pass(self, x: Tensor, settings: Pass, side: int, draw: "_Draw") -> Tensor:
        """Blur, resize, noise."""
        x = blur(x, gaussian_kernels(settings, draw))
        target = max(round(side * draw.number(*settings.size)), side // self.scale)
        return add_noise(resize(x, target, draw), settings.noise, draw)

    def _shrink(self, x: Tensor, side: int, draw: "_Draw") -> Tensor:
        """To the LR size, then the ringing of a sharp low-pass filter on three pictures in ten."""
        x = resize(x, side // self.scale, draw)
        return blur(x, sinc_kernels(draw, probability=0.3))


class _Draw:
    """Numbers for a process's share of a batch; few come from the CPU, many from the device."""

    def __init__(self, random: StepRandom, batch: int, device: torch.device, world: World) -> None:
        self.random, self.batch, self.device = random, batch * world.size, device
        self.world = world

    def uniform(self, low: float, high: float) -> Tensor:
        """(B,) on the device."""
        drawn = torch.rand(self.batch, generator=self.random.cpu) * (high - low) + low
        return self.world.share(drawn).to(self.device, non_blocking=True)

    def number(self, low: float, high: float) -> float:
        """One number for the whole batch."""
        return low + (high - low) * float(torch.rand((), generator=self.random.cpu))

    def chance(self, probability: float) -> bool:
        """One decision for the whole batch."""
        return self.number(0, 1) < probability

    def normal(self, size: tuple[int, ...]) -> Tensor:
        """Standard normals on the device."""
        whole = (self.batch, *size[1:])
        return self.world.share(
            torch.randn(whole, generator=self.random.device, device=self.device)
        )


def gaussian_kernels(settings: Pass, draw: _Draw) -> Tensor:
    """(B, KERNEL, KERNEL), sum 1: isotropic for half the pictures, else stretched and turned."""
    along, across = draw.uniform(*settings.sigma), draw.uniform(*settings.sigma)
    across = torch.where(draw.uniform(0, 1) < 0.5, along, across)
    angle = draw.uniform(0, math.pi).view(-1, 1, 1)
    rows, columns = _grid(draw.device)
    u = columns * angle.cos() + rows * angle.sin()
    v = rows * angle.cos() - columns * angle.sin()
    kernel = torch.exp(-0.5 * ((u / along.view(-1, 1, 1)) ** 2 + (v / across.view(-1, 1, 1)) ** 2))
    kernel = kernel / kernel.sum(dim=(1, 2), keepdim=True)
    return _where_chosen(kernel, settings.blur_probability, draw)


def sinc_kernels(draw: _Draw, *, probability: float) -> Tensor:
    """(B, KERNEL, KERNEL), sum 1: ideal circular low-pass filters, w J1(w r) / (2 pi r)."""
    cutoff = draw.uniform(math.pi / 2, math.pi).view(-1, 1, 1)
    rows, columns = _grid(draw.device)
    radius = (rows**2 + columns**2).sqrt().clamp(min=1e-6)
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel = kernel / kernel.sum(dim=(1, 2), keepdim=True)
    return _where_chosen(kernel, probability, draw)


def _grid(device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column offsets from the kernel's centre."""
    offsets = torch.arange(KERNEL, device=device, dtype=torch.float32) - KERNEL // 2
    return offsets.view(1, -1, 1), offsets.view(1, 1, -1)


def _where_chosen(kernel: Tensor, probability: float, draw: _Draw) -> Tensor:
    """The kernels of the chosen pictures, and the identity for the rest."""
    identity = torch.zeros_like(kernel[:1])
    identity[:, KERNEL // 2, KERNEL // 2] = 1
    return torch.where((draw.uniform(0, 1) < probability).view(-1, 1, 1), kernel, identity)


def blur(x: Tensor, kernels: Tensor) -> Tensor:
    """Convolves each picture (B, C, H, W) with its own kernel (B, K, K); edges are repeated."""
    batch, channels, height, width = x.shape
    padded = F.pad(x, (kernels.shape[-1] // 2,) * 4, mode="replicate")
    weights = kernels.repeat_interleave(channels, 0).unsqueeze(1)
    stacked = padded.reshape(1, batch * channels, *padded.shape[2:])
    return F.conv2d(stacked, weights, groups=batch * channels).view(batch, channels, height, width)


def resize(x: Tensor, side: int, draw: _Draw) -> Tensor:
    """To ``side`` x ``side`` by one of three filters, clamped to [0, 1]."""
    mode = _MODES[int(draw.number(0, 3 - 1e-6))]
    if mode == "area":
        return F.interpolate(x, size=(side, side), mode="area")
    resized = F.interpolate(x, size=(side, side), mode=mode, antialias=True, align_corners=False)
    return resized.clamp(0, 1)


def compress(x: Tensor, quality: tuple[float, float], draw: _Draw) -> Tensor:
    """JPEG, whose blocks begin anywhere: a crop of a photograph knows nothing of its corner."""
    above, left = (int(draw.number(0, BLOCK - 1e-6)) for _ in range(2))
    padded = F.pad(x, (left, 0, above, 0), mode="replicate")
    return jpeg(padded, draw.uniform(*quality))[:, :, above:, left:]


def add_noise(x: Tensor, largest: float, draw: _Draw) -> Tensor:
    """Gaussian noise of constant strength, or Poisson's, which grows with the light; of one
    colour on two pictures in five. ``largest`` is in grey levels."""
    sigma = draw.uniform(0, largest / 255).view(-1, 1, 1, 1)
    is_poisson = (draw.uniform(0, 1) < 0.5).view(-1, 1, 1, 1)
    is_grey = (draw.uniform(0, 1) < 0.4).view(-1, 1, 1, 1)
    normal = draw.normal(tuple(x.shape))
    normal = torch.where(is_grey, normal[:, :1], normal)
    # A Poisson count of many photons is normal with a variance in proportion to its mean.
    strength = torch.where(is_poisson, (2 * x.clamp(0, 1)).sqrt(), torch.ones_like(x))
    return (x + sigma * strength * normal).clamp(0, 1)
