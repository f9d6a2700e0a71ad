"""CVDVAE and VDVAE-SR at the papers' true shapes: one run of every command, and what it costs.

    python benchmarks/published_shapes.py [SYSTEM ...] [--folder DIR] [--device auto] [--batch 1]

For each system a prior of the published shape is made with random weights, since those of OpenAI
are a download of half a gigabyte; name one with --prior. Then `vdsr train` takes one step, is run
again to resume for another, `vdsr train export` writes the weights, and `vdsr upscale` and
`vdsr sample-diverse` sample with them. Random weights make noise, of which the consistency
projection makes the input with noise upon it: what this shows is not quality but that every shape
fits, how large it is and how long it takes. A line of JSON a system goes to stdout, the commands to
stderr.

Seconds are wall time as the commands print them, without start-up; cpu_seconds are of the whole
command, start-up included, and do not suffer from a busy machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from common import EXAMPLE, argument_parser, peak_memory_bytes


@dataclass(frozen=True)
class System:
    """One model of the papers.

    Attributes:
        objective: of ``vdsr train``.
        prior: its published shape.
        scale: super-resolution factor.
        lr_size: side of the LR picture.
        parameters: what the published code instantiates, in millions.
    """

    objective: str
    prior: str
    scale: int
    lr_size: int
    parameters: float


SYSTEMS = {
    "cvdvae-x4": System("cvdvae", "ffhq256", 4, 64, 161.3),
    "cvdvae-x8": System("cvdvae", "ffhq256", 8, 32, 149.8),
    "vdvae-sr-64-256": System("vdvae-sr", "ffhq256", 4, 64, 141.4),
    "vdvae-sr-16-64": System("vdvae-sr", "imagenet64", 4, 16, 137.1),
}


@dataclass(frozen=True)
class Ran:
    """A finished command."""

    out: str
    cpu_seconds: float
    peak_gb: float


def run(*words: object) -> Ran:
    """Runs ``vdsr WORDS`` as a child; ends this script where it fails."""
    command = [sys.executable, "-m", "vdsr_cli", *map(str, words)]
    print("vdsr", *words, file=sys.stderr, flush=True)
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(command, stdout=out)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            sys.exit(f"exit code {child.returncode}")
        out.seek(0)
        text = out.read()
    cpu = used.ru_utime + used.ru_stime
    return Ran(text, round(cpu, 1), round(peak_memory_bytes(used) / 1e9, 2))


def random_prior(name: str, folder: Path) -> Path:
    """A weights file of the published shape ``name``, its weights random."""
    import torch

    from vdsr_cli.models.vdvae import PUBLISHED, VDVAE
    from vdsr_cli.weights import Checkpoint, write_safetensors

    path = folder / f"{name}.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        state = VDVAE(PUBLISHED[name]).bfloat16().state_dict()
        write_safetensors(
            path,
            Checkpoint(
                architecture="openai-vdvae", config={"published": name}, state=state, metadata={}
            ),
        )
    return path


def pictures(folder: Path, lr_size: int) -> tuple[Path, Path]:
    """A picture to train on, at least 256x256, and an LR picture of the model's own size."""
    from PIL import Image

    with Image.open(EXAMPLE) as photo:
        hr, lr = folder / "hr.png", folder / f"lr{lr_size}.png"
        photo.convert("RGB").resize((320, 320), Image.Resampling.BICUBIC).save(hr)
        photo.convert("RGB").resize((lr_size, lr_size), Image.Resampling.BICUBIC).save(lr)
    return hr, lr


def measure(name: str, system: System, folder: Path, options: argparse.Namespace) -> dict:
    """Every command for one system, and its figures."""
    from vdsr_cli.weights import read_header

    prior = options.prior or random_prior(system.prior, folder)
    hr, lr = pictures(folder, system.lr_size)
    out, weights = folder / name, folder / f"{name}.safetensors"
    words = ["train", system.objective, hr, "--prior", prior, "--scale", system.scale, "--out", out]
    words += ["--batch", options.batch, "--device", options.device, "--rescale", 1, "--quiet"]
    words += ["--val-every", 0, "--log-every", 1]
    first = run(*words, "--steps", 1)
    resumed = run(*words, "--steps", options.steps)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    run("train", "export", out, "-o", weights, "--overwrite")
    sampling = ["--model", weights, "--overwrite", "--json", "--quiet", "--scale", system.scale]
    sampling += ["--device", options.device]
    one = run("upscale", lr, "-o", folder / f"{name}.png", *sampling)
    drawn = run("upscale", lr, "-o", folder / f"{name}_d.png", "--pixels", "sample", *sampling)
    several = run("sample-diverse", lr, "-n", 3, "-o", folder / f"{name}_sets", *sampling)
    return {
        "system": name,
        "parameters": read_header(weights).parameters,
        "published_parameters": f"{system.parameters} M",
        "batch": options.batch,
        "seconds_a_step": round(rows[-1]["seconds_per_step"], 2),
        "train_cpu_seconds": [first.cpu_seconds, resumed.cpu_seconds],
        "train_steps": [1, options.steps - 1],
        "train_peak_gb": max(first.peak_gb, resumed.peak_gb),
        "losses": [round(row["loss"], 4) for row in rows],
        "checkpoint_gb": round((out / "last.pt").stat().st_size / 1e9, 2),
        "weights_gb": round(weights.stat().st_size / 1e9, 2),
        "upscale_seconds": json.loads(one.out)["seconds"],
        "upscale_cpu_seconds": one.cpu_seconds,
        "upscale_peak_gb": one.peak_gb,
        "drawn_pixels_seconds": json.loads(drawn.out)["seconds"],
        "three_samples_seconds": json.loads(several.out)["seconds"],
        "three_samples_cpu_seconds": several.cpu_seconds,
        "three_samples_peak_gb": several.peak_gb,
    }


def main() -> None:
    """Parses, measures, prints."""
    parser = argument_parser(__doc__)
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=", ".join(SYSTEMS))
    parser.add_argument("--folder", type=Path, help="keeps the files there")
    parser.add_argument("--prior", help="a prior with weights, such as openai/ffhq256")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2, help="steps in all, the resumed included")
    options = parser.parse_args()
    unknown = set(options.systems) - SYSTEMS.keys()
    if unknown:
        parser.error(f"unknown systems: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.systems or SYSTEMS:
            started = time.monotonic()
            figures = measure(name, SYSTEMS[name], folder, options)
            figures["all_seconds"] = round(time.monotonic() - started, 1)
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
