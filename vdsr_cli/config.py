"""Ranges and defaults of what a user may ask for, checked before anything heavy is imported."""

import math
import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

from vdsr_cli.errors import InputError, UsageError

SCALE_RANGE = (1.0, 16.0)
TEMPERATURE_RANGE = (0.0, 2.0)
AUTO_MODEL = "auto"
"""Stands for a model that is chosen for each picture by what has happened to it."""
DEFAULT_TEMPERATURE = 0.8
DEFAULT_MODEL = "vdvae-sr-x4"
"""The bundled model for photographs."""
REAL_MODEL = "vdvae-sr-x4-real"
"""The bundled model for noisy and compressed pictures."""
DEFAULT_SAMPLER = "cvdvae-x4"
"""The bundled model whose samples lie farthest apart, where several are asked for."""
BICUBIC = "bicubic"
"""The baseline of ``vdsr bench``; no model itself."""
_MODELS_UP_TO = ((2.0, "vdvae-sr-x2"), (4.0, DEFAULT_MODEL), (8.0, "vdvae-sr-x8"))
_LARGEST_FILE = 2**20
"""Bytes of a TOML file of options."""
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
        try:
            scale = self._scale(height, width)
        except OverflowError:
            scale = math.inf
        low, high = SCALE_RANGE
        if not low <= scale <= high:
            raise InputError(
                f"it has {width}x{height} pixels, of which the size asked for is"
                f" {scale:.4g} times, outside {low:g} to {high:g}"
            )
        return max(1, round(height * scale)), max(1, round(width * scale))

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


class Edges(StrEnum):
    """Pixels that count as lying beyond the edges of a picture that is reduced."""

    repeat = "repeat"
    """The edge's own pixel: MATLAB's older reduction, which made the usual sets, and ours."""
    mirror = "mirror"
    """The picture's mirror image: CVDVAE's released code (Prost 2024)."""


Wrap = Literal["x", "y", "xy", "none"]
"""The axes along which a picture goes on at its opposite edge."""


class Temperatures(str):
    """Temperatures of a hierarchy's latents, in their written form, such as ``"16:0.2,8:0.5"``.

    A level is named by its cell, the side in HR pixels of the square that one of its latents
    covers; the 1x1 top of a published shape by the side of its pictures. A number alone, as in
    ``"0,16:0.2"``, is that of the levels that are not named; without one it is 0.8. ``lr:1`` is of
    the latents that a CVDVAE draws from q(z | lr), whatever their level.

    Attributes:
        by_cell: temperatures by cell, coarse to fine.
        rest: that of the other levels.
        given_lr: that of q(z | lr); None for what its level has.

    Raises:
        UsageError: text of another form, or a temperature outside ``TEMPERATURE_RANGE``.
    """

    by_cell: dict[int, float]
    rest: float
    given_lr: float | None

    def __new__(cls, text: str) -> Self:
        """Parses the text; equal temperatures have equal forms."""
        named: dict[str, float] = {}
        for part in text.split(","):
            name, _, number = part.strip().rpartition(":")
            if name in named or not re.fullmatch(r"([1-9]\d{0,5}|lr)?", name):
                raise _no_temperatures(text)
            try:
                named[name] = float(number)
            except ValueError:
                raise _no_temperatures(text) from None
            check_temperature(named[name])
        rest, given_lr = named.pop("", DEFAULT_TEMPERATURE), named.pop("lr", None)
        by_cell = {int(cell): named[cell] for cell in sorted(named, key=int, reverse=True)}
        written = [_written(rest), *(f"{cell}:{_written(t)}" for cell, t in by_cell.items())]
        written += [] if given_lr is None else [f"lr:{_written(given_lr)}"]
        self = super().__new__(cls, ",".join(written))
        self.by_cell, self.rest, self.given_lr = by_cell, rest, given_lr
        return self

    def __bool__(self) -> bool:
        """Whether anything is random."""
        return any((self.rest, self.given_lr, *self.by_cell.values()))

    def __format__(self, spec: str) -> str:
        """The written form, also where a number would be formatted."""
        return str(self)


Temperature = float | Temperatures
"""A factor on the standard deviation of every latent, or several."""


def parse_temperature(text: str | float) -> Temperature:
    """``0.8``, or :class:`Temperatures` as they are written. Raises UsageError."""
    try:
        number = float(text)
    except ValueError:
        return Temperatures(str(text))
    check_temperature(number)
    return number


def with_conditional(temperature: Temperature, given_lr: float | None) -> Temperature:
    """The temperature with that of q(z | lr), where there is one. Raises UsageError."""
    return temperature if given_lr is None else Temperatures(f"{temperature},lr:{given_lr}")


def parse_temperatures(text: str) -> tuple[Temperature, ...]:
    """Several with commas, or with semicolons where they have levels. Raises UsageError."""
    return tuple(map(parse_temperature, text.split(";" if set(":;") & set(text) else ",")))


def temperatures_of(
    several: str | None, one: str, given_lr: float | None
) -> tuple[Temperature, ...]:
    """Those of ``--temperatures`` or, without it, of ``--temperature``, with that of q(z | lr).
    Raises UsageError."""
    parsed = parse_temperatures(several) if several else (parse_temperature(one),)
    return tuple(with_conditional(t, given_lr) for t in parsed)


def _no_temperatures(text: str) -> UsageError:
    return UsageError(
        f"--temperature {text} is neither a number nor numbers by cell",
        hint="try 0.8, or 16:0.2,8:0.5",
    )


def _written(temperature: float) -> str:
    return repr(temperature).removesuffix(".0")


def check_temperature(temperature: Temperature) -> None:
    """Raises UsageError for a temperature outside ``TEMPERATURE_RANGE``."""
    if not isinstance(temperature, Temperatures):
        _check("--temperature", temperature, TEMPERATURE_RANGE)


def read_toml(path: Path) -> dict[str, Any]:
    """The entries of a file of options. Raises UsageError where it is none."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise UsageError(f"{path}: larger than options can be")
        entries = tomllib.loads(content.decode())
        _refuse_unsayable(entries)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as TOML ({error})") from error
    return entries


def _refuse_unsayable(value: Any) -> None:
    """Raises ValueError for what no option can be: a date, a time, a text with a zero byte."""
    for one in value.values() if isinstance(value, dict) else value:
        if isinstance(one, dict | list):
            _refuse_unsayable(one)
        elif not isinstance(one, str | int | float) or (isinstance(one, str) and "\0" in one):
            raise ValueError(f"{one!s:.99} is the value of no option")


def _check(option: str, value: float, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not (math.isfinite(value) and low <= value <= high):
        raise UsageError(f"{option} {value:g} is outside {low:g} to {high:g}")
