"""Twenty things that happen to a photograph before it is upscaled, from none to heavy.

A photograph is reduced to a quarter by the degradation that ``vdvae-sr-x4`` was trained on, or
cropped at its full size, as a camera gives it; screenshots are drawn. What each kind is called,
clean or degraded, is the model that it is to get. On the fence that was decided by LPIPS of what
the two models make of ten other photographs (``tools/input_kind_fence.py``): on the mean
``vdvae-sr-x4-real`` is ahead from JPEG at quality 85 down, from noise of 3 grey levels up and from
blur of a standard deviation of 0.8 pixels up. Blur is degraded here where it is strong
only: at full size a camera's own picture is as soft as a reduced one that was blurred a little.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from vdsr_cli.consistency import degrade_8bit

Levels = NDArray[np.uint8]
"""(h, w, 3)."""
Rng = np.random.Generator

SCALE: Final = 4
_CAMERA_SIDE: Final = 512
_WORDS: Final = (
    "File Edit View Search Open settings of the picture 12:45 Cancel OK Total 3,417 items"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One of the twenty: a photograph (h, w, 3) and random numbers in, a picture's file out."""

    name: str
    is_degraded: bool
    make: Callable[[Levels, Rng], bytes]


def png(pixels: Levels) -> bytes:
    """A PNG file."""
    return _saved(pixels, "PNG", compress_level=1)


def jpeg(pixels: Levels, quality: int, *, subsampling: int = 2) -> bytes:
    """A JPEG file; subsampling 0 is 4:4:4, 2 is 4:2:0."""
    return _saved(pixels, "JPEG", quality=quality, subsampling=subsampling)


def _saved(pixels: Levels, format: str, **options: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def decoded(file: bytes) -> Levels:
    """The pixels of a file."""
    return np.array(Image.open(BytesIO(file)).convert("RGB"))


def reduced(photo: Levels) -> Levels:
    """The LR picture, by antialiased bicubic reduction."""
    height, width = (side // SCALE * SCALE for side in photo.shape[:2])
    planes = torch.from_numpy(photo[:height, :width].copy()).permute(2, 0, 1).unsqueeze(0)
    return np.ascontiguousarray(degrade_8bit(planes, SCALE)[0].permute(1, 2, 0).numpy())


def camera(photo: Levels) -> Levels:
    """The middle of the photograph at its own size."""
    top, left = (max(side - _CAMERA_SIDE, 0) // 2 for side in photo.shape[:2])
    return np.ascontiguousarray(photo[top : top + _CAMERA_SIDE, left : left + _CAMERA_SIDE])


def noisy(pixels: Levels, sigma: float, rng: Rng, *, is_grey: bool = False) -> Levels:
    """Normal noise of a standard deviation in grey levels, of each channel or of all alike."""
    spread = rng.normal(0, sigma, (*pixels.shape[:2], 1 if is_grey else 3))
    return (pixels + spread).round().clip(0, 255).astype(np.uint8)


def blurred(pixels: Levels, sigma: float) -> Levels:
    """Gaussian blur of a standard deviation in pixels."""
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def resized(
    pixels: Levels, factor: float, method: Image.Resampling = Image.Resampling.BICUBIC
) -> Levels:
    """By a factor, each side 16 pixels at least."""
    height, width = (max(16, round(side * factor)) for side in pixels.shape[:2])
    return np.array(Image.fromarray(pixels).resize((width, height), method))


def screenshot(photo: Levels, rng: Rng) -> Levels:
    """A window with bars, buttons, text and shapes, on two of three a photograph's thumbnail."""
    draw_from = random.Random(int(rng.integers(1 << 30)))
    width, height = draw_from.randint(240, 720), draw_from.randint(200, 540)
    is_dark = draw_from.random() < 0.4
    paper, ink = _tone(draw_from, is_dark), _tone(draw_from, not is_dark)
    sheet = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((0, 0, width, 28), fill=_tone(draw_from, draw_from.random() < 0.5))
    for _ in range(draw_from.randint(3, 12)):
        x, y = draw_from.randrange(width), draw_from.randrange(height)
        box = (x, y, x + draw_from.randint(8, 160), y + draw_from.randint(8, 90))
        shape = draw_from.choice((draw.rectangle, draw.rounded_rectangle, draw.ellipse))
        options = {"radius": 8} if shape == draw.rounded_rectangle else {}
        colour = tuple(draw_from.randrange(256) for _ in range(3))
        shape(box, fill=colour, outline=ink, **options)
    y = 34
    while y < height:
        font = ImageFont.load_default(draw_from.choice((10, 11, 12, 14, 18)))
        words = _WORDS.split()
        draw_from.shuffle(words)
        draw.text((10, y), " ".join(words[: draw_from.randint(2, 12)]), fill=ink, font=font)
        y += int(font.size * draw_from.choice((1.4, 1.4, 3)))
    if draw_from.random() < 2 / 3:
        thumbnail = Image.fromarray(photo)
        thumbnail.thumbnail((width // 2, height // 2))
        sheet.paste(thumbnail, (width // 3, height // 3))
    return np.array(sheet)


def drawing(rng: Rng) -> Levels:
    """Smooth-edged shapes on a flat ground or a gradient, now and then without shapes, or in two
    colours alone."""
    draw_from = random.Random(int(rng.integers(1 << 30)))
    width, height = draw_from.randint(100, 400), draw_from.randint(100, 400)
    corners = np.array([[draw_from.randrange(256) for _ in range(3)] for _ in range(2)])
    if draw_from.random() < 0.4:
        corners[1] = corners[0]
    across, down = draw_from.random(), draw_from.random()
    ramp = np.add.outer(np.linspace(0, down, 2 * height), np.linspace(0, across, 2 * width))
    share = (ramp / max(across + down, 0.01))[..., None]
    ground = (corners[0] * (1 - share) + corners[1] * share).round().astype(np.uint8)
    sheet = Image.fromarray(ground)
    draw = ImageDraw.Draw(sheet)
    for _ in range(draw_from.choice((0, 2, 5, 20))):
        x, y = draw_from.randrange(2 * width), draw_from.randrange(2 * height)
        box = (x, y, x + draw_from.randint(4, width), y + draw_from.randint(4, height))
        colour = tuple(draw_from.randrange(256) for _ in range(3))
        shape = draw_from.choice((draw.ellipse, draw.rectangle, draw.line))
        shape(box, fill=colour, width=draw_from.randint(1, 8))
    smooth = sheet.resize((width, height), Image.Resampling.BOX)
    return np.array((smooth.convert("1") if draw_from.random() < 0.15 else smooth).convert("RGB"))


def _tone(draw_from: random.Random, is_dark: bool) -> tuple[int, int, int]:
    base = draw_from.randint(0, 60) if is_dark else draw_from.randint(200, 255)
    return tuple(min(255, max(0, base + draw_from.randint(-10, 10))) for _ in range(3))  # type: ignore[return-value]


def phone(lr: Levels, rng: Rng) -> bytes:
    """Out of focus, made larger by the camera's zoom, noisy and compressed."""
    soft = resized(blurred(lr, 0.8), 1.4, Image.Resampling.BILINEAR)
    return jpeg(noisy(soft, 5, rng), 60)


KINDS: Final = (
    Kind(name="none, PNG", is_degraded=False, make=lambda p, r: png(reduced(p))),
    Kind(
        name="JPEG 95, 4:4:4",
        is_degraded=False,
        make=lambda p, r: jpeg(reduced(p), 95, subsampling=0),
    ),
    Kind(name="JPEG 90", is_degraded=False, make=lambda p, r: jpeg(reduced(p), 90)),
    Kind(name="noise of 1", is_degraded=False, make=lambda p, r: png(noisy(reduced(p), 1, r))),
    Kind(name="noise of 2", is_degraded=False, make=lambda p, r: png(noisy(reduced(p), 2, r))),
    Kind(name="camera, PNG", is_degraded=False, make=lambda p, r: png(camera(p))),
    Kind(name="camera, JPEG 95", is_degraded=False, make=lambda p, r: jpeg(camera(p), 95)),
    Kind(name="screenshot", is_degraded=False, make=lambda p, r: png(screenshot(p, r))),
    Kind(name="JPEG 75", is_degraded=True, make=lambda p, r: jpeg(reduced(p), 75)),
    Kind(name="JPEG 50", is_degraded=True, make=lambda p, r: jpeg(reduced(p), 50)),
    Kind(name="JPEG 20", is_degraded=True, make=lambda p, r: jpeg(reduced(p), 20)),
    Kind(
        name="JPEG 60, saved as PNG",
        is_degraded=True,
        make=lambda p, r: png(decoded(jpeg(reduced(p), 60))),
    ),
    Kind(
        name="JPEG 50, resized by 0.8, PNG",
        is_degraded=True,
        make=lambda p, r: png(resized(decoded(jpeg(reduced(p), 50)), 0.8)),
    ),
    Kind(
        name="JPEG 50, resized by 1.25, JPEG 95",
        is_degraded=True,
        make=lambda p, r: jpeg(resized(decoded(jpeg(reduced(p), 50)), 1.25), 95),
    ),
    Kind(name="noise of 5", is_degraded=True, make=lambda p, r: png(noisy(reduced(p), 5, r))),
    Kind(name="noise of 10", is_degraded=True, make=lambda p, r: png(noisy(reduced(p), 10, r))),
    Kind(
        name="grey noise of 20",
        is_degraded=True,
        make=lambda p, r: png(noisy(reduced(p), 20, r, is_grey=True)),
    ),
    Kind(
        name="noise of 8, JPEG 70, saved as PNG",
        is_degraded=True,
        make=lambda p, r: png(decoded(jpeg(noisy(reduced(p), 8, r), 70))),
    ),
    Kind(name="phone", is_degraded=True, make=lambda p, r: phone(reduced(p), r)),
    Kind(name="blur of 2", is_degraded=True, make=lambda p, r: png(blurred(reduced(p), 2))),
)
