"""How much the way the work is cut shows in the picture, and whether seams do.

    python benchmarks/agreement.py [PICTURE...] [--model NAME] [--temperatures 0,0.8]

For each picture (an LR input; the example by default) and temperature, the mean absolute
difference in grey levels, before rounding, between the default cut (tiles of 64, one batch) and
others; whether two runs with one seed are bit-identical; how far another seed's picture is; and the
seam ratio: the mean absolute gradient across the middles of the tiles' overlaps, where the blending
weights cross, over the mean gradient elsewhere. These few lines may lie on edges of the picture's
own, so the ratio of the untiled result along the same lines stands beside it, and the quotient.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from vdsr_cli.images import read_picture
from vdsr_cli.runtime import choose_runtime
from vdsr_cli.services.engine import SamplingSettings, plan_picture, sample_strips
from vdsr_cli.services.loading import load_model

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "photo.png"
CUTS = {
    "tile 64, batch 1": {"batch_size": 1},
    "tile 64, batch 16": {"batch_size": 16},
    "tile 64, n = 5": {"samples": (0, 1, 2, 3, 4)},
    "tile 96": {"tile": 96},
    "tile 0 (whole)": {"tile": 0},
}


def seam_ratio(sr: Tensor, columns: list[int], rows: list[int]) -> float:
    """Gradient across the given HR columns and rows over the gradient elsewhere."""
    across = (sr[:, :, 1:] - sr[:, :, :-1]).abs().mean(dim=(0, 1))
    down = (sr[:, 1:] - sr[:, :-1]).abs().mean(dim=(0, 2))
    at = torch.cat([across[[c - 1 for c in columns]], down[[r - 1 for r in rows]]])
    elsewhere = torch.cat([_without(across, columns), _without(down, rows)])
    return (at.mean() / elsewhere.mean()).item()


def _without(gradient: Tensor, positions: list[int]) -> Tensor:
    keep = torch.ones(len(gradient), dtype=torch.bool)
    keep[[p - 1 for p in positions]] = False
    return gradient[keep]


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", nargs="*", type=Path, default=[EXAMPLE])
    parser.add_argument("--model", default="vdvae-sr-x4")
    parser.add_argument("--temperatures", default="0,0.8")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    runtime = choose_runtime(dtype=options.dtype)
    model = load_model(options.model, runtime).model
    for path in options.pictures:
        lr = read_picture(path).rgb[0]
        for temperature in (float(t) for t in options.temperatures.split(",")):

            def draw(
                temperature: float = temperature, lr: Tensor = lr, **changes: object
            ) -> Tensor:
                settings = SamplingSettings(temperature=temperature, **changes)  # type: ignore[arg-type]
                strips = sample_strips(model, lr, settings, runtime)
                return torch.cat([strip.pixels[0] for strip in strips], dim=1) * 255

            reference = draw()
            print(f"{path.name}, {lr.shape[2]}x{lr.shape[1]}, temperature {temperature:g}")
            whole = reference
            for name, changes in CUTS.items():
                whole = draw(**changes)
                difference = (whole - reference).abs()
                print(f"  {name:18} mean {difference.mean():.4f}, largest {difference.max():.2f}")
            print(f"  same seed again    bit-identical: {torch.equal(draw(), reference)}")
            print(f"  another seed       mean {(draw(seed=1) - reference).abs().mean():.4f}")
            plan = plan_picture(
                lr.shape[1], lr.shape[2], cell=model.lr_multiple, settings=SamplingSettings()
            )
            middles = [
                [(start + 8) * model.scale for start in axis.starts[1:]]
                for axis in (plan.columns, plan.rows)
            ]
            tiled, untiled = (seam_ratio(x.clamp(0, 255), *middles) for x in (reference, whole))
            print(f"  seam ratio         {tiled / untiled:.4f} ({tiled:.4f} over {untiled:.4f})")


if __name__ == "__main__":
    main()
