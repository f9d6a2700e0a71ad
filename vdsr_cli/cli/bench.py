"""``vdsr bench``."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vdsr_cli.cli.console import bring, print_error
from vdsr_cli.cli.options import (
    ConditionalTemperatureOption,
    DebugOption,
    JsonOption,
    MachineOptions,
    ReplaceOption,
    TileOptions,
    complete_model,
    existing_of,
    temperature_option,
)
from vdsr_cli.config import BICUBIC, DEFAULT_MODEL, temperatures_of
from vdsr_cli.errors import UsageError
from vdsr_cli.outputs import Existing, check_outputs
from vdsr_cli.paths import files_below

if TYPE_CHECKING:
    from vdsr_cli.bench.report import Report
    from vdsr_cli.bench.run import BenchRequest
    from vdsr_cli.loading import LoadedModel
    from vdsr_cli.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """The scores beside PSNR and SSIM, and what bicubic must have."""

    metrics: Annotated[
        str | None,
        typer.Option(
            help="Learned metrics with commas: lpips, lpips-squeeze, lpips-vgg, dists, brisque, "
            "niqe, fid; or all, or none. Their weights are downloaded on first use.",
            show_default="those whose weights are on this disk",
        ),
    ] = None
    metric_weights: Annotated[
        Path | None,
        typer.Option(
            envvar="VDSR_METRIC_WEIGHTS",
            help="Folder with weights of learned metrics, such as lpips_alex.safetensors.",
        ),
    ] = None
    elbo: Annotated[
        bool | None,
        typer.Option(
            "--elbo/--no-elbo",
            help="Bits per dimension.",
            show_default="under --protocol standard",
        ),
    ] = None
    weights: Annotated[
        int,
        typer.Option(
            min=0, help="Importance weights of a tighter bound on the bits, e.g. 16; 0 for none."
        ),
    ] = 0
    verify: Annotated[
        bool, typer.Option(help="Insist on the known figures of bicubic on the known sets.")
    ] = True


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """How the scores are shown, and where they are written."""

    published: Annotated[
        bool, typer.Option("--published", help="Show published rows of the same protocol too.")
    ] = False
    worst: Annotated[int, typer.Option(min=0, help="Show so many of the worst pictures.")] = 0
    crops: Annotated[
        Path | None, typer.Option(help="Folder for side-by-side crops of the worst pictures.")
    ] = None
    plot: Annotated[
        Path | None, typer.Option(help="Curves against temperature, as .svg or .png.")
    ] = None
    csv: Annotated[
        Path | None, typer.Option(help="File for one line a picture, method and seed.")
    ] = None
    overwrite: ReplaceOption = False
    as_json: JsonOption = False
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown on stdout.")] = False

    @property
    def existing(self) -> Existing:
        """The rule for files that exist."""
        return existing_of(self.overwrite or None)


def bench(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of HR pictures (with HR/ and LRx4/ in them, or *_HR and *_LR files, or "
            "HR alone), folders of such folders, or pictures.",
            show_default=False,
        ),
    ] = None,
    *,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Model name, hf:// address or file; or bicubic; or several with commas.",
            autocompletion=complete_model,
        ),
    ] = DEFAULT_MODEL,
    temperature: Annotated[str, temperature_option("Of every latent.")] = "0.8",
    temperatures: Annotated[
        str | None, typer.Option(help="Several, such as 0,0.8 or '0;16:0.2': a row each.")
    ] = None,
    conditional_temperature: ConditionalTemperatureOption = None,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    seeds: Annotated[
        int, typer.Option(min=1, help="How many: mean and standard deviation over them.")
    ] = 1,
    protocol: Annotated[
        Literal["standard", "paper", "paper-64", "article", "diverse"],
        typer.Option(
            help="standard: luma, a border of the scale left out; paper, paper-64: the VDVAE-SR "
            "thesis's 256x256 and 64x64 crops; article: whole pictures, Pillow's LR, no border, "
            "probably the VDVAE-SR article's; diverse: several samples, colours, whole pictures."
        ),
    ] = "standard",
    samples: Annotated[
        int, typer.Option(min=2, help="Of each picture, under --protocol diverse.")
    ] = 5,
    scale: Annotated[
        int | None,
        typer.Option(min=2, max=16, help="Factor.", show_default="the model's, or 4"),
    ] = None,
    scores: ScoreOptions,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of pictures that another tool has made, one or several samples of each "
            "(NAME_s0.png, NAME_s1.png); may be repeated."
        ),
    ] = None,
    shown: ReportOptions,
    list_sets: Annotated[
        bool, typer.Option("--list", help="Name the usual sets, their sources and terms.")
    ] = False,
    tiles: TileOptions,
    machine: MachineOptions,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    debug: DebugOption = False,
) -> None:
    """Score models on pictures whose ground truth is known.

    An unconditional prior is scored on the likelihood of the pictures: nats and bits a dimension.

    Examples:

        vdsr bench set5/ --temperatures 0,0.8 --seeds 3 --published
        vdsr bench Set5 Set14 --model vdvae-sr-x4,bicubic --metrics lpips
        vdsr bench faces --protocol diverse --csv scores.csv
    """
    from vdsr_cli.cli.bench_render import print_known_sets

    if list_sets:
        print_known_sets(as_json=shown.as_json)
        return
    _check_usage(paths, shown)
    names = _names(model)
    numbers = tuple(range(seed, seed + seeds))
    if _are_priors(names):
        _refuse_with_priors(
            protocol=protocol != "standard",
            temperatures=temperatures,
            conditional_temperature=conditional_temperature is not None,
            metrics=scores.metrics,
            against=against,
            crops=shown.crops,
            plot=shown.plot,
        )
        report = _score_priors(names, paths or [], numbers, scores.weights, machine, quiet=quiet)
        _show(report, shown, debug=debug)
        raise typer.Exit(report.exit_code)
    tempered = temperatures_of(temperatures, temperature, conditional_temperature)

    from vdsr_cli.bench.data import Protocol
    from vdsr_cli.bench.run import BenchRequest
    from vdsr_cli.metrics.learned import choose_metrics
    from vdsr_cli.sampling.engine import SamplingSettings
    from vdsr_cli.services.upscale import UpscaleRequest

    bring(*names, quiet=quiet)
    runtime = machine.runtime()
    loaded = _load(names, runtime)
    settings = SamplingSettings(tile=tiles.tile, overlap=tiles.overlap, edges=tiles.edges)
    if shown.crops and not shown.worst:
        shown = replace(shown, worst=5)
    request = BenchRequest(
        paths=tuple(paths or ()),
        protocol=Protocol(protocol),
        scale=scale or (loaded[0].model.scale if loaded else 4),
        temperatures=tuple(dict.fromkeys(tempered)),
        seeds=numbers,
        samples=samples,
        upscale=UpscaleRequest(settings=settings, consistency=tiles.consistency),
        metrics=None if scores.metrics is None else choose_metrics(scores.metrics),
        metric_weights=scores.metric_weights,
        against=tuple(against or ()),
        likelihood=protocol == "standard" if scores.elbo is None else scores.elbo,
        weights=scores.weights,
        verify=scores.verify,
        crops=shown.crops,
        existing=shown.existing,
        worst=shown.worst,
    )
    report = _run(request, loaded, runtime, quiet=quiet)
    _show(report, shown, debug=debug)
    raise typer.Exit(report.exit_code)


def _check_usage(paths: list[Path] | None, shown: ReportOptions) -> None:
    """Refuses what would fail after minutes of work."""
    from vdsr_cli.figures.plot import check_plot_path

    if not paths:
        raise UsageError(
            "give a folder of pictures to score", hint="vdsr bench --list names the usual sets"
        )
    if shown.as_json and shown.markdown:
        raise UsageError("--json and --markdown exclude each other")
    if shown.plot is not None:
        check_plot_path(shown.plot)
    outputs = [path for path in (shown.csv, shown.plot) if path is not None]
    scored = [*paths, *(file for path in paths for file in files_below(path))] if outputs else []
    check_outputs(outputs, shown.existing, inputs=scored)


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _load(names: list[str], runtime: "Runtime") -> list["LoadedModel"]:
    from vdsr_cli.loading import load
    from vdsr_cli.models.protocol import Sampler

    return [load(name, runtime, expects=Sampler) for name in names if name != BICUBIC]


def _are_priors(names: list[str]) -> bool:
    """Whether all are unconditional priors; raises UsageError where only some are."""
    from vdsr_cli.loading import is_prior

    priors = [name for name in names if name != BICUBIC and is_prior(name)]
    if priors and len(priors) < len(names):
        raise UsageError(
            f"{priors[0]} upscales nothing: it is scored by itself, on the likelihood of pictures"
        )
    return bool(priors)


def _refuse_with_priors(**given: object) -> None:
    for name, value in given.items():
        if value:
            raise UsageError(
                f"--{name} is not for priors, which upscale nothing",
                hint="vdsr bench FOLDER --model vdvae-x4-prior",
            )


def _score_priors(
    names: list[str],
    paths: list[Path],
    seeds: tuple[int, ...],
    weights: int,
    machine: MachineOptions,
    *,
    quiet: bool,
) -> "Report":
    """Likelihoods, in float32 unless told otherwise: as those that others publish."""
    from vdsr_cli.bench.priors import PriorBenchRequest, find_datasets, run_prior_bench
    from vdsr_cli.bench.run import Events
    from vdsr_cli.cli.bench_render import BenchProgress
    from vdsr_cli.loading import load
    from vdsr_cli.models.protocol import Prior

    request = PriorBenchRequest(datasets=find_datasets(paths), seeds=seeds, weights=weights)
    runtime = machine.runtime(auto="float32")
    bring(*names, quiet=quiet)
    priors = [load(name, runtime, expects=Prior) for name in names]
    with BenchProgress(quiet=quiet) as progress:
        events = Events(on_start=progress.start, on_score=progress.score)
        return run_prior_bench(request, priors, runtime, events)


def _run(
    request: "BenchRequest", loaded: list["LoadedModel"], runtime: "Runtime", *, quiet: bool
) -> "Report":
    from vdsr_cli.bench.run import Events, run_bench
    from vdsr_cli.cli.bench_render import BenchProgress

    with BenchProgress(quiet=quiet) as progress:
        events = Events(
            on_start=progress.start, on_score=progress.score, on_download=progress.download
        )
        return run_bench(request, loaded, runtime, events)


def _show(report: "Report", shown: ReportOptions, *, debug: bool) -> None:
    """The result on stdout, failures and notes on stderr; then the files, so that one that cannot
    be written does not take the result with it."""
    from vdsr_cli.bench.plot import temperature_figure
    from vdsr_cli.bench.report import write_csv
    from vdsr_cli.cli.bench_render import print_grids, report_grids, to_markdown
    from vdsr_cli.figures.plot import save_figure

    if shown.as_json:
        print(json.dumps(report.as_json(), indent=2, allow_nan=False))
    else:
        grids = report_grids(report, published=shown.published, worst=shown.worst)
        if shown.markdown:
            print(to_markdown(grids), end="")
        else:
            print_grids(grids)
    for failure in report.failures:
        print_error(failure.error, failure.hint)
        if debug and failure.traceback:
            print(failure.traceback, file=sys.stderr, end="")
    for note in report.notes:
        print(f"vdsr: {note}", file=sys.stderr)
    if shown.csv is not None:
        write_csv(report, shown.csv, replace=shown.overwrite)
    if shown.plot is not None:
        save_figure(shown.plot, temperature_figure(report), replace=shown.overwrite)
