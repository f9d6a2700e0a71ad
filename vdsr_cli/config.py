"""Ranges and defaults of what a user may ask for, checked before anything heavy is imported."""

import math
from dataclasses import dataclass
from enum import StrEnum

from vdsr_cli.errors import InputError, UsageError

SCALE_RANGE = (1.0, 16.0)
TEMPERATURE_RANGE = (0.0, 2.0)
AUTO_MODEL = "auto"
"""Stands for a model that is chosen for each picture by what has happened to it."""
DEFAULT_MODEL = "vdvae-sr-x4"
"""The bundled model for photographs."""
REAL_MODEL = "vdvae-sr-x4-real"
"""The bundled model for noisy and compressed pictures."""
DEFAULT_SAMPLER = "cvdvae-x4"
"""The bundled model whose samples lie farthest apart, where several are asked for."""
BICUBIC = "bicubic"
"""What ``vdsr bench`` compares every model with; no model itself."""
_MODELS_UP_TO = ((2.0, "vdvae-sr-x2"), (4.0, DEFAULT_MODEL), (8.0, "vdvae-sr-x8"))
DEFAULT_BATCH = 24
"""Tiles a batch where the user names none; halved while memory runs out."""
MAX_PIXELS = 100_000_000
"""The most pixels of an input, unless the user allows more."""


class Truncated(StrEnum):
    """How a picture whose file ends too soon is treated."""

    refuse = "refuse"
    keep = "keep"


def default_model(scale: float) -> str:
    """The bundled model that makes a scale of clean pictures in one pass; beyond 8 the x4 model
    makes it in two."""
    return next((name for most, name in _MODELS_UP_TO if scale <= most), DEFAULT_MODEL)


def default_sampler(scale: float) -> str:
    """The bundled model that draws samples of clean pictures at a scale: at x4 the CVDVAE."""
    model = default_model(scale)
    return DEFAULT_SAMPLER if model == DEFAULT_MODEL else model


def torch_seed(seed: int) -> int:
    """A seed as torch takes it: itself, or, beyond its 64 bits, the lowest of them."""
    return seed if -(1 << 63) <= seed < 1 << 64 else seed % (1 << 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSize:
    """Size of an output, whatever its input: the aspect is kept, the scale follows.

    Attributes:
        width, height: its sides in pixels; with both, the largest picture that fits into them.
        longest: its longer side in pixels. Excludes the other three.
        megapixels: its area in millions of pixels. Excludes the other three.
    """

    width: int | None = None
    height: int | None = None
    longest: int | None = None
    megapixels: float | None = None

    def __post_init__(self) -> None:
        has_sides = self.width is not None or self.height is not None
        if has_sides + (self.longest is not None) + (self.megapixels is not None) != 1:
            raise UsageError(
                "an output has one size",
                hint="give --width and --height, --longest or --megapixels",
            )

    def of(self, height: int, width: int) -> tuple[int, int]:
        """The output's height and width for an input's.

        Raises:
            InputError: the input is larger than that, or smaller than a sixteenth of it.
        """
        scale = self._scale(height, width)
        low, high = SCALE_RANGE
        size = max(1, round(height * scale)), max(1, round(width * scale))
        if not low <= scale <= high:
            raise InputError(
                f"it has {width}x{height} pixels: {size[1]}x{size[0]} would be"
                f" {scale:.3g} times that, outside {low:g} to {high:g}"
            )
        return size

    def scale_of(self, height: int, width: int) -> float:
        """Output size over input size. Raises InputError as :meth:`of`."""
        across = self.of(height, width)
        return max(across[0] / height, across[1] / width)

    @property
    def tag(self) -> str:
        """Name of the size in a file name."""
        if self.longest is not None:
            return f"{self.longest}px"
        if self.megapixels is not None:
            return f"{self.megapixels:g}mp"
        return f"{self.width or ''}x{self.height or ''}"

    def _scale(self, height: int, width: int) -> float:
        if self.longest is not None:
            return self.longest / max(height, width)
        if self.megapixels is not None:
            return math.sqrt(self.megapixels * 1e6 / (height * width))
        sides = ((self.width, width), (self.height, height))
        return min(wanted / side for wanted, side in sides if wanted is not None)


def check_scale(scale: float) -> None:
    """Raises UsageError for a factor outside ``SCALE_RANGE``."""
    _check("--scale", scale, SCALE_RANGE)


def check_temperature(temperature: float) -> None:
    """Raises UsageError for a temperature outside ``TEMPERATURE_RANGE``."""
    _check("--temperature", temperature, TEMPERATURE_RANGE)


def _check(option: str, value: float, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not (math.isfinite(value) and low <= value <= high):
        raise UsageError(f"{option} {value:g} is outside {low:g} to {high:g}")
