"""Pictures that photographs lack, to train beside them: plain colours, gradients, drawings, print.

    python tools/drawn_pictures.py drawn [--count 60] [--kinds KIND ...] [--font FILE ...]
    python tools/drawn_pictures.py steep --count 600 --kinds plain --side 256
    python tools/drawn_pictures.py gradients --count 600 --kinds gradient --side 256
    vdsr train vdvae-sr photographs drawn --from vdvae-sr-x4-real --degradation real --out runs/mine

Writes PNGs of 768x768 pixels, of these kinds in turn: plain, a colour or a gradient and nothing
else, every third of them white or black; drawing, lines, polygons and ellipses over one; page,
lines of made-up words. A model that never sees plain areas adds grain to them, and one that never
sees print bends it. And, where it is asked for: gradient, every third of them between greys.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from text_pages import word

SIDE = 768
DRAWN = 2 * SIDE
"""Side at which lines and print are drawn, before they are reduced."""
KINDS = ("plain", "drawing", "page")
ALONE = "gradient"
"""The kind that is drawn where it is asked for."""
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
Colour = tuple[int, int, int]


def colour(rng: random.Random) -> Colour:
    """Any colour, a grey every third time."""
    if rng.random() < 1 / 3:
        return grey(rng)
    return (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))


def grey(rng: random.Random) -> Colour:
    """Any grey."""
    return (rng.randint(0, 255),) * 3


def plain(rng: random.Random, side: int) -> Image.Image:
    """White, black, a colour, or a gradient between two in any direction."""
    kind = rng.random()
    if kind < 1 / 3:
        return Image.new("RGB", (side, side), rng.choice((WHITE, BLACK)))
    if kind < 2 / 3:
        return Image.new("RGB", (side, side), colour(rng))
    return gradient(rng, side, colour)


def greyer(rng: random.Random, side: int) -> Image.Image:
    """A gradient, every third time between two greys."""
    return gradient(rng, side, grey if rng.random() < 1 / 3 else colour)


def gradient(
    rng: random.Random, side: int, shade: Callable[[random.Random], Colour]
) -> Image.Image:
    """From one shade to another in any direction."""
    turn = rng.uniform(0, 2 * np.pi)
    across, down = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    share = (np.cos(turn) * across + np.sin(turn) * down)[..., None] / 2.9 + 0.5
    first, last = np.array(shade(rng)), np.array(shade(rng))
    return Image.fromarray((first + (last - first) * share).round().astype(np.uint8))


def drawing(rng: random.Random) -> Image.Image:
    """Lines, polygons and ellipses, filled or not."""
    sheet = plain(rng, DRAWN)
    draw = ImageDraw.Draw(sheet)
    for _ in range(rng.randint(10, 60)):
        points = [(rng.randrange(DRAWN), rng.randrange(DRAWN)) for _ in range(rng.randint(2, 5))]
        thick = rng.choice((2, 3, 4, 6, 10, 16))
        shape = rng.random()
        if shape < 0.5:
            draw.line(points, fill=colour(rng), width=thick)
        elif shape < 0.75:
            draw.polygon(points, fill=colour(rng) if rng.random() < 0.5 else None, outline=BLACK)
        else:
            (x, y), radius = points[0], rng.randint(10, DRAWN // 4)
            box = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(box, outline=colour(rng), width=thick)
    return sheet.resize((SIDE, SIDE), Image.Resampling.BOX)


def page(rng: random.Random, fonts: Sequence[Path]) -> Image.Image:
    """Lines of made-up words of several sizes, dark on light or light on dark."""
    light = tuple(rng.randint(190, 255) for _ in range(3))
    dark = tuple(rng.randint(0, 90) for _ in range(3))
    paper, ink = (light, dark) if rng.random() < 0.7 else (dark, light)
    sheet = Image.new("RGB", (DRAWN, DRAWN), paper)
    draw = ImageDraw.Draw(sheet)
    y = 20
    while y < DRAWN:
        size = 2 * rng.choice((14, 18, 24, 32, 48, 72, 110))
        file = rng.choice((None, *fonts))
        font = ImageFont.truetype(file, size) if file else ImageFont.load_default(size)
        line = " ".join(word(rng) for _ in range(30))
        draw.text((rng.randint(-40, 40), y), line, fill=ink, font=font)
        y += int(1.4 * size)
    return sheet.resize((SIDE, SIDE), Image.Resampling.BOX)


def main() -> None:
    """Parses and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--kinds", nargs="+", choices=(*KINDS, ALONE), default=KINDS)
    parser.add_argument(
        "--side", type=int, default=SIDE, help="of plain ones, whose gradients are as steep"
    )
    parser.add_argument("--font", type=Path, nargs="*", default=[], help="beside Pillow's own")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    makers = {
        "plain": lambda: plain(rng, options.side),
        "drawing": lambda: drawing(rng),
        "page": lambda: page(rng, options.font),
        ALONE: lambda: greyer(rng, options.side),
    }
    for index in range(options.count):
        picture = makers[options.kinds[index % len(options.kinds)]]()
        picture.save(options.out / f"drawn{index:03}.png")


if __name__ == "__main__":
    main()
