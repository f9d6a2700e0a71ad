"""Pictures of known faults, for the tests of what is seen of them."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

ROOT = Path(__file__).parents[2]


def photo() -> Image.Image:
    """A photograph of 256x256 pixels."""
    with Image.open(ROOT / "tests" / "data" / "street.png") as opened:
        return opened.convert("RGB")


def compressed(image: Image.Image, quality: int) -> Image.Image:
    """The pixels that a JPEG file of it holds."""
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def noisy(image: Image.Image, sigma: float, *, is_grey: bool = False) -> Image.Image:
    """With normal noise, of each channel or of all alike."""
    levels = np.asarray(image, np.float64)
    channels = 1 if is_grey else 3
    spread = np.random.default_rng(0).normal(0, sigma, (*levels.shape[:2], channels))
    return Image.fromarray((levels + spread).round().clip(0, 255).astype(np.uint8))


def screenshot() -> Image.Image:
    """A window with a bar, buttons and text."""
    sheet = Image.new("RGB", (320, 240), (250, 250, 252))
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((0, 0, 320, 24), fill=(40, 60, 110))
    for x in range(12, 300, 72):
        draw.rounded_rectangle((x, 32, x + 60, 52), radius=5, fill=(214, 220, 232), outline="grey")
        draw.text((x + 8, 36), "Button", fill="black", font=ImageFont.load_default(11))
    for y in range(64, 230, 16):
        draw.text((12, y), "Plain words in a window, 12:45", fill=(20, 20, 20))
    return sheet


def ramp() -> Image.Image:
    """A slow gradient, 160x160."""
    rows = np.linspace(60, 190, 160).round().astype(np.uint8)
    return Image.fromarray(np.repeat(rows[:, None, None], 160, axis=1).repeat(3, axis=2))


def tensor(image: Image.Image) -> Tensor:
    """(3, h, w) in [0, 1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
