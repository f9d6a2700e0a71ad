"""How much the way the work is cut shows in the picture, and whether seams do.

    python benchmarks/agreement.py [PICTURE...] [--model NAME] [--temperatures 0,0.8] [--seams]

For each picture (an LR input; the example by default) and temperature, the mean absolute
difference in grey levels, before rounding, between the default cut (tiles of 64) and others;
whether two runs with one seed are bit-identical; how far another seed's picture is.

With ``--seams`` instead the seam ratio: the mean absolute gradient across the middles of the tiles'
overlaps, where the blending weights cross, over the mean gradient elsewhere. Any enlarged picture
is steeper between the squares of two LR pixels than inside one, so elsewhere means between squares
too; and so that a picture's own edges count on both sides, the picture is drawn again and again
with the tiles shifted by four LR pixels, until every fourth line has been a seam once. Batches of
one tile have the most seams, so these are measured.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from common import EXAMPLE, argument_parser
from torch import Tensor

from vdsr_cli.images import read_picture
from vdsr_cli.loading import load
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.runtime import choose_runtime
from vdsr_cli.sampling.engine import SamplingSettings, plan_picture, sample_strips
from vdsr_cli.sampling.tiling import tiles_for

CUTS = {
    "tile 64, batch 1": {"batch_size": 1},
    "tile 64, batch 16": {"batch_size": 16},
    "tile 64, n = 5": {"samples": (0, 1, 2, 3, 4)},
    "tile 96": {"tile": 96},
    "tile 0 (whole)": {"tile": 0},
}

SINGLE = SamplingSettings(batch_size=1)
"""Tiles of the default size, each drawn by itself."""


def seam_ratio(draw: Callable[[Tensor], Tensor], lr: Tensor, model: Sampler) -> float:
    """Gradient across seams over gradient across other lines between LR pixels' squares.

    Args:
        draw: LR picture (3, h, w) -> result (3, H, W), cut as by ``SINGLE``, on 0..255.
        lr: (3, h, w), both sides more than 112.
        model: for its scale and its tiles.
    """
    tile, overlap = tiles_for(SINGLE.tile, SINGLE.overlap, cell=model.lr_multiple)
    stride = tile - overlap
    height, width = (side - stride for side in lr.shape[1:])
    plan = plan_picture(height, width, cell=model.lr_multiple, settings=SINGLE)
    sums = torch.zeros(2, dtype=torch.float64)
    for shift in range(0, stride, 4):
        sr = draw(lr[:, shift : shift + height, shift : shift + width]).clamp(0, 255)
        for gradient, axis in (
            ((sr[:, :, 1:] - sr[:, :, :-1]).abs().mean(dim=(0, 1)), plan.columns),
            ((sr[:, 1:] - sr[:, :-1]).abs().mean(dim=(0, 2)), plan.rows),
        ):
            between = gradient[model.scale - 1 :: model.scale].double()
            is_seam = torch.zeros(len(between), dtype=torch.bool)
            is_seam[[start + axis.overlap // 2 - 1 for start in axis.starts[1:]]] = True
            sums += torch.stack([between[is_seam].mean(), between[~is_seam].mean()])
    return (sums[0] / sums[1]).item()


def main() -> None:
    """Parses, measures, prints."""
    parser = argument_parser(__doc__)
    parser.add_argument("pictures", nargs="*", type=Path, default=[EXAMPLE])
    parser.add_argument("--model", default="vdvae-sr-x4")
    parser.add_argument("--temperatures", default="0,0.8")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--seams", action="store_true")
    options = parser.parse_args()
    runtime = choose_runtime(dtype=options.dtype)
    model = load(options.model, runtime, expects=Sampler).model
    for path in options.pictures:
        lr = read_picture(path).rgb[0]
        for temperature in (float(t) for t in options.temperatures.split(",")):

            def draw(
                temperature: float = temperature, lr: Tensor = lr, **changes: object
            ) -> Tensor:
                settings = SamplingSettings(temperature=temperature, **changes)  # type: ignore[arg-type]
                strips = sample_strips(model, lr, settings, runtime)
                return torch.cat([strip.pixels[0] for strip in strips], dim=1) * 255

            print(f"{path.name}, {lr.shape[2]}x{lr.shape[1]}, temperature {temperature:g}")
            if options.seams:
                ratio = seam_ratio(lambda x: draw(lr=x, batch_size=1), lr, model)
                print(f"  seam ratio         {ratio:.4f}")
                continue
            reference = draw()
            for name, changes in CUTS.items():
                difference = (draw(**changes) - reference).abs()
                print(f"  {name:18} mean {difference.mean():.4f}, largest {difference.max():.2f}")
            print(f"  same seed again    bit-identical: {torch.equal(draw(), reference)}")
            print(f"  another seed       mean {(draw(seed=1) - reference).abs().mean():.4f}")


if __name__ == "__main__":
    main()
