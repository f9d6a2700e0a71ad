"""Writes photographs as older files had them, to train a likelihood on beside others.

    python tools/old_pictures.py PHOTOGRAPHS OUT --count 150

As many of each kind: grey; of 256 dithered colours, as a GIF; video, with colour at half of the
brightness's resolution; broadcast, at a quarter of it across; of muted colours, with grain that all
share; grainy, each colour by itself; of colours that pixels have in pairs, or in squares of 2x2. A
likelihood that has only seen photographs of today takes the first two for something that cannot be
and does not expect colours to move together as in the others; the usual benchmarks have such
pictures among them.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def _grey(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return picture.convert("L")


def _dithered(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    palette = picture.quantize(256)
    return picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def _subsampled(across: int, down: int) -> Change:
    def changed(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
        brightness, *colour = picture.convert("YCbCr").split()
        size = max(1, picture.width // across), max(1, picture.height // down)
        enlarge = Image.Resampling(
            generator.choice([Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
        )
        coarse = [
            one.resize(size, Image.Resampling.BOX).resize(picture.size, enlarge) for one in colour
        ]
        return Image.merge("YCbCr", [brightness, *coarse])

    return changed


def _repeated(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    brightness, *colour = np.moveaxis(np.array(picture.convert("YCbCr")), 2, 0)
    height, width = brightness.shape
    down = int(generator.integers(1, 3))
    for one in colour:
        first = one[::down, ::2].repeat(down, 0).repeat(2, 1)
        one[...] = first[:height, :width]
    levels = np.stack([brightness, *colour], axis=2)
    left, top = (generator.random(2) < 0.25).astype(int)  # a few were cut out of larger ones
    return Image.fromarray(levels[top:, left:], mode="YCbCr")


def _muted(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    grey = picture.convert("L").convert("RGB")
    levels = np.asarray(Image.blend(grey, picture, generator.uniform(0.1, 0.6)), dtype=np.float32)
    return _noisy(levels, generator.normal(size=(*levels.shape[:2], 1)), generator)


def _grainy(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    levels = np.asarray(picture, dtype=np.float32)
    return _noisy(levels, generator.normal(size=levels.shape), generator)


def _noisy(levels: np.ndarray, noise: np.ndarray, generator: np.random.Generator) -> Image.Image:
    sigma = generator.uniform(1, 6)
    return Image.fromarray((levels + sigma * noise).round().clip(0, 255).astype(np.uint8))


CHANGES: dict[str, Change] = {
    "grey": _grey,
    "dithered": _dithered,
    "video": _subsampled(2, 2),
    "broadcast": _subsampled(4, 1),
    "muted": _muted,
    "grainy": _grainy,
    "repeated": _repeated,
}


def main() -> None:
    """Parses and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photographs", type=Path, help="folder of pictures")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--count", type=int, default=150, help="how many; default 150")
    parser.add_argument("--kinds", nargs="+", choices=CHANGES, default=list(CHANGES))
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    paths = sorted(path for path in options.photographs.rglob("*") if path.is_file())
    generator = np.random.default_rng(0)
    for index, path in enumerate(paths[:: max(1, len(paths) // options.count)][: options.count]):
        with Image.open(path) as photograph:
            picture = photograph.convert("RGB")
        changed = CHANGES[options.kinds[index % len(options.kinds)]](picture, generator)
        changed.convert("RGB").save(options.out / f"{index:03}.png")


if __name__ == "__main__":
    main()
