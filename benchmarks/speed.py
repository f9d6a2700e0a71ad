"""Seconds per megapixel of output and peak memory of ``vdsr upscale``'s work, file to file.

    python benchmarks/speed.py [--model NAME] [--size 512x512] [--temperature 0.8] [--runs 5]

The input is examples/photo.png, mirrored to the size asked for and stored as a PNG. What is timed
is reading it, sampling its tiles, stitching, the consistency projection and writing the output;
starting Python and loading the model are shown apart. Peak memory is the whole process's.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import argument_parser, mirrored, peak_memory_bytes

from vdsr_cli.config import DEFAULT_BATCH

STARTED = time.perf_counter()


def main() -> None:
    """Parses, measures, prints."""
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="vdvae-sr-x4")
    parser.add_argument("--size", default="512x512", help="input height x width")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--tile", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=DEFAULT_BATCH)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()

    from vdsr_cli.images import save_levels
    from vdsr_cli.loading import load
    from vdsr_cli.models.protocol import Sampler
    from vdsr_cli.outputs import Existing
    from vdsr_cli.paths import Source
    from vdsr_cli.runtime import choose_runtime
    from vdsr_cli.sampling.engine import SamplingSettings
    from vdsr_cli.services.upscale import UpscaleRequest, upscale_file

    runtime = choose_runtime(dtype=options.dtype)
    loaded = load(options.model, runtime, expects=Sampler)
    print(f"start-up, imports and weights: {time.perf_counter() - STARTED:.2f} s")
    height, width = (int(side) for side in options.size.split("x"))
    request = UpscaleRequest(
        scale=loaded.model.scale,
        settings=SamplingSettings(
            temperature=options.temperature, tile=options.tile, batch_size=options.batch_size
        ),
        existing=Existing.overwrite,
    )
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in.png"), Path(folder, "out.png")
        save_levels(source, mirrored((height, width)))
        seconds = []
        for _ in range(options.runs):
            result = upscale_file(
                Source(path=source),
                output,
                loaded,
                request,
                runtime,
                stdin=sys.stdin.buffer,
                stdout=sys.stdout.buffer,
            )
            if result.error or result.seconds is None:
                sys.exit(f"failed: {result.error}")
            seconds.append(result.seconds)
    megapixels = height * width * loaded.model.scale**2 / 1e6
    each = sorted(s / megapixels for s in seconds)
    print(
        f"{options.model}, {runtime.device.type} {runtime.dtype}, temperature {options.temperature}"
    )
    print(f"{width}x{height} -> {megapixels:.2f} megapixels, {result.tiles} tiles")
    print(
        f"seconds per megapixel: median {statistics.median(each):.3f}, "
        f"min {each[0]:.3f}, max {each[-1]:.3f}"
    )
    print(f"peak memory: {peak_memory_bytes() / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
