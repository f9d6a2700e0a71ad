"""The results page: the bundled x4 models beside bicubic and what others published.

    python benchmarks/results.py Set5 Set14 [--metric-weights DIR] [--write]

Prints the page; with --write it replaces the one in docs/results.md. The three protocols of
`vdsr bench` have tables of their own, and published rows stand only in the table of their
protocol. Run again on the same machine it gives the same page; another one may round the last
digit otherwise.
"""

from dataclasses import replace
from pathlib import Path

from common import argument_parser

from vdsr_cli.bench.data import Failure, Protocol
from vdsr_cli.bench.report import PictureScore, Report
from vdsr_cli.bench.run import BenchRequest, Events, run_bench
from vdsr_cli.cli.bench_render import report_grids, to_markdown
from vdsr_cli.files import write_text_atomic
from vdsr_cli.loading import LoadedModel, load
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.runtime import Runtime, choose_runtime
from vdsr_cli.weights import load_records, locate
from vdsr_cli.weights.sources import Bundled

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
SCALE = 4
SHOWN = {
    Protocol.standard: (
        "psnr_y",
        "ssim_y",
        "lpips_alex",
        "dists",
        "brisque",
        "niqe",
        "lr_psnr",
        "lr_psnr_raw",
        "bits_per_dim",
        "palette_bits",
        "webp_bits",
        "jxl_bits",
    ),
    Protocol.paper: ("psnr_y", "ssim_rgb", "lpips_alex", "dists", "lr_psnr", "lr_psnr_raw"),
    Protocol.diverse: (
        "psnr_rgb",
        "ssim_rgb",
        "lpips_alex",
        "brisque",
        "lr_psnr",
        "lr_psnr_raw",
        "apd_mse",
        "apd_lpips",
        "diversity",
    ),
}
"""Columns of the page, by protocol; `vdsr bench` has the others, and seconds."""


def bundled_models(runtime: Runtime) -> list[LoadedModel]:
    """The x4 models of the package for bicubic reduction, in the order of weights.toml."""
    names = [
        name
        for name, record in load_records().items()
        if record.scale == SCALE and isinstance(record.location, Bundled) and locate(record)
    ]
    models = [load(name, runtime, expects=Sampler) for name in names]
    return [model for model in models if model.is_bicubic]


def shown(score: PictureScore, protocol: Protocol) -> PictureScore:
    """A score with the columns of the page."""
    kept = {key: value for key, value in score.scores.items() if key in SHOWN[protocol]}
    return replace(score, scores=kept)


def stop(failure: Failure) -> None:
    """Ends the measurement: a table without a picture is another table."""
    raise SystemExit(failure.error)


def write_section(name: str, text: str) -> None:
    """Replaces a marked section of docs/results.md."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, found, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{PAGE} has no place for it: {begin.strip()} ... {end}")
    write_text_atomic(PAGE, f"{before}{begin}\n{text}\n{end}{after}")


def measure(
    paths: list[Path], protocol: Protocol, weights: Path | None, runtime: Runtime
) -> Report:
    """Scores every model at temperature 0 and 0.8; diverse samples are drawn at 0.8 alone."""
    request = BenchRequest(
        paths=tuple(paths),
        protocol=protocol,
        scale=SCALE,
        temperatures=(0.8,) if protocol is Protocol.diverse else (0.0, 0.8),
        metric_weights=weights,
        likelihood=protocol is Protocol.standard,
    )
    report = run_bench(request, bundled_models(runtime), runtime, Events(on_failure=stop))
    report.pictures = [shown(score, protocol) for score in report.pictures]
    return report


def main() -> None:
    """Parses, measures, prints or writes."""
    parser = argument_parser(__doc__)
    parser.add_argument("paths", type=Path, nargs="+", help="Set5, Set14, ...")
    parser.add_argument("--metric-weights", type=Path, default=None)
    parser.add_argument("--write", action="store_true", help="into docs/results.md")
    options = parser.parse_args()

    runtime = choose_runtime("cpu", "auto")
    reports = [
        measure(options.paths, protocol, options.metric_weights, runtime) for protocol in SHOWN
    ]
    page = "\n".join(to_markdown(report_grids(report, published=True)) for report in reports)
    if options.write:
        write_section("results", page)
    else:
        print(page, end="")


if __name__ == "__main__":
    main()
