"""Pages of printed text, a domain of its own, to try fine-tuning on.

    python tools/text_pages.py pages
    vdsr train vdvae-sr pages/train --from vdvae-sr-x4 --out runs/text --minutes 14 --steps 1200
    vdsr bench pages/test --model vdvae-sr-x4,runs/text

Writes ``train`` (48 pages) and ``test`` (8 others) of 768x576 pixels: lines of made-up words in
Pillow's own typeface at sizes from 12 to 40 pixels, ink and paper of varying tone, turned by up to
two degrees and softened a little as a scanner does.
"""

import argparse
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE = (768, 576)
CONSONANTS, VOWELS = "bcdfghjklmnpqrstvwxyz", "aeiou"


def word(rng: random.Random) -> str:
    """One to four syllables, now and then a number, a capital or a mark after it."""
    if rng.random() < 0.1:
        return str(rng.randrange(10_000))
    syllables = range(rng.randint(1, 4))
    text = "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in syllables)
    text = text.capitalize() if rng.random() < 0.15 else text
    return text + (rng.choice(",.;:!?") if rng.random() < 0.15 else "")


def page(rng: random.Random) -> Image.Image:
    """One page, drawn at twice its size."""
    width, height = 2 * SIZE[0], 2 * SIZE[1]
    paper = tuple(rng.randint(215, 255) for _ in range(3))
    ink = tuple(rng.randint(0, 70) for _ in range(3))
    sheet = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(sheet)
    y = 20
    while y < height:
        font = ImageFont.load_default(2 * rng.choice([12, 14, 16, 20, 26, 40]))
        line = " ".join(word(rng) for _ in range(30))
        draw.text((40, y), line, fill=ink, font=font)
        y += int(1.4 * font.size)
    turned = sheet.rotate(rng.uniform(-2, 2), Image.Resampling.BICUBIC, fillcolor=paper)
    soft = turned.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.0)))
    return soft.resize(SIZE, Image.Resampling.BOX)


def main() -> None:
    """Parses and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    folder = parser.parse_args().out
    rng = random.Random(0)
    for name, count in (("train", 48), ("test", 8)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            page(rng).save(folder / name / f"page{index:02}.png")


if __name__ == "__main__":
    main()
