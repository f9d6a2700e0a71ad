"""Ranges and defaults of what a user may ask for, checked before anything heavy is imported."""

import math

from vdsr_cli.errors import UsageError

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
_MODELS_UP_TO = ((2.0, "vdvae-sr-x2"), (4.0, DEFAULT_MODEL), (8.0, "vdvae-sr-x8"))
DEFAULT_BATCH = 24
"""Tiles a batch where the user names none; halved while memory runs out."""


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
