"""The worst pictures, looked at: crops of every method side by side where the first errs most."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from vdsr_cli.bench.data import Scene, to_image
from vdsr_cli.bench.methods import Bicubic, Method
from vdsr_cli.errors import InputError
from vdsr_cli.images import atomic_write

SIDE_PX = 96
_ZOOM = 2
_GAP_PX = 8
_LABEL_PX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture of a strip: uint8 (3, H, W) and what stands under it."""

    label: str
    pixels: Tensor


def worst_place(sr: Tensor, hr: Tensor, side: int = SIDE_PX) -> tuple[int, int]:
    """Row and column of the square of ``side`` pixels with the largest absolute error."""
    error = (sr.float() - hr.float()).abs().mean(0, keepdim=True).unsqueeze(0)
    height, width = min(side, hr.shape[1]), min(side, hr.shape[2])
    sums = F.avg_pool2d(error, (height, width), stride=1)[0, 0]
    return divmod(int(sums.argmax()), sums.shape[1])


def make_panels(dataset: str, scene: Scene, methods: Sequence[Method]) -> list[Panel]:
    """Bicubic, each method's first sample, and HR, cropped where the first method errs most."""
    drawn = dict(_first_samples(dataset, scene, methods))
    baseline = Bicubic().draw(dataset, scene).samples[0]
    top, left = worst_place(next(iter(drawn.values()), baseline), scene.hr)
    lower, right = top + SIDE_PX, left + SIDE_PX
    pictures = {"bicubic": baseline, **drawn, "HR": scene.hr}
    return [
        Panel(label=label, pixels=pixels[:, top:lower, left:right])
        for label, pixels in pictures.items()
    ]


def _first_samples(
    dataset: str, scene: Scene, methods: Sequence[Method]
) -> Iterator[tuple[str, Tensor]]:
    """By label; a folder that lacks the picture has said so before."""
    for method in methods:
        with suppress(InputError):
            yield _label(method), method.draw(dataset, scene).samples[0]


def _label(method: Method) -> str:
    if method.temperature is None:
        return method.name
    return f"{method.name} t={method.temperature:g}"


def draw_strip(panels: Sequence[Panel]) -> Image.Image:
    """The panels side by side, enlarged without smoothing, named below."""
    height, width = (side * _ZOOM for side in panels[0].pixels.shape[1:])
    step = width + _GAP_PX
    strip = Image.new("RGB", (step * len(panels) - _GAP_PX, height + _LABEL_PX), "white")
    draw = ImageDraw.Draw(strip)
    for index, panel in enumerate(panels):
        image = to_image(panel.pixels.to(torch.uint8))
        strip.paste(image.resize((width, height), Image.Resampling.NEAREST), (index * step, 0))
        draw.text((index * step, height + 2), panel.label, fill="black")
    return strip


def save_strip(path: Path, strip: Image.Image, *, replace: bool) -> None:
    """Writes a PNG, whole or not at all; raises OutputError, also where there is a file and no
    ``replace``."""
    with atomic_write(path, replace=replace) as stream:
        strip.save(stream, format="PNG")
