"""Texture that a model adds where there is none: flat colours and smooth gradients, upscaled.

    python benchmarks/flat.py [--models NAME,...] [--temperatures 0.5,0.8,1] [--seeds 0,1]
        [--size 64] [--at-most 1.0]

Each colour and gradient is reduced to ``--size`` LR pixels a side by the model's scale, rounded to
8 bits, and upscaled as ``vdsr upscale`` does it. Of what comes out, in grey levels, minus what
should, over all pictures and seeds, by blocks of 16x16 HR pixels:

    deviation    the largest standard deviation of the luma within a block (0.2 is the rounding)
    typical      its median
    mean         the largest error of a block's mean in any of red, green and blue
    white        the largest error of a pixel of the white picture
    black        and of the black one
    predicts     correlation of the deviations of one flat colour's blocks with those of another
                 under the same seed, the mean of all pairs; none where no deviation exceeds the
                 rounding's. Near 1, the noise shows as the same stain in every picture

Rare blocks are the worst: the larger ``--size``, the more of them are found. With ``--at-most`` the
exit code is 1 where a deviation exceeds it.
"""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from common import argument_parser
from torch import Tensor

from vdsr_cli.consistency import degrade_8bit
from vdsr_cli.images import Picture
from vdsr_cli.loading import LoadedModel, load
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.runtime import Runtime, choose_runtime
from vdsr_cli.sampling.engine import SamplingSettings
from vdsr_cli.services.upscale import UpscaleRequest, upscale_picture

MODELS = "vdvae-sr-x4,vdvae-sr-x4-tiny,vdvae-sr-x4-real,vdvae-sr-x2,vdvae-sr-x8,cvdvae-x4"
BLOCK = 16
"""Side of a block, HR pixels."""
ROUNDING = 0.5
"""Largest deviation, grey levels, that says nothing but that pixels are rounded."""
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
COLOURS = (WHITE, BLACK, (64, 64, 64), (128, 128, 128), (200, 40, 40), (90, 140, 200))
RAMPS = (((40, 40, 40), (215, 215, 215)), ((120, 60, 20), (60, 120, 180)))
SKY = ((70, 120, 190), (190, 215, 235))
_LUMA = torch.tensor((0.299, 0.587, 0.114)).view(3, 1, 1)


def flat(colour: Sequence[int], side: int) -> Tensor:
    """One colour: (3, side, side) on [0, 255]."""
    return torch.tensor(colour, dtype=torch.float32).view(3, 1, 1).expand(3, side, side)


def gradient(ends: Sequence[Sequence[int]], side: int, *, turn: float) -> Tensor:
    """From one colour to another, down the picture (``turn`` 0), across it (1) or between."""
    position = torch.linspace(0, 1, side)
    share = (1 - turn) * position.unsqueeze(1) + turn * position
    first, last = (flat(colour, side) for colour in ends)
    return first + (last - first) * share


def gradients(side: int) -> list[Tensor]:
    """Smooth ramps down and across, and one like a sky."""
    return [
        *(gradient(ends, side, turn=turn) for ends in RAMPS for turn in (0.0, 1.0)),
        gradient(SKY, side, turn=0.2),
    ]


def blocks(planes: Tensor) -> Tensor:
    """(C, H, W) -> (C, blocks, pixels of a block); what does not fill a block is left out."""
    tiled = planes.unfold(1, BLOCK, BLOCK).unfold(2, BLOCK, BLOCK)
    return tiled.flatten(3).flatten(1, 2)


def deviations(error: Tensor) -> Tensor:
    """Error (3, H, W) in grey levels -> the standard deviation of its luma in each block."""
    return blocks((error * _LUMA).sum(0, keepdim=True))[0].std(1)


def agreement(maps: Sequence[Tensor]) -> float | None:
    """Mean correlation of every two maps of deviations that exceed the rounding."""
    told = [m for m in maps if m.max() > ROUNDING]
    pairs = list(itertools.combinations(told, 2))
    if not pairs:
        return None
    return sum(torch.corrcoef(torch.stack(pair))[0, 1].item() for pair in pairs) / len(pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The columns of the table."""

    deviation: float
    typical: float
    mean: float
    white: float
    black: float
    predicts: float | None

    def row(self, *names: str) -> str:
        """A line of Markdown."""
        levels = (self.deviation, self.typical, self.mean)
        cells = [f"{value:.2f}" for value in levels] + [f"{self.white:.0f}", f"{self.black:.0f}"]
        cells.append("none" if self.predicts is None else f"{self.predicts:.2f}")
        return "| " + " | ".join((*names, *cells)) + " |"


def findings(errors: Sequence[Tensor], *, pictures: int) -> Findings:
    """Findings on errors (3, H, W) in grey levels: one of each colour, gradient and seed."""
    maps = [deviations(error) for error in errors]
    means = torch.cat([blocks(error).mean(2).abs().flatten() for error in errors])
    by_seed = [maps[i : i + pictures] for i in range(0, len(maps), pictures)]
    shared = [agreement(each[2 : len(COLOURS)]) for each in by_seed]
    known = [value for value in shared if value is not None]
    white, black = (max(e.abs().max().item() for e in errors[i::pictures]) for i in (0, 1))
    return Findings(
        deviation=torch.cat(maps).max().item(),
        typical=torch.cat(maps).median().item(),
        mean=means.max().item(),
        white=white,
        black=black,
        predicts=sum(known) / len(known) if known else None,
    )


def error_of(
    hr: Tensor, loaded: LoadedModel, settings: SamplingSettings, runtime: Runtime
) -> Tensor:
    """The upscaled result of a reduced picture (3, H, W) on [0, 255], minus the picture."""
    scale = loaded.model.scale
    lr = degrade_8bit(hr.round().to(torch.uint8).unsqueeze(0), scale).float() / 255
    request = UpscaleRequest(scale=scale, settings=settings)
    sr = upscale_picture(Picture(rgb=lr), loaded, request, runtime).rgb8().copy()
    return torch.from_numpy(sr).permute(2, 0, 1).float() - hr


def main() -> None:
    """Parses, measures, prints."""
    parser = argument_parser(__doc__)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--temperatures", default="0.5,0.8,1")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--size", type=int, default=64, help="LR pixels a side")
    parser.add_argument("--at-most", type=float, help="grey levels of the deviation")
    options = parser.parse_args()
    runtime = choose_runtime()
    print("| model | temperature | deviation | typical | mean | white | black | predicts |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    worst = 0.0
    for name in options.models.split(","):
        loaded = load(name, runtime, expects=Sampler)
        side = options.size * loaded.model.scale
        pictures = [*(flat(colour, side) for colour in COLOURS), *gradients(side)]
        for temperature in options.temperatures.split(","):
            errors = [
                error_of(hr, loaded, settings, runtime)
                for seed in options.seeds.split(",")
                for settings in [SamplingSettings(temperature=float(temperature), seed=int(seed))]
                for hr in pictures
            ]
            found = findings(errors, pictures=len(pictures))
            print(found.row(name, temperature), flush=True)
            worst = max(worst, found.deviation)
    if options.at_most is not None and worst > options.at_most:
        sys.exit(f"the largest deviation, {worst:.2f}, is more than {options.at_most:g}")


if __name__ == "__main__":
    main()
