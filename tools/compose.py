"""Pictures for vdsr bench that a model of one scale and bicubic make of another scale together.

    python tools/compose.py Set5 Set14 --scale 8 -o composed
    vdsr bench Set5 Set14 --model vdvae-sr-x8 --temperature 0 --against composed

Each LR picture is made ``--model``'s scale times as large at ``--temperature``, projected onto the
input as always, rounded to 8 bits, and then enlarged (x8) or reduced (x2) by MATLAB's bicubic.
"""

import argparse
import os
from pathlib import Path

import torch

from vdsr_cli.bench.data import Failure, Protocol, discover, load_scenes
from vdsr_cli.consistency import degrade_8bit
from vdsr_cli.images import Metadata, Picture, save_levels
from vdsr_cli.images.resize import bicubic
from vdsr_cli.loading import load
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.runtime import choose_runtime
from vdsr_cli.sampling.engine import SamplingSettings
from vdsr_cli.services.upscale import UpscaleRequest, upscale_picture


def stop(failure: Failure) -> None:
    """No picture may be missing."""
    raise SystemExit(failure.error)


def main() -> None:
    """Parses, composes, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", type=Path, nargs="+", help="Set5, Set14, ...")
    parser.add_argument("--scale", type=int, required=True)
    parser.add_argument("--model", default="vdvae-sr-x4")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()

    runtime = choose_runtime("cpu", "auto")
    loaded = load(options.model, runtime, expects=Sampler)
    native, settings = loaded.model.scale, SamplingSettings(temperature=options.temperature)
    request = UpscaleRequest(scale=native, settings=settings)
    for dataset in discover(options.paths, options.scale):
        for scene in load_scenes(dataset, Protocol.standard, options.scale, stop):
            picture = Picture(
                rgb=scene.lr.unsqueeze(0).float() / 255, metadata=Metadata(is_grey=scene.is_grey)
            )
            canvas = upscale_picture(picture, loaded, request, runtime)
            made = torch.from_numpy(canvas.rgb8().copy()).permute(2, 0, 1)
            if options.scale >= native:
                made = bicubic(made, options.scale // native)
            else:
                made = degrade_8bit(made.unsqueeze(0), native // options.scale)[0]
            # Sets of one name are called by their paths.
            path = options.out / dataset.name.lstrip(os.sep) / f"{scene.name}.png"
            save_levels(path, made.permute(1, 2, 0).numpy(), replace=False)
            print(path)


if __name__ == "__main__":
    main()
