"""``--model auto``: each picture gets the model for what has happened to it.

picture ─► inspection ─┬─ clean ────► the default model of the scale
                       └─ degraded ─► vdvae-sr-x4-real, for its own scale or by way of it
"""

import math
from collections.abc import Callable
from functools import cache

from vdsr_cli.config import AUTO_MODEL, REAL_MODEL, TargetSize, default_model, default_sampler
from vdsr_cli.images import Picture
from vdsr_cli.inspection import inspect
from vdsr_cli.loading import Choice, LoadedModel

Load = Callable[[str], LoadedModel]


class AutoModel:
    """Chooses between two models. That of clean pictures is loaded at once, so that what it refuses
    is told before any picture is read; the other when a picture first needs it.

    Args:
        clean, degraded: their names; without one for degraded pictures all get the other.
        load: what makes a name a model.
        how: is added to the reason where the model for degraded pictures makes the scale in a
            roundabout way.

    Raises:
        VdsrError: what ``load`` raises.
    """

    name = AUTO_MODEL

    def __init__(self, clean: str, degraded: str | None, load: Load, *, how: str = "") -> None:
        self._load = cache(load)
        self._clean, self._degraded, self._how = self._load(clean), degraded, how

    @property
    def scale(self) -> int:
        """Integer super-resolution factor of the model for clean pictures."""
        return self._clean.scale

    def choose(self, picture: Picture) -> Choice:
        """Inspects a picture, and loads its model where that has not been needed before.

        Raises:
            VdsrError: what ``load`` raises.
        """
        verdict = inspect(picture.rgb[0], picture.jpeg_table)
        if not verdict.is_degraded:
            return Choice(loaded=self._clean, reason=verdict.reason)
        if self._degraded is None:
            reason = f"its scale: for {verdict.reason} there is no model at x{self.scale}"
            return Choice(loaded=self._clean, reason=reason)
        return Choice(loaded=self._load(self._degraded), reason=verdict.reason + self._how)


def auto_upscaler(scale: float, load: Load) -> AutoModel:
    """The models that make a scale, ``vdvae-sr-x4-real`` by reducing its x4 or by a second pass."""
    how = "" if scale == 4 else f" (x{scale:g} by way of its x4{', twice' if scale > 4 else ''})"
    return AutoModel(default_model(scale), REAL_MODEL, load, how=how)


class AutoBySize:
    """:func:`auto_upscaler` where the scale follows from each picture's size."""

    name = AUTO_MODEL
    scale = 4
    """The scale of the default model, which is loaded at once."""

    def __init__(self, size: TargetSize, load: Load) -> None:
        self._size, self._load = size, cache(load)
        auto_upscaler(self.scale, self._load)

    def choose(self, picture: Picture) -> Choice:
        """As :meth:`AutoModel.choose`. Raises InputError for a picture of no size for it."""
        scale = self._size.scale_of(picture.height, picture.width)
        # Up, as a model of a scale passes twice over what is the least larger.
        return auto_upscaler(math.ceil(scale * 1000) / 1000, self._load).choose(picture)


def auto_sampler(scale: float, load: Load) -> AutoModel:
    """The models that draw samples at their own scale; only at x4 is there one for degraded
    pictures."""
    clean = default_sampler(scale)
    return AutoModel(clean, REAL_MODEL if default_model(scale) == default_model(4) else None, load)
