"""Files laid out exactly as OpenAI published its VDVAEs, from a server here to pictures.

    python benchmarks/published_checkpoints.py [ffhq256 imagenet64 imagenet32 cifar10 ffhq1024]
        [--module] [--legacy] [--cut] [--count 4] [--out FOLDER] [--pictures FOLDER]

For want of the published numbers the tensors are random; their names, shapes and order are written
out here from the published layer strings, by nothing of vdsr. Each file is served from this
machine, which stands for OpenAI's (VDSR_OPENAI_ENDPOINT), and goes through the commands a user
would type: download, generate and, where there are pictures, bench. Every tensor is compared with
what was served, and loaded strictly. Disk: twice the largest file; memory: 3 GB.
"""

import argparse
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import torch
from common import argument_parser
from torch import Tensor

ZDIM, CHANNELS = 16, 3


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The published code's description of a network."""

    model: str
    enc_blocks: str
    dec_blocks: str
    width: int
    widths: Mapping[int, int]
    num_mixtures: int = 10
    no_bias_above: int = 64

    def width_at(self, resolution: int) -> int:
        """Channels at a resolution."""
        return self.widths.get(resolution, self.width)


LAYOUTS = {
    "ffhq256": Layout(
        model="openai/ffhq256",
        enc_blocks="256x3,256d2,128x8,128d2,64x12,64d2,32x17,32d2,16x7,16d2,8x5,8d2,4x5,4d4,1x4",
        dec_blocks="1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x21,64m32,64x13,128m64,128x7,256m128",
        width=512,
        widths={},
    ),
    "imagenet64": Layout(
        model="openai/imagenet64",
        enc_blocks="64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5",
        dec_blocks="1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12",
        width=512,
        widths={},
    ),
    "imagenet32": Layout(
        model="openai/imagenet32",
        enc_blocks="32x15,32d2,16x9,16d2,8x8,8d2,4x6,4d4,1x6",
        dec_blocks="1x2,4m1,4x4,8m4,8x9,16m8,16x19,32m16,32x40",
        width=512,
        widths={},
    ),
    "cifar10": Layout(
        model="openai/cifar10-seed0",
        enc_blocks="32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3",
        dec_blocks="1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21",
        width=384,
        widths={},
    ),
    "ffhq1024": Layout(
        model="openai/ffhq1024",
        enc_blocks=(
            "1024x1,1024d2,512x3,512d2,256x5,256d2,128x7,128d2,64x10,64d2,32x14,32d2,"
            "16x7,16d2,8x5,8d2,4x5,4d4,1x4"
        ),
        dec_blocks=(
            "1x2,4m1,4x3,8m4,8x4,16m8,16x9,32m16,32x20,64m32,64x14,128m64,128x7,"
            "256m128,256x2,512m256,1024m512"
        ),
        width=16,
        widths={512: 32, 256: 64, **dict.fromkeys((128, 64, 32, 16, 8, 4, 1), 512)},
        num_mixtures=2,
    ),
}
"""The five of the published hyper-parameter table."""

Shapes = OrderedDict[str, tuple[int, ...]]


def resolutions(blocks: str) -> list[int]:
    """The resolution of every block of a layer string, in order."""
    found = []
    for item in blocks.split(","):
        match = re.fullmatch(r"(\d+)(?:([xmd])(\d+))?", item)
        assert match, item
        found += [int(match[1])] * (int(match[3]) if match[2] == "x" else 1)
    return found


def conv(name: str, out: int, into: int, kernel: int) -> Shapes:
    """A convolution's two tensors."""
    return Shapes({f"{name}.weight": (out, into, kernel, kernel), f"{name}.bias": (out,)})


def block(name: str, into: int, middle: int, out: int, resolution: int) -> Shapes:
    """Four convolutions, 1-k-k-1; where a map has one or two pixels a side k is 1."""
    kernel = 3 if resolution > 2 else 1
    return Shapes(
        conv(f"{name}.c1", middle, into, 1)
        | conv(f"{name}.c2", middle, middle, kernel)
        | conv(f"{name}.c3", middle, middle, kernel)
        | conv(f"{name}.c4", out, middle, 1)
    )


def shapes_of(layout: Layout) -> Shapes:
    """Every tensor of a published file in its order."""
    shapes = conv("encoder.in_conv", layout.width, CHANNELS, 3)
    for index, side in enumerate(resolutions(layout.enc_blocks)):
        width = layout.width_at(side)
        shapes |= block(f"encoder.enc_blocks.{index}", width, width // 4, width, side)
    for name in ("gain", "bias"):
        shapes[f"decoder.{name}"] = (1, layout.width, 1, 1)
    sides = resolutions(layout.dec_blocks)
    for index, side in enumerate(sides):
        name, width = f"decoder.dec_blocks.{index}", layout.width_at(side)
        shapes |= block(f"{name}.enc", 2 * width, width // 4, 2 * ZDIM, side)
        shapes |= block(f"{name}.prior", width, width // 4, 2 * ZDIM + width, side)
        shapes |= conv(f"{name}.z_proj", width, ZDIM, 1)
        shapes |= block(f"{name}.resnet", width, width // 4, width, side)
    biased = sorted(side for side in set(sides) if side <= layout.no_bias_above)
    for index, side in enumerate(biased):
        shapes[f"decoder.bias_xs.{index}"] = (1, layout.width_at(side), side, side)
    return shapes | conv(
        "decoder.out_net.out_conv", 10 * layout.num_mixtures, layout.width_at(sides[-1]), 1
    )


def random_state(shapes: Shapes, *, prefix: str = "") -> "OrderedDict[str, Tensor]":
    """Normal tensors that keep a deep network's states of moderate size."""
    generator = torch.Generator().manual_seed(0)
    state = OrderedDict()
    for name, shape in shapes.items():
        fan = torch.Size(shape[1:]).numel() if name.endswith(".weight") else 25
        state[prefix + name] = torch.randn(shape, generator=generator) * 0.7 / fan**0.5
    return state


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """A web server over a folder, on a free port of this machine."""
    handler = functools.partial(_Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


def vdsr(*arguments: object, environment: Mapping[str, str]) -> str:
    """Runs a command as a user would, shows it, and returns what it printed."""
    words = [str(word) for word in arguments]
    print(f"\n$ vdsr {' '.join(words)}", flush=True)
    started = time.perf_counter()
    command = [sys.executable, "-m", "vdsr_cli", *words]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True
    )
    print(done.stderr + done.stdout, end="")
    print(f"[exit code {done.returncode}, {time.perf_counter() - started:.1f} s]")
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def publish(
    layout: Layout, folder: Path, options: argparse.Namespace
) -> "OrderedDict[str, Tensor]":
    """Writes a file where the published address has it; returns its tensors by bare name."""
    from vdsr_cli.weights import find_record

    state = random_state(shapes_of(layout), prefix="module." if options.module else "")
    if options.cut:
        kept = len(resolutions(layout.enc_blocks)) - 2
        is_cut = re.compile(rf"encoder\.enc_blocks\.({kept}|{kept + 1})\.").search
        state = OrderedDict((name, value) for name, value in state.items() if not is_cut(name))
    path = folder / urlsplit(find_record(layout.model).source).path.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path, _use_new_zipfile_serialization=not options.legacy)
    print(f"\n{layout.model}: {len(state)} tensors, {path.stat().st_size} bytes, {path.name}")
    return OrderedDict((name.removeprefix("module."), value) for name, value in state.items())


def check(layout: Layout, path: Path, state: Mapping[str, Tensor], *, is_whole: bool) -> None:
    """Compares a converted file with what was published, and loads it strictly."""
    from vdsr_cli.loading import load
    from vdsr_cli.models.protocol import Prior
    from vdsr_cli.runtime import choose_runtime
    from vdsr_cli.weights import read_safetensors

    found = read_safetensors(path).state
    assert found.keys() == state.keys()
    assert all(found[name].equal(value) for name, value in state.items())
    print(f"all {len(found)} tensors are those that were published")
    if is_whole:
        load(str(path), choose_runtime("cpu", "float32"), expects=Prior)
        print("loaded strictly, with the encoder")


def run(layout: Layout, root: Path, out: Path, options: argparse.Namespace) -> None:
    """One model from the server to a picture."""
    state = publish(layout, root / "published", options)
    with serve(root / "published") as url:
        environment = {"VDSR_OPENAI_ENDPOINT": url, "VDSR_HOME": str(root / "home")}
        path = Path(vdsr("weights", "download", layout.model, environment=environment).strip())
    check(layout, path, state, is_whole=not options.cut)
    del state
    environment["HF_HUB_OFFLINE"] = "1"
    grid = out / f"{layout.model.rpartition('/')[2]}.png"
    command = ("generate", "--model", layout.model, "-n", options.count, "--overwrite", "-o", grid)
    told = vdsr(*command, "--json", environment=environment)
    print(f"{json.loads(told)['seconds'] / options.count:.2f} s a picture")
    if options.pictures and not options.cut:
        vdsr("bench", options.pictures, "--model", layout.model, environment=environment)


def main() -> None:
    """Parses, and runs one model after the other."""
    parser = argument_parser(__doc__)
    parser.add_argument(
        "names", nargs="*", choices=list(LAYOUTS), default="cifar10", metavar="NAME"
    )
    parser.add_argument("--module", action="store_true", help='names begin with "module."')
    parser.add_argument("--legacy", action="store_true", help="the pickle format before torch 1.6")
    parser.add_argument("--cut", action="store_true", help="leave the last encoder blocks out")
    parser.add_argument("--count", type=int, default=4, help="pictures to generate")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the grids")
    parser.add_argument("--pictures", type=Path, help="pictures to score too")
    options = parser.parse_args()
    names = [options.names] if isinstance(options.names, str) else options.names
    for name in names:
        with tempfile.TemporaryDirectory() as root:
            run(LAYOUTS[name], Path(root), options.out, options)


if __name__ == "__main__":
    main()
