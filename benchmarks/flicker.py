"""How much an upscaled picture flickers that moves.

    python benchmarks/flicker.py FOLDER [--models NAME,...] [--temperatures 0,0.8] [--frames 8]
        [--motions 0,1,2,4] [--size 256]

From the middle of each photograph of FOLDER a window of ``--size`` HR pixels is cut, which moves by
a motion, so many HR pixels down and to the right a frame; it is reduced by the model's degradation,
rounded to 8 bits, and each frame upscaled as ``vdsr upscale`` does it. Neighbouring frames are then
laid on each other by the motion, which is of whole HR pixels: what does not flicker is equal.

    flicker    mean absolute difference of neighbouring frames, grey levels
    bicubic    the same of the frames enlarged by bicubic interpolation: the sampling grid alone
    hr         of the photograph itself: 0
    psnr       dB of the frames against the photograph

At motion 0 all have to be 0. A motion of a whole LR pixel, 4 at x4, leaves the LR frames equal
where they overlap: what differs is the noise, which stays in its place while the picture moves, and
what a model makes of the edges and of its grid of latents.

A second table is of two frames of examples/photo.png, 256 LR pixels wide, of which the first 8
columns of one are the other's negative: the mean absolute difference by LR pixels from them.
"""

from argparse import Namespace
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from common import argument_parser, mirrored
from torch import Tensor

from vdsr_cli.consistency import degrade_8bit
from vdsr_cli.images import Picture, read_picture
from vdsr_cli.loading import LoadedModel, load
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.runtime import Runtime, choose_runtime
from vdsr_cli.sampling.engine import SamplingSettings
from vdsr_cli.services.upscale import UpscaleRequest, upscale_picture

BORDER = 16
"""HR pixels at the edges of a frame that are left out."""
CHANGED = 8
DISTANCES = ((0, 8), (8, 24), (24, 56), (56, 120), (120, 248))
"""LR pixels from the change."""


def main() -> None:
    """Parses the command line, upscales the frames and prints the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="vdvae-sr-x4")
    parser.add_argument("--temperatures", default="0,0.8")
    parser.add_argument("--motions", default="0,1,2,4", help="HR pixels a frame")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=256, help="HR pixels a side")
    parser.add_argument("--most", type=int, default=20, help="photographs")
    options = parser.parse_args()
    runtime = choose_runtime("auto", "auto")
    motions = [int(motion) for motion in options.motions.split(",")]
    photographs = [
        photograph
        for path in sorted(options.folder.iterdir())
        if (photograph := whole(path, options.size + max(motions) * options.frames)) is not None
    ][: options.most]
    print(f"{len(photographs)} photographs, {options.frames} frames of {options.size} pixels\n")
    print("| model | temperature | motion | flicker | bicubic | hr | psnr |")
    print("|---|---|---|---|---|---|---|")
    for name in options.models.split(","):
        loaded = load(name, runtime, expects=Sampler)
        for temperature in map(float, options.temperatures.split(",")):
            for motion in motions:
                rows = [
                    measured(photograph, motion, options, temperature, loaded, runtime)
                    for photograph in photographs
                ]
                flicker, bicubic, hr, psnr = torch.tensor(rows).mean(0).tolist()
                cells = f"{flicker:.2f} | {bicubic:.2f} | {hr:.2f} | {psnr:.2f}"
                print(f"| {name} | {temperature:g} | {motion} | {cells} |", flush=True)
    print("\n| model | temperature | " + " | ".join(f"{a} to {b}" for a, b in DISTANCES) + " |")
    print("|---|---|" + "---|" * len(DISTANCES))
    for name in options.models.split(","):
        loaded = load(name, runtime, expects=Sampler)
        for temperature in map(float, options.temperatures.split(",")):
            cells = " | ".join(f"{mean:.4f}" for mean in reach(temperature, loaded, runtime))
            print(f"| {name} | {temperature:g} | {cells} |", flush=True)


def whole(path: Path, side: int) -> Tensor | None:
    """The middle of a photograph, (3, side, side) on [0, 255]; None where it is smaller."""
    rgb = read_picture(path).rgb[0]
    top, left = (rgb.shape[1] - side) // 2, (rgb.shape[2] - side) // 2
    if min(top, left) < 0:
        return None
    return rgb[:, top : top + side, left : left + side] * 255


def measured(
    photograph: Tensor,
    motion: int,
    options: Namespace,
    temperature: float,
    loaded: LoadedModel,
    runtime: Runtime,
) -> tuple[float, float, float, float]:
    """Flicker of the frames, of bicubic's and of the photograph's own; PSNR."""
    size, count = options.size, options.frames
    request = UpscaleRequest(settings=SamplingSettings(temperature=temperature))
    hr, sr, enlarged = [], [], []
    for index in range(count):
        at = motion * index
        frame = photograph[:, at : at + size, at : at + size]
        lr = degrade_8bit(frame.round().to(torch.uint8).unsqueeze(0), loaded.scale) / 255
        picture = Picture(rgb=lr)
        canvas = upscale_picture(picture, loaded, request, runtime)
        hr.append(frame)
        sr.append(torch.from_numpy(canvas.levels().copy()).permute(2, 0, 1).float())
        larger = F.interpolate(lr, scale_factor=loaded.scale, mode="bicubic")
        enlarged.append(larger[0].clamp(0, 1) * 255)
    error = torch.stack([(a - b).square().mean() for a, b in zip(sr, hr, strict=True)]).mean()
    psnr = float(10 * torch.log10(255**2 / error))
    return flicker_of(sr, motion), flicker_of(enlarged, motion), flicker_of(hr, motion), psnr


def reach(temperature: float, loaded: LoadedModel, runtime: Runtime) -> list[float]:
    """Grey levels by which frames differ at some distances from where their inputs do."""
    request = UpscaleRequest(settings=SamplingSettings(temperature=temperature))
    still = torch.from_numpy(mirrored((48, 256))).permute(2, 0, 1).unsqueeze(0) / 255
    changed = still.clone()
    changed[..., :CHANGED] = 1 - changed[..., :CHANGED]
    levels = [
        torch.from_numpy(upscale_picture(Picture(rgb=lr), loaded, request, runtime).levels().copy())
        for lr in (still, changed)
    ]
    difference = (levels[0].float() - levels[1].float()).abs()
    spans = [[loaded.scale * (CHANGED + end) for end in ends] for ends in DISTANCES]
    return [float(difference[:, start:end].mean()) for start, end in spans]


def flicker_of(frames: list[Tensor], motion: int) -> float:
    """Mean absolute difference of neighbouring frames (3, H, W), where both show the same place."""
    inner = slice(BORDER, -BORDER)
    differences = []
    for before, after in pairwise(frames):
        end = before.shape[1] - motion
        shown, moved = before[:, motion:, motion:], after[:, :end, :end]
        differences.append((shown - moved)[:, inner, inner].abs().mean())
    return float(torch.stack(differences).mean())


if __name__ == "__main__":
    main()
