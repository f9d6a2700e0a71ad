"""Writes pictures as GIF had them, of 256 dithered colours, and grey ones, to train beside others.

    python tools/paletted_pictures.py PHOTOGRAPHS OUT --count 60

Half of them are of the one kind, half of the other. A likelihood that has only seen photographs
takes the dither for something that cannot be; the usual benchmarks have such pictures among them.
"""

import argparse
from pathlib import Path

from PIL import Image


def _dithered(picture: Image.Image) -> Image.Image:
    palette = picture.quantize(256)
    return picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def main() -> None:
    """Parses and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photographs", type=Path, help="folder of pictures")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--count", type=int, default=60, help="how many; default 60")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    paths = sorted(path for path in options.photographs.rglob("*") if path.is_file())
    for index, path in enumerate(paths[:: max(1, len(paths) // options.count)][: options.count]):
        with Image.open(path) as photograph:
            picture = photograph.convert("RGB")
        changed = _dithered(picture) if index % 2 else picture.convert("L")
        changed.convert("RGB").save(options.out / f"{index:03}.png")


if __name__ == "__main__":
    main()
