"""Clean, or noisy and compressed, and why."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFilter
from pixels import ROOT, compressed, noisy, photo, ramp, screenshot

from vdsr_cli.images import read_picture
from vdsr_cli.inspection import LOWEST_CLEAN_QUALITY, Verdict, inspect


def verdict(image: Image.Image, format: str = "PNG", **options) -> Verdict:
    """The verdict on a picture as a file."""
    file = BytesIO()
    image.save(file, format, **options)
    picture = read_picture(BytesIO(file.getvalue()))
    return inspect(picture.rgb[0], picture.jpeg_table)


def with_hole(image: Image.Image) -> Image.Image:
    """Transparent around a disc, as a sprite is."""
    alpha = np.hypot(*np.meshgrid(np.linspace(-1, 1, 256), np.linspace(-1, 1, 256))) < 0.8
    image = image.copy()
    image.putalpha(Image.fromarray((alpha * 255).astype(np.uint8)))
    return image


def night() -> Image.Image:
    """The photograph, a tenth as bright."""
    return photo().point(lambda level: level // 10)


CLEAN = {
    "photograph": photo,
    "grey": lambda: photo().convert("L"),
    "reduced": lambda: photo().resize((64, 64), Image.Resampling.BICUBIC),
    "night": night,
    "sprite": lambda: with_hole(photo()),
    "faint grain": lambda: noisy(photo(), 1.5),
    "screenshot": screenshot,
    "drawing of two colours": lambda: screenshot().convert("1"),
    "gradient": ramp,
    "flat": lambda: Image.new("RGB", (200, 100), (90, 120, 200)),
    "black": lambda: Image.new("L", (64, 64)),
    "one pixel": lambda: Image.new("RGB", (1, 1), "red"),
    "one row": lambda: Image.new("RGB", (500, 1), "red"),
    "checkerboard": lambda: Image.fromarray((np.indices((96, 96)).sum(0) % 2 * 255).astype("u1")),
}


@pytest.mark.parametrize("name", CLEAN)
def test_clean(name):
    found = verdict(CLEAN[name]())
    assert not found.is_degraded, found.reason


def test_16_bits_are_judged_as_8():
    deep = np.asarray(photo().convert("L")).astype(np.uint16) * 257
    assert verdict(Image.fromarray(deep)) == verdict(photo().convert("L"))


@pytest.mark.parametrize(
    ("make", "quality"),
    [(photo, 95), (photo, 100), (lambda: noisy(photo(), 1), 95), (screenshot, 100)],
)
def test_a_jpeg_of_full_quality_is_clean(make, quality):
    found = verdict(make(), "JPEG", quality=quality)
    assert found == Verdict(is_degraded=False, reason=f"JPEG at quality {quality} and clean pixels")


@pytest.mark.parametrize("size", [(256, 256), (8, 8), (1, 1)])
def test_coarse_tables_decide_at_any_size(size):
    quality = LOWEST_CLEAN_QUALITY - 1
    found = verdict(photo().resize(size), "JPEG", quality=quality)
    assert found.is_degraded and f"JPEG at quality {quality}" in found.reason


FAULTS = {
    "traces of compression": lambda: compressed(photo(), 40),
    "noise of 1": lambda: noisy(photo(), 15),
    "blur": lambda: photo().filter(ImageFilter.GaussianBlur(2.5)),
}


@pytest.mark.parametrize("words", FAULTS)
def test_what_is_wrong_is_told(words):
    found = verdict(FAULTS[words]())
    assert found.is_degraded and words in found.reason


def test_several_faults_are_told_together():
    found = verdict(noisy(photo(), 25), "JPEG", quality=80)
    assert found.reason.startswith("JPEG at quality 80 and noise of ")


@pytest.mark.parametrize(("name", "is_degraded"), [("photo.png", False), ("phone.jpg", True)])
def test_the_examples(name, is_degraded):
    picture = read_picture(ROOT / "examples" / name)
    assert inspect(picture.rgb[0], picture.jpeg_table).is_degraded == is_degraded
