"""A benchmark set as phones and the web deliver it: soft, noisy and compressed LR pictures.

    python tools/degraded_set.py Set14/HR web [--noise 8] [--quality 50]
    python tools/degraded_set.py Set14/HR phone --blur 1.6 --filter bilinear --noise 5 --quality 60
    vdsr bench phone --model vdvae-sr-x4,vdvae-sr-x4-real --temperatures 0,0.8 \\
        --no-consistency --no-verify

Writes ``HR`` (cropped to multiples of 4) and ``LRx4``: HR blurred by a gaussian of the given
standard deviation in its pixels, reduced by the given antialiased filter, each rounded to 8 bits,
normal noise of the given standard deviation in grey levels added, JPEG at the given quality, kept
as PNG.
"""

import argparse
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vdsr_cli.consistency import degrade_8bit
from vdsr_cli.images import read_picture
from vdsr_cli.training.degradation import KERNEL, blur

SCALE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The losses of a picture.

    Attributes:
        blur: standard deviation of the blur before the reduction, HR pixels; 0 is none.
        filter: of the reduction, ``bicubic`` or ``bilinear``.
        noise: standard deviation, grey levels.
        quality: of the JPEG.
    """

    blur: float
    filter: str
    noise: float
    quality: int


def reduced(hr: Tensor, settings: Settings) -> Tensor:
    """uint8 (1, 3, H, W) -> uint8 (1, 3, H / 4, W / 4), blurred before if so set."""
    soft = hr
    if settings.blur:
        offsets = torch.arange(KERNEL) - KERNEL // 2
        weights = torch.exp(-0.5 * (offsets / settings.blur) ** 2)
        weights /= weights.sum()
        soft = blur(hr.float(), weights.outer(weights).unsqueeze(0)).round().to(torch.uint8)
    if settings.filter == "bicubic":
        return degrade_8bit(soft, SCALE)
    return (
        F.interpolate(soft.float(), scale_factor=1 / SCALE, mode="bilinear", antialias=True)
        .round()
        .to(torch.uint8)
    )


def degraded(hr: np.ndarray, rng: np.random.Generator, settings: Settings) -> Image.Image:
    """(H, W, 3) uint8 -> the LR picture."""
    planes = torch.from_numpy(hr).permute(2, 0, 1).unsqueeze(0)
    lr = reduced(planes, settings)[0].permute(1, 2, 0).numpy()
    noisy = (lr + rng.normal(0, settings.noise, lr.shape)).round().clip(0, 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=settings.quality)
    return Image.open(file).convert("RGB")


def main() -> None:
    """Parses and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="folder of HR pictures")
    parser.add_argument("out", type=Path)
    parser.add_argument("--blur", type=float, default=0.0)
    parser.add_argument("--filter", choices=("bicubic", "bilinear"), default="bicubic")
    parser.add_argument("--noise", type=float, default=8.0)
    parser.add_argument("--quality", type=int, default=50)
    options = parser.parse_args()
    settings = Settings(
        blur=options.blur, filter=options.filter, noise=options.noise, quality=options.quality
    )
    rng = np.random.default_rng(0)
    for name in ("HR", f"LRx{SCALE}"):
        (options.out / name).mkdir(parents=True, exist_ok=True)
    for path in sorted(options.source.iterdir()):
        rgb = read_picture(path).rgb[0].permute(1, 2, 0).numpy()
        height, width = (side - side % SCALE for side in rgb.shape[:2])
        hr = (rgb[:height, :width] * 255).round().astype(np.uint8)
        Image.fromarray(hr).save(options.out / "HR" / f"{path.stem}.png")
        degraded(hr, rng, settings).save(options.out / f"LRx{SCALE}" / f"{path.stem}.png")


if __name__ == "__main__":
    main()
