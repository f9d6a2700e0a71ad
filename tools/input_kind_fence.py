"""Which mild degradations count as clean: LPIPS of what the two models of ``--model auto`` make.

    python tools/input_kind_fence.py PHOTOGRAPHS... --metric-weights DIR [--every 18]

Prints, for the middle of each photograph, reduced to 96x96 pixels and degraded ever more, the mean
LPIPS (AlexNet) at temperature 0.8 and how often ``vdvae-sr-x4-real`` has the better one. Where that
begins to be ahead, ``benchmarks/input_kinds.py`` and ``vdsr_cli/inspection/verdict.py`` begin to
call a picture degraded.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from input_kinds import SCALE, Levels, Rng, blurred, decoded, jpeg, noisy, reduced

from vdsr_cli.config import DEFAULT_MODEL, REAL_MODEL
from vdsr_cli.images import Picture
from vdsr_cli.loading import LoadedModel, load
from vdsr_cli.metrics import LPIPS
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.runtime import Runtime, choose_runtime
from vdsr_cli.services.upscale import UpscaleRequest, upscale_picture

SIDE: Final = 384
MILD: Final[dict[str, Callable[[Levels, Rng], Levels]]] = {
    "none": lambda lr, rng: lr,
    **{f"JPEG {q}": lambda lr, rng, q=q: decoded(jpeg(lr, q)) for q in (95, 90, 85, 80, 75, 60)},
    **{f"noise of {s}": lambda lr, rng, s=s: noisy(lr, s, rng) for s in (1, 2, 3, 4, 5)},
    **{f"blur of {s}": lambda lr, rng, s=s: blurred(lr, s) for s in (0.5, 0.8, 1.2, 2)},
}


def upscaled(lr: Levels, loaded: LoadedModel, runtime: Runtime) -> torch.Tensor:
    """(h, w, 3) -> (3, H, W) uint8, as ``vdsr upscale`` makes it."""
    rgb = torch.from_numpy(lr.copy()).permute(2, 0, 1).unsqueeze(0) / 255
    canvas = upscale_picture(Picture(rgb=rgb), loaded, UpscaleRequest(), runtime)
    return torch.from_numpy(np.array(canvas.levels())).permute(2, 0, 1)


def main() -> None:
    """Parses, upscales, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", help="of photographs")
    parser.add_argument("--every", type=int, default=18, help="take every n-th photograph")
    parser.add_argument("--metric-weights", type=Path, required=True)
    options = parser.parse_args()
    lpips = LPIPS(options.metric_weights / "lpips_alex.safetensors")
    runtime = choose_runtime("cpu")
    models = [load(name, runtime, expects=Sampler) for name in (DEFAULT_MODEL, REAL_MODEL)]
    paths = [path for folder in options.folders for path in sorted(folder.iterdir())]
    distances: dict[str, list[list[float]]] = {name: [] for name in MILD}
    for seed, path in enumerate(paths[:: options.every]):
        photo = np.array(Image.open(path).convert("RGB"))
        top, left = ((side - SIDE) // 2 // SCALE * SCALE for side in photo.shape[:2])
        hr = np.ascontiguousarray(photo[top : top + SIDE, left : left + SIDE])
        wanted = lpips.features(torch.from_numpy(hr).permute(2, 0, 1))
        for name, degrade in MILD.items():
            lr = degrade(reduced(hr), np.random.default_rng(seed))
            results = [lpips.features(upscaled(lr, loaded, runtime)) for loaded in models]
            distances[name].append([lpips.distance(result, wanted) for result in results])
    print(f"| {len(distances['none'])} photographs | {DEFAULT_MODEL} | {REAL_MODEL} | ahead in |")
    print("| --- | ---: | ---: | ---: |")
    for name, pairs in distances.items():
        clean, real = np.mean(pairs, axis=0)
        ahead = sum(second < first for first, second in pairs)
        print(f"| {name} | {clean:.4f} | {real:.4f} | {ahead} |")


if __name__ == "__main__":
    main()
