"""Does the deviation of the samples tell where the mean of the samples is wrong?

    python benchmarks/uncertainty.py Set14 [-m MODEL] [-n 16] [-t 1.0] [--smooth 1.0]

Each DATASET holds HR/NAME.png and LRxS/NAME.png. For each picture and as the mean of all:

    spearman   rank correlation of the predicted deviation with the true absolute error
    area       under the sparsification curve: chance 1, less is better; oracle: the least

for the model and for the gradient magnitude of the same mean picture, which needs no samples.
--smooth blurs both maps alike: the deviation of few samples is grainy.
"""

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from calibration import area, gradient_magnitude, sparsification, spearman
from common import argument_parser
from torch import Tensor

from vdsr_cli.images import read_picture
from vdsr_cli.loading import LoadedModel, load
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.runtime import Runtime, choose_runtime
from vdsr_cli.sampling.engine import SamplingSettings
from vdsr_cli.sampling.pipeline import plan_upscale
from vdsr_cli.sampling.sample_set import draw_set

COLUMNS = ("spearman", "spearman_gradient", "area", "area_gradient", "area_oracle")


def smoothed(values: Tensor, sigma: float) -> Tensor:
    """Root of the Gaussian average of squares: (H, W) -> (H, W); as it is for sigma 0."""
    if sigma == 0:
        return values
    reach = math.ceil(3 * sigma)
    taps = torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    taps = taps / taps.sum()
    squares = F.pad(values.square()[None, None], (reach,) * 4, mode="replicate")
    across = F.conv2d(squares, taps.view(1, 1, 1, -1))
    return F.conv2d(across, taps.view(1, 1, -1, 1))[0, 0].sqrt()


def score(error: Tensor, deviation: Tensor, gradient: Tensor) -> dict[str, float]:
    """The figures of one picture, of maps (H, W)."""
    return {
        "spearman": spearman(deviation, error),
        "spearman_gradient": spearman(gradient, error),
        "area": area(sparsification(error, deviation)),
        "area_gradient": area(sparsification(error, gradient)),
        "area_oracle": area(sparsification(error, error)),
    }


def measure(
    lr_path: Path, hr_path: Path, loaded: LoadedModel, options: argparse.Namespace, runtime: Runtime
) -> dict[str, float]:
    """Draws samples of one picture and scores their deviation."""
    picture, hr = read_picture(lr_path), read_picture(hr_path).rgb[0]
    settings = SamplingSettings(
        temperature=options.temperature,
        seed=options.seed,
        samples=tuple(range(options.samples)),
        output=options.output,
    )
    plan = plan_upscale(picture, loaded, settings, runtime, scale=loaded.scale)
    drawn = draw_set(picture, plan, runtime)
    height, width = drawn.std.shape
    mean = torch.from_numpy(drawn.mean.rgb8().copy()).permute(2, 0, 1) / 255
    error = (mean - hr[:, :height, :width]).abs().mean(0)
    maps = (smoothed(values, options.smooth) for values in (drawn.std, gradient_magnitude(mean)))
    return score(error, *maps)


def print_row(name: str, figures: dict[str, float]) -> None:
    print(f"{name:<14}" + "".join(f"{figures[key]:>18.3f}" for key in COLUMNS), flush=True)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("datasets", nargs="+", type=Path, metavar="DATASET")
    parser.add_argument("-m", "--model", default="cvdvae-x4")
    parser.add_argument("-n", "--samples", type=int, default=16)
    parser.add_argument("-t", "--temperature", type=float, default=1.0)
    parser.add_argument("--smooth", type=float, default=0.0, metavar="PIXELS")
    parser.add_argument("--output", choices=("mean", "sample"), default="mean")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one object a picture, and no table")
    options = parser.parse_args()
    runtime = choose_runtime()
    loaded = load(options.model, runtime, expects=Sampler)
    for dataset in options.datasets:
        rows = []
        if not options.json:
            print(f"{dataset.name:<14}" + "".join(f"{key:>18}" for key in COLUMNS))
        for lr_path in sorted((dataset / f"LRx{loaded.model.scale}").glob("*.png")):
            hr_path = dataset / "HR" / lr_path.name
            rows.append(measure(lr_path, hr_path, loaded, options, runtime))
            if options.json:
                print(json.dumps({"picture": str(lr_path), **rows[-1]}), flush=True)
            else:
                print_row(lr_path.stem, rows[-1])
        mean = {key: sum(row[key] for row in rows) / len(rows) for key in COLUMNS}
        if options.json:
            print(json.dumps({"dataset": str(dataset), "pictures": len(rows), **mean}))
        else:
            print_row("mean", mean)


if __name__ == "__main__":
    main()
