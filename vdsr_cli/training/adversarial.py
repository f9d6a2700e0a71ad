"""The adversarial phase: samples are trained as pictures, against a discriminator.

    lr ─► model.means at a drawn temperature ─► sr and, for the diversity, sr'
                                                        │
    minimised by the model, beside elbo_weight * its own objective:
        l1 * |sr - hr|  +  perceptual * LPIPS(sr, hr)  +  adversarial * softplus(-D(sr, lr))
        + coarse * |sr - hr| of the means of 16x16 squares
        + plain * |sr - hr| * exp(-variance of hr in 5x5 / sigma^2)
        - diversity / 2 * (l1 * |sr - sr'|  +  perceptual * LPIPS(sr, sr'))
    by D:   softplus(-D(hr, lr)) + softplus(D(sr, lr))

The ELBO trains what the posterior draws and nothing that the prior draws by itself; here the
prior's own samples are looked at. ELBO and mean path stay in the loss, so that the posterior and
temperature 0 are not lost. The ELBO, half of a step's time, may be in one step of ``elbo_every``,
where it weighs as much more.

**Diversity.** A distance to the one HR picture punishes samples for differing among themselves.
Half the distance of two samples of one LR picture, subtracted, takes that away again: at 1 the
distance terms are the energy score (Gneiting and Raftery 2007, equation 22), which in expectation
is least for samples of the true distribution; at 0 nothing is subtracted, and one sample is drawn.

**Views.** A network of features that is asked the same way at every step is soon satisfied by what
no eye sees. With ``views`` each step compares pictures shifted, flipped, with their colours
exchanged and, half the time, at half the size (E-LPIPS, Kettunen et al. 2019, arXiv 1906.03973).
Of several networks each step asks one at random. VGG16, whose pass costs forty times SqueezeNet's,
sees a quarter of the pixels: all at half the size, or a window.

The discriminator is the U-Net with spectral norm of Real-ESRGAN (Wang et al. 2021, arXiv
2107.10833) in small. It sees the enlarged LR picture beside the other, and squares of 2x2 pixels as
channels, so that none of its layers works at full resolution. The loss is the logistic one of
Goodfellow et al. 2014, non-saturating. Where its verdict weighs nothing there is no discriminator,
which takes up to a quarter of a step's time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from vdsr_cli.consistency import project_crop
from vdsr_cli.metrics import LPIPS
from vdsr_cli.models.blocks import repeated
from vdsr_cli.models.compact_parts import enlarged
from vdsr_cli.models.protocol import NoiseSource
from vdsr_cli.training.config import AdversarialConfig
from vdsr_cli.training.optimizer import set_rate, step_if

View = Callable[[Tensor], Tensor]
"""How pictures (B, 3, H, W) are shown to LPIPS."""
SIDE_MULTIPLE = 8
"""HR sides of crops must be multiples of it: the discriminator's coarsest cell."""
LEAST_SIDE = 32
"""HR side of the smallest crops that LPIPS takes."""
PLAIN_WINDOW = 5
"""Side of the squares, HR pixels, whose variance tells what is plain."""
PLAIN_SIGMA = 2 / 127.5
"""A deviation of two grey levels, on [-1, 1]."""
COARSE = 16
"""Side of the squares, HR pixels, whose means are compared."""
VIEW_SHIFTS = 8
"""Shifts of a view along each axis, HR pixels: from 0 up to this, exclusive."""
_SHARPENING_SIGMA = 4.0
_SHARPENING_THRESHOLD = 20 / 255
"""Differences from the blurred picture, on [-1, 1], that are flat enough to be left alone."""


class Discriminator(nn.Module):
    """Judges each 2x2 square of a picture: (B, 3, H, W) and the enlarged LR picture, both on
    [-1, 1], sides multiples of 8 -> logits (B, 4, H / 2, W / 2), above 0 for a true picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(6 * 4, width, 3, padding=1)
        self.down1 = _normed(width, 2 * width, stride=2)
        self.down2 = _normed(2 * width, 2 * width, stride=2)
        self.up2 = _normed(2 * width, 2 * width)
        self.up1 = _normed(2 * width, width)
        self.last = _normed(width, width)
        self.logits = nn.Conv2d(width, 4, 3, padding=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, picture: Tensor, base: Tensor) -> Tensor:
        squares = F.pixel_unshuffle(torch.cat([picture, base], 1), 2)
        full = _leaky(self.first(squares.contiguous(memory_format=torch.channels_last)))
        half = _leaky(self.down1(full))
        quarter = _leaky(self.down2(half))
        up = _leaky(self.up2(_doubled(quarter))) + half
        up = _leaky(self.up1(_doubled(up))) + full
        logits: Tensor = self.logits(_leaky(self.last(up)))
        return logits


def _normed(channels_in: int, channels_out: int, *, stride: int = 1) -> nn.Module:
    kernel = 4 if stride == 2 else 3
    return spectral_norm(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=1, bias=False)
    )


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")


def sharpened(hr: Tensor, amount: float) -> Tensor:
    """Unsharp mask on [-1, 1] (B, 3, H, W), flat places left alone; ``amount`` 0 is the picture."""
    if not amount:
        return hr
    reach = round(3 * _SHARPENING_SIGMA)
    offsets = torch.arange(-reach, reach + 1, device=hr.device, dtype=hr.dtype)
    taps = torch.exp(-0.5 * (offsets / _SHARPENING_SIGMA) ** 2)
    taps = (taps / taps.sum()).view(1, 1, 1, -1)
    planes = F.pad(hr, (reach,) * 4, mode="reflect").flatten(0, 1).unsqueeze(1)
    with torch.autocast(hr.device.type, enabled=False):
        blurred = F.conv2d(F.conv2d(planes, taps), taps.transpose(2, 3)).view_as(hr)
    detail = hr - blurred
    return (hr + amount * detail * (detail.abs() > _SHARPENING_THRESHOLD)).clamp(-1, 1)


def plainness(hr: Tensor) -> Tensor:
    """1 where a picture (B, 3, H, W) is of one colour, 0 where it has detail: (B, 1, H, W)."""
    reach = PLAIN_WINDOW // 2
    around = F.pad(hr, (reach,) * 4, mode="reflect")
    mean, square = (F.avg_pool2d(each, PLAIN_WINDOW, 1) for each in (around, around.square()))
    return torch.exp((mean.square() - square).mean(1, keepdim=True) / PLAIN_SIGMA**2)


@dataclass(frozen=True, slots=True)
class Look:
    """The network that compares a step's pictures, and how it is shown them."""

    network: LPIPS
    view: View = lambda pictures: pictures


def random_view(generator: torch.Generator, side: int, *, is_quarter: bool = False) -> View:
    """One of the views of pictures (B, 3, side, side), drawn from a CPU generator.

    With ``is_quarter`` those that are not at half the size are a window of half the side.
    """
    top, left = torch.randint(VIEW_SHIFTS, (2,), generator=generator).tolist()
    turned, mirrored, transposed, halved = (torch.rand(4, generator=generator) < 0.5).tolist()
    colours = torch.randperm(3, generator=generator).tolist()
    axes = [axis for axis, flipped in ((2, turned), (3, mirrored)) if flipped]
    half = (side - VIEW_SHIFTS) // 2
    y, x = torch.randint(half, (2,), generator=generator).tolist() if is_quarter else (0, 0)

    def view(pictures: Tensor) -> Tensor:
        seen = pictures[:, colours, top:, left:].flip(axes)
        seen = seen.transpose(2, 3) if transposed else seen
        if half < LEAST_SIDE:
            return seen
        if halved:
            return F.avg_pool2d(seen, 2)
        return seen[..., y : y + half, x : x + half] if is_quarter else seen

    return view


@dataclass(slots=True)
class SampleTerms:
    """The model's terms of one batch, and what the discriminator's step needs of it.

    Attributes:
        loss: their weighted sum.
        figures: each unweighted, by its name in the log.
        target, sample, base: (B, 3, H, W) on [-1, 1], one sample of each picture, detached.
    """

    loss: Tensor
    figures: dict[str, Tensor]
    target: Tensor
    sample: Tensor
    base: Tensor


class Judge:
    """The discriminator with its optimiser."""

    def __init__(self, config: AdversarialConfig, device: torch.device) -> None:
        self.discriminator = Discriminator(config.discriminator_width).to(device)
        self.trained = list(self.discriminator.parameters())
        self.rate = config.discriminator_rate
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=self.rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True
        )

    def verdict(self, samples: Tensor, base: Tensor) -> Tensor:
        """The model's term of its samples; no gradient reaches the discriminator."""
        with _frozen(self.discriminator):
            return F.softplus(-self.discriminator(samples, base)).mean()

    def loss(self, terms: SampleTerms) -> Tensor:
        """The discriminator's own loss on a batch; its gradients lie in its parameters after
        ``backward``."""
        pictures = torch.cat([terms.target, terms.sample])
        true, drawn = self.discriminator(pictures, terms.base.repeat(2, 1, 1, 1)).chunk(2)
        return F.softplus(-true).mean() + F.softplus(drawn).mean()

    def apply(self, is_good: Tensor, factor: float) -> None:
        """Takes the optimiser's step at a factor on its rate, if the gradient is good."""
        set_rate(self.optimizer, self.rate * factor)
        step_if(self.optimizer, is_good)

    def state(self) -> dict[str, Any]:
        """State for a checkpoint; the averages of spectral norm are in it."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "discriminator_optimizer": self.optimizer.state_dict(),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Takes up what :meth:`state` gave, if anything did; raises RuntimeError, ValueError or
        KeyError."""
        if "discriminator" in state:
            self.discriminator.load_state_dict(state["discriminator"])
            self.optimizer.load_state_dict(state["discriminator_optimizer"])


class AdversarialPhase:
    """The terms that samples are trained by, and the judge, where its verdict weighs.

    Args:
        config: weights and schedule.
        perceptual: LPIPS of networks that do not judge the results.
        device: where the model is.
        projected: whether samples are projected onto the LR picture first, as they are in use.
    """

    def __init__(
        self,
        config: AdversarialConfig,
        perceptual: Sequence[LPIPS],
        *,
        device: torch.device,
        projected: bool,
    ) -> None:
        self.config, self.projected = config, projected
        self.perceptual = [network.to(device) for network in perceptual]
        self.judge = Judge(config, device) if config.adversarial_weight else None
        self.samples = 2 if config.diversity else 1
        """Drawn of each LR picture."""

    def temperature(self, drawn: float) -> float:
        """That of a step's samples, for a number drawn from [0, 1)."""
        low, high = self.config.temperatures
        return low + (high - low) * drawn

    def look(self, generator: torch.Generator, side: int) -> Look:
        """Who compares a step's pictures of a side, and in which view: as they are, without
        views."""
        among = len(self.perceptual)
        chosen = int(torch.randint(among, (), generator=generator)) if among > 1 else 0
        network = self.perceptual[chosen]
        if not self.config.views:
            return Look(network)
        return Look(network, random_view(generator, side, is_quarter=network.net == "vgg"))

    def sample_terms(
        self,
        model: Any,
        hr: Tensor,
        lr: Tensor,
        noise: NoiseSource,
        temperature: float,
        ramp: float,
        look: Look,
    ) -> SampleTerms:
        """Draws :attr:`samples` of each picture and scores them.

        Args:
            model: draws samples; see :meth:`~vdsr_cli.models.compact.CompactVDVAESR.means`.
            hr: (B, 3, H, W) in [-1, 1].
            lr: (B, 3, h, w) in [0, 1].
            noise: standard normals of each layer for B * :attr:`samples` pictures.
            temperature: of the samples.
            ramp: factor on the adversarial term, 0 to 1.
            look: at the pictures that are compared; see :meth:`look`.
        """
        config, target = self.config, sharpened(hr, self.config.sharpen)
        base, per_sample = enlarged(lr, model.scale), partial(repeated, repeats=self.samples)
        samples = model.means(lr, noise, temperature, repeats=self.samples).float()
        if self.projected:
            samples = project_crop(samples, per_sample(2 * lr - 1), model.scale)
        network, view = look.network, look.view
        with torch.no_grad():
            true_maps = network.maps(view(target))
        maps = [network.maps(view(samples[i :: self.samples])) for i in range(self.samples)]
        distance = torch.stack([network.distances(each, true_maps) for each in maps]).mean()
        error = samples - per_sample(target)
        figures = {
            "sample_l1": error.abs().mean(),
            "coarse_l1": F.avg_pool2d(error, COARSE).abs().mean(),
            "plain_l1": (error.abs() * per_sample(plainness(target))).mean(),
            "perceptual": distance,
        }
        loss = (
            config.l1_weight * figures["sample_l1"]
            + config.coarse_weight * figures["coarse_l1"]
            + config.plain_weight * figures["plain_l1"]
            + config.perceptual_weight * figures["perceptual"]
        )
        if config.diversity:
            figures["diversity"] = self._distance(samples, network.distances(*maps).mean())
            loss = loss - config.diversity / 2 * figures["diversity"]
        if self.judge is not None:
            figures["generator"] = self.judge.verdict(samples, per_sample(base))
            loss = loss + config.adversarial_weight * ramp * figures["generator"]
        return SampleTerms(loss, figures, target, samples.detach()[:: self.samples], base)

    def _distance(self, samples: Tensor, lpips: Tensor) -> Tensor:
        """Distance of the two samples of each picture, by the weighted terms that punish it."""
        l1 = (samples[::2] - samples[1::2]).abs().mean()
        return self.config.l1_weight * l1 + self.config.perceptual_weight * lpips


@contextmanager
def computed_once(module: nn.Module) -> Iterator[None]:
    """A block in which a module computes once: what the first call gave is every later one's, whose
    input is to be the same."""
    forward = module.forward
    found: list[Any] = []

    def remembered(*arguments: Any) -> Any:
        if not found:
            found.append(forward(*arguments))
        return found[0]

    module.forward = remembered
    try:
        yield
    finally:
        del module.forward


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """A block in which a module's parameters want no gradients; those of its input pass."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
