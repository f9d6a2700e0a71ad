"""``vdsr sample-diverse``."""

import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vdsr_cli.cli.command import is_typed
from vdsr_cli.cli.console import bring, print_choice, print_line, print_note, tile_progress
from vdsr_cli.cli.options import (
    ConditionalTemperatureOption,
    DebugOption,
    DryRunOption,
    JsonOption,
    MachineOptions,
    OutputOptions,
    QuietOption,
    ReadingOptions,
    SamplerOption,
    SamplingOptions,
    refuse_prior,
    temperature_option,
)
from vdsr_cli.config import AUTO_MODEL, Temperature, temperatures_of
from vdsr_cli.errors import UsageError
from vdsr_cli.paths import Source, expand_inputs, output_path, plan_naming, scale_tag

if TYPE_CHECKING:
    from vdsr_cli.diverse.records import DiverseRequest, DiverseResult


@dataclass(frozen=True, kw_only=True)
class SetOptions:
    """How samples differ, and what is kept of them."""

    pick: Annotated[
        str | None,
        typer.Option(
            help="Keep only: medoid (the most typical), mean, or farthest-3 (the most different)."
        ),
    ] = None
    mask: Annotated[
        Path | None,
        typer.Option(
            help="Picture, white where samples may differ; elsewhere all are sample 0 to the bit."
        ),
    ] = None
    save_latents: Annotated[
        Path | None, typer.Option(help="Keep the samples' noise in this safetensors file.")
    ] = None
    from_latents: Annotated[
        Path | None, typer.Option(help="Take it from such a file in place of the seed.")
    ] = None
    interpolate: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Walk from one sample to another, by their numbers: 0 3."),
    ] = None
    walk_steps: Annotated[int, typer.Option("--steps", min=2, help="Pictures on that walk.")] = 8
    report: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page too.")] = (
        None
    )
    metric_weights: Annotated[
        Path | None, typer.Option(help="Folder with lpips_alex.safetensors, for APD-LPIPS.")
    ] = None

    def request(
        self,
        samples: int | None,
        temperatures: tuple[Temperature, ...],
        sampling: SamplingOptions,
        output: OutputOptions,
        reading: ReadingOptions,
    ) -> "DiverseRequest":
        """The same for what draws them. Raises UsageError."""
        from vdsr_cli.diverse.records import DiverseRequest, Walk, parse_pick

        start, end = self.interpolate or (0, 0)
        return DiverseRequest(
            samples=samples,
            temperatures=temperatures,
            settings=sampling.settings(),
            consistency=sampling.consistency,
            pick=parse_pick(self.pick) if self.pick else None,
            mask=self.mask,
            save_latents=self.save_latents,
            from_latents=self.from_latents,
            walk=Walk(start=start, end=end, steps=self.walk_steps) if self.interpolate else None,
            report=self.report,
            metric_weights=self.metric_weights,
            existing=output.existing,
            quality=output.quality,
            reading=reading.reading(),
        )


def sample_diverse(
    context: typer.Context,
    picture: Annotated[
        str, typer.Argument(metavar="INPUT", help="A picture, or - for standard input.")
    ],
    *,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            "-n",
            min=1,
            help="How many.",
            show_default="5, or all of --from-latents",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder, or the name that outputs build on.",
            show_default="that of the input, beside it",
        ),
    ] = None,
    model: SamplerOption = AUTO_MODEL,
    scale: Annotated[float, typer.Option("--scale", "-s", help="The model's own factor.")] = 4.0,
    temperature: Annotated[str, temperature_option("How far samples may differ, 0 to 2.")] = "0.8",
    temperatures: Annotated[
        str | None,
        typer.Option(
            help="Several, as 0.2,0.5,0.8 or '0;16:0.2': a set of samples each, one grid."
        ),
    ] = None,
    conditional_temperature: ConditionalTemperatureOption = None,
    drawn: SetOptions,
    sampling: SamplingOptions,
    machine: MachineOptions,
    output: OutputOptions,
    reading: ReadingOptions,
    as_json: JsonOption = False,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw several pictures that the input may come from, and show where they differ.

    Writes the samples, their mean, their deviation (in colours, and as 16-bit values) and a
    contact sheet.

    Examples:

        vdsr sample-diverse face.png -n 5 --report face.html
        vdsr sample-diverse face.png -n 8 --pick medoid -o best.png
        vdsr sample-diverse face.png --temperatures 0.2,0.5,0.8 -o faces
    """
    if is_typed(context, "interpolate") and is_typed(context, "samples"):
        raise UsageError(
            "-n and --interpolate exclude each other", hint="--steps says how many pictures"
        )
    source, base, is_exact = _plan(picture, out, scale, output.format)
    tempered = temperatures_of(temperatures, temperature, conditional_temperature)

    from vdsr_cli.diverse.inputs import count_samples
    from vdsr_cli.diverse.records import OutputNames
    from vdsr_cli.diverse.run import sample_diverse as run
    from vdsr_cli.loading import load
    from vdsr_cli.models.protocol import Sampler
    from vdsr_cli.services.auto import auto_sampler

    request = drawn.request(samples, tempered, sampling, output, reading)
    names = OutputNames(base=base, is_exact=is_exact)
    if dry_run:
        _show_plan(source, names.all_of(request, count_samples(request)), as_json=as_json)
        return
    refuse_prior(model)
    bring(model, quiet=quiet)
    runtime = machine.runtime()
    load_sampler = partial(load, runtime=runtime, expects=Sampler)
    is_chosen = model == AUTO_MODEL
    models = auto_sampler(scale, load_sampler) if is_chosen else load_sampler(model)
    if scale != models.scale:
        makes = "x2, x4 and x8" if is_chosen else f"x{models.scale}"
        raise UsageError(
            f"{models.name} makes {makes} and no other scale here",
            hint="vdsr upscale makes any scale",
        )
    with tile_progress(1, quiet=quiet) as bars:
        result = run(
            source,
            names,
            models,
            request,
            runtime,
            stdin=sys.stdin.buffer,
            on_start=lambda tiles: bars.start(source.path.name, tiles),
            on_tiles=bars.advance,
        )
    _show(result, as_json=as_json, quiet=quiet)


def _plan(
    picture: str, out: str | None, scale: float, format: str | None
) -> tuple[Source, Path, bool]:
    """The source, the path that names build on, and whether the user gave that path itself."""
    sources = expand_inputs([picture])
    if len(sources) != 1 or sources[0].root is not None:
        raise UsageError(
            "sample-diverse takes one picture at a time", hint="vdsr upscale takes folders"
        )
    naming = plan_naming(out, tag=scale_tag(scale), format=format, is_several=True)
    base = output_path(sources[0], naming)
    if base is None:
        raise UsageError("sample-diverse writes files", hint="give -o a folder, or a name")
    return sources[0], base, naming.file is not None


def _show_plan(source: Source, outputs: list[Path], *, as_json: bool) -> None:
    planned = [str(path) for path in outputs]
    if as_json:
        print(json.dumps({"input": str(source.path), "outputs": planned, "status": "planned"}))
    else:
        for path in planned:
            print_line(f"{source.path} -> {path}")


def _show(result: "DiverseResult", *, as_json: bool, quiet: bool) -> None:
    """The result on stdout, notes on stderr."""
    if not quiet:
        print_choice(result.input, result.model, result.model_reason)
    for note in result.notes:
        print_note(f"{result.input}: {note}")
    if as_json:
        print(json.dumps(result.as_json()))
    elif not quiet:
        for line in _lines(result):
            print_line(line)
    sys.stdout.flush()


def _lines(result: "DiverseResult") -> list[str]:
    if result.status == "skipped":
        return [f"{result.input} (outputs exist, skipped)"]
    lines = []
    for entry in result.sets:
        lines += [f"{p.file} (LR-PSNR {p.lr_psnr:.1f} dB)" for p in entry.pictures]
        if entry.std_file is not None and entry.std_colour_full is not None:
            lines.append(f"{entry.std_file} (colours: 0 to {entry.std_colour_full:.1f} of 255)")
            lines.append(f"{entry.std_values_file} (values: 257 are 1 of 255)")
    lines += [path for path in (result.sheet, result.report, result.latents) if path]
    return [*lines, f"{result.width}x{result.height}, {result.seconds} s"]
