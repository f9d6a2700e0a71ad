"""A benchmark set as phones and the web deliver it: reduced, noisy and compressed LR pictures.

    python benchmarks/degraded_set.py Set14/HR degraded [--noise 8] [--quality 50]
    vdsr bench degraded --models vdvae-sr-x4,vdvae-sr-x4-real --temperatures 0,0.8 \\
        --no-consistency --no-verify

Writes ``HR`` (cropped to multiples of 4) and ``LRx4``: reduced by antialiased bicubic, normal noise
of the given standard deviation in grey levels added, JPEG at the given quality, kept as PNG.
"""

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vdsr_cli.consistency import degrade_8bit
from vdsr_cli.images import read_picture

SCALE = 4


def degraded(
    hr: np.ndarray, rng: np.random.Generator, *, noise: float, quality: int
) -> Image.Image:
    """(H, W, 3) uint8 -> the LR picture."""
    planes = torch.from_numpy(hr).permute(2, 0, 1).unsqueeze(0)
    lr = degrade_8bit(planes, SCALE)[0].permute(1, 2, 0).numpy()
    noisy = (lr + rng.normal(0, noise, lr.shape)).round().clip(0, 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def main() -> None:
    """Parses and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="folder of HR pictures")
    parser.add_argument("out", type=Path)
    parser.add_argument("--noise", type=float, default=8.0)
    parser.add_argument("--quality", type=int, default=50)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    for name in ("HR", f"LRx{SCALE}"):
        (options.out / name).mkdir(parents=True, exist_ok=True)
    for path in sorted(options.source.iterdir()):
        rgb = read_picture(path).rgb[0].permute(1, 2, 0).numpy()
        height, width = (side - side % SCALE for side in rgb.shape[:2])
        hr = (rgb[:height, :width] * 255).round().astype(np.uint8)
        Image.fromarray(hr).save(options.out / "HR" / f"{path.stem}.png")
        lr = degraded(hr, rng, noise=options.noise, quality=options.quality)
        lr.save(options.out / f"LRx{SCALE}" / f"{path.stem}.png")


if __name__ == "__main__":
    main()
