"""``vdsr bench``."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vdsr_cli.cli.console import print_error
from vdsr_cli.errors import UsageError

if TYPE_CHECKING:
    from vdsr_cli.runtime import Runtime
    from vdsr_cli.services.loading import LoadedModel

DEFAULT_MODEL = "vdvae-sr-x4"
BASELINE = "bicubic"


class ProtocolName(StrEnum):
    """Values of ``--protocol``."""

    standard = "standard"
    paper = "paper"
    diverse = "diverse"


class Device(StrEnum):
    """Where to run."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Dtype(StrEnum):
    """Precision of the convolutions."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def bench(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of HR pictures, with or without an LR folder beside them."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model name, hf:// address or file; or bicubic.")
    ] = DEFAULT_MODEL,
    models: Annotated[
        str | None, typer.Option(help="Several of them, with commas; in place of --model.")
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", "-t", min=0.0, max=2.0, help="Of every latent.")
    ] = 0.8,
    temperatures: Annotated[
        str | None, typer.Option(help="Several of them, with commas: a row each.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Scores are means over so many seeds, from --seed on.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    protocol: Annotated[
        ProtocolName, typer.Option(help="What is scored, and how.")
    ] = ProtocolName.standard,
    samples: Annotated[
        int, typer.Option(min=2, help="Of each picture, under --protocol diverse.")
    ] = 5,
    scale: Annotated[int | None, typer.Option(min=2, help="[default: the model's, or 4]")] = None,
    metric_weights: Annotated[
        Path | None,
        typer.Option(
            envvar="VDSR_METRIC_WEIGHTS", help="Folder with the weights of the learned metrics."
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of pictures that another tool has made; may be repeated."),
    ] = None,
    consistency: Annotated[
        bool | None,
        typer.Option("--consistency/--no-consistency", help="As for vdsr upscale."),
    ] = None,
    tile: Annotated[int, typer.Option(min=0, help="Tile side in LR pixels; 0: none.")] = 64,
    overlap: Annotated[int, typer.Option(min=0, help="LR pixels that tiles share.")] = 16,
    device: Annotated[Device, typer.Option(help="Where to run.")] = Device.auto,
    dtype: Annotated[Dtype, typer.Option(help="Precision of the convolutions.")] = Dtype.auto,
    verify: Annotated[
        bool, typer.Option(help="Insist on the known figures of bicubic on the known sets.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Score models on pictures whose ground truth is known.

    Example: vdsr bench set5/ --temperatures 0,0.8 --metric-weights weights/
    """
    from vdsr_cli.cli.bench_render import BenchProgress, print_table
    from vdsr_cli.runtime import choose_runtime
    from vdsr_cli.services.bench import BenchRequest, Events, run_bench
    from vdsr_cli.services.bench_data import Protocol
    from vdsr_cli.services.engine import SamplingSettings
    from vdsr_cli.services.upscale import UpscaleRequest

    runtime = choose_runtime(device.value, dtype.value)
    loaded = _load(models or model, runtime)
    settings = SamplingSettings(tile=tile, overlap=overlap)
    request = BenchRequest(
        paths=tuple(paths or ()),
        protocol=Protocol(protocol.value),
        scale=scale or (loaded[0].model.scale if loaded else 4),
        temperatures=_numbers(temperatures) if temperatures else (temperature,),
        seeds=tuple(range(seed, seed + seeds)),
        samples=samples,
        upscale=UpscaleRequest(settings=settings, consistency=consistency),
        metric_weights=metric_weights,
        against=tuple(against or ()),
        verify=verify,
    )
    with BenchProgress(quiet=quiet) as progress:
        events = Events(on_start=progress.start, on_score=progress.score)
        report = run_bench(request, loaded, runtime, events)
    if as_json:
        print(json.dumps(report.as_json(), indent=2, allow_nan=False))
    else:
        print_table(report)
    for failure in report.failures:
        print_error(failure.error, failure.hint)
    for note in report.notes:
        print(f"vdsr: {note}", file=sys.stderr)
    raise typer.Exit(report.exit_code)


def _load(names: str, runtime: "Runtime") -> list["LoadedModel"]:
    from vdsr_cli.services.loading import load_model

    wanted = dict.fromkeys(name.strip() for name in names.split(",") if name.strip())
    return [load_model(name, runtime) for name in wanted if name != BASELINE]


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(f"--temperatures {text}: numbers with commas are wanted") from None
