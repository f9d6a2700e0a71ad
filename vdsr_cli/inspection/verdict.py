"""Clean, or noisy and compressed? The decision, and its reason in a few words.

A JPEG's own tables decide where they are coarse. Else, and for every other format, the estimates
go through a network of one hidden layer with one output for each cause; where any is above 0, the
picture is degraded. ``tools/fit_input_kind.py`` fits it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from torch import Tensor

from vdsr_cli.inspection.estimates import Estimates, estimate
from vdsr_cli.jpeg_tables import quality_of

LOWEST_CLEAN_QUALITY: Final = 86
"""Quality of a JPEG below which ``vdvae-sr-x4-real`` has the better LPIPS of the two models."""
LEAST_NOISE: Final = 2.5
"""Grey levels: below them, though not much, ``vdvae-sr-x4`` has the better one."""
_LEAST_TELLING: Final = 0.02
CAUSES: Final = ("compression", "noise", "blur")
"""The classifier's outputs, in this order."""
CLASSIFIER: Final = "classifier.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a picture is degraded, and the words that follow "because of"."""

    is_degraded: bool
    reason: str


def inspect(rgb: Tensor, jpeg_table: Sequence[int] | None = None) -> Verdict:
    """Judges (3, h, w) in [0, 1] of any size by a bounded number of its pixels, and by the 64
    quantisation steps of the luma where it comes from a JPEG file."""
    return judge(estimate(rgb), None if jpeg_table is None else quality_of(jpeg_table))


def judge(estimates: Estimates | None, jpeg_quality: int | None) -> Verdict:
    """Decides by what there is of the two: the estimates of the pixels, the quality of a JPEG."""
    is_coarse = jpeg_quality is not None and jpeg_quality < LOWEST_CLEAN_QUALITY
    can_tell = estimates is not None and estimates.telling >= _LEAST_TELLING
    found = _words(estimates) if estimates is not None and can_tell else {}
    if is_coarse:
        found["compression"] = f"JPEG at quality {jpeg_quality}"
    if found:
        reason = " and ".join(found[cause] for cause in CAUSES if cause in found)
        return Verdict(is_degraded=True, reason=reason)
    seen = "clean pixels" if can_tell else "too little in it to tell more"
    whole = seen if jpeg_quality is None else f"JPEG at quality {jpeg_quality} and {seen}"
    return Verdict(is_degraded=False, reason=whole)


def _words(estimates: Estimates) -> dict[str, str]:
    """The fault of the pixels: cause and words."""
    words = {
        "compression": "traces of compression",
        "noise": f"noise of {estimates.noise_level:.0f} grey levels",
        "blur": "blur",
    }
    scores = dict(zip(CAUSES, classify(estimates.features), strict=True))
    is_heard = {cause for cause, score in scores.items() if score > 0}
    if estimates.noise_level < LEAST_NOISE:
        is_heard.discard("noise")
    return {cause: text for cause, text in words.items() if cause in is_heard}


def classify(features: Sequence[float]) -> list[float]:
    """The logarithm of the odds of each cause."""
    numbers = _classifier()
    hidden = [math.tanh(value) for value in _affine(numbers["hidden"], features)]
    return _affine(numbers["output"], hidden)


def _affine(layer: dict[str, Any], values: Sequence[float]) -> list[float]:
    rows = zip(layer["weight"], layer["bias"], strict=True)
    return [bias + sum(w * v for w, v in zip(row, values, strict=True)) for row, bias in rows]


@cache
def _classifier() -> dict[str, Any]:
    """Two layers of weights and biases."""
    file = resources.files(__package__).joinpath(CLASSIFIER)
    numbers: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return numbers
