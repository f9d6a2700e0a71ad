"""Options that several commands share: one wording, one range, one meaning.

A command takes a group of them as a parameter that is one of these dataclasses: see
:func:`~vdsr_cli.cli.command.spread`.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vdsr_cli.cli.console import print_line
from vdsr_cli.config import DEFAULT_TEMPERATURE, MAX_PIXELS, Edges, Temperature, Truncated, Wrap
from vdsr_cli.errors import UsageError
from vdsr_cli.outputs import Existing, check_outputs
from vdsr_cli.paths import output_format

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vdsr_cli.images import ReadOptions
    from vdsr_cli.runtime import Runtime
    from vdsr_cli.sampling.engine import SamplingSettings

DEFAULT_PRIOR = "vdvae-x4-prior"
INTERRUPTED = 130
"""Exit code of a run that Ctrl-C ended."""


def temperature_option(help: str) -> Any:
    """The option of a command that samples: a number, or one for each level."""
    by_level = "By level, 16:0.2,8:0.5: the side of a latent's cell in output pixels."
    return typer.Option("--temperature", "-t", metavar="T|CELL:T,...", help=f"{help} {by_level}")


ConditionalTemperatureOption = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=2.0,
        help="Of a CVDVAE's q(z | lr): 1 is its released code, which does not temper it.",
        show_default="--temperature's, as in its paper",
    ),
]


Format = Literal["png", "jpg", "webp", "tiff", "avif", "bmp", "gif", "heif", "jxl", "same"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Pixels = Literal["mean", "sample"]


@dataclass(slots=True)
class Debugging:
    """Whether tracebacks are shown: the object that the contexts of a run share."""

    is_on: bool = False


def _turn_on(context: typer.Context, is_wanted: bool) -> bool:
    if is_wanted:
        context.ensure_object(Debugging).is_on = True
    return is_wanted


def complete_model(incomplete: str) -> list[tuple[str, str]]:
    """The models whose names begin so, each with its summary, for the shell."""
    from vdsr_cli.weights import load_records

    rows = load_records().values()
    return [(row.name, row.summary) for row in rows if row.name.startswith(incomplete)]


# Of the commands that make pictures.


def _model(default: str) -> Any:
    return typer.Option(
        "--model",
        "-m",
        help="Model name, hf:// address or file, or auto to have each picture looked at.",
        show_default=default,
        autocompletion=complete_model,
    )


_CHOSEN = "by --scale; vdvae-sr-x4-real for noise or compression"
ModelOption = Annotated[str, _model(f"auto: vdvae-sr-x2, -x4 or -x8 {_CHOSEN}")]
SamplerOption = Annotated[str, _model(f"auto: vdvae-sr-x2, cvdvae-x4 or vdvae-sr-x8 {_CHOSEN}")]
SeedOption = Annotated[int, typer.Option(help="Which of the possible pictures.")]
BatchOption = Annotated[
    str, typer.Option(help="Tiles a batch, or auto; halved when memory runs out.")
]
DeviceOption = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda, cuda:1 or mps.",
        autocompletion=lambda: ["auto", "cpu", "cuda", "mps"],
    ),
]
PixelsOption = Annotated[Pixels, typer.Option(help="The likelihood's mean, or a draw from it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be written.")]
ReplaceOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that exist.", show_default="refuse")
]
MaxPixelsOption = Annotated[int, typer.Option(min=1, help="Refuse larger inputs (pixels).")]
DebugOption = Annotated[
    bool,
    typer.Option("--debug", callback=_turn_on, help="Show where an error of vdsr itself happened."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no result lines.")]


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """Where the networks run."""

    device: DeviceOption = "auto"
    dtype: Annotated[Dtype, typer.Option(help="Precision of the convolutions.")] = "auto"

    def runtime(self, *, auto: Dtype = "auto") -> "Runtime":
        """The device and precision, ``auto`` where none was asked for. Raises DeviceError."""
        from vdsr_cli.runtime import choose_runtime

        return choose_runtime(self.device, auto if self.dtype == "auto" else self.dtype)


@dataclass(frozen=True, kw_only=True)
class TileOptions:
    """How a picture is cut, and what results are faithful to."""

    tile: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Tile side in LR pixels; 0 for the whole picture.",
            show_default="64, or the model's own",
        ),
    ] = None
    overlap: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="LR pixels that tiles share.",
            show_default="16, or a quarter of the model's own",
        ),
    ] = None
    consistency: Annotated[
        bool | None,
        typer.Option(
            "--consistency/--no-consistency",
            help="Make results downscale to the input exactly.",
            show_default="as the model was trained",
        ),
    ] = None
    edges: Annotated[
        Edges,
        typer.Option(
            help="Of the reduction that results are faithful to: repeat, as MATLAB's older one and"
            " the usual sets, or mirror, as CVDVAE's released code."
        ),
    ] = Edges.repeat


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(TileOptions):
    """How pictures are drawn."""

    seed: SeedOption = 0
    batch_size: BatchOption = "auto"
    pixels: PixelsOption = "mean"
    wrap: Annotated[
        Wrap | None,
        typer.Option(
            help="The right edge goes on at the left one (x), the lower at the upper one (y), or"
            " both, as of a texture (xy, or no value).",
            show_default="x for panoramas all around",
        ),
    ] = None

    def settings(self, temperature: Temperature = DEFAULT_TEMPERATURE) -> "SamplingSettings":
        """The same for the sampler, at a temperature. Raises UsageError."""
        from vdsr_cli.sampling.engine import SamplingSettings

        return SamplingSettings(
            temperature=temperature,
            seed=self.seed,
            tile=self.tile,
            overlap=self.overlap,
            batch_size=parse_batch(self.batch_size),
            output=self.pixels,
            wrap=self.wrap,
            edges=self.edges,
        )


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How inputs are read, and what of them is kept."""

    strip_metadata: Annotated[
        bool, typer.Option("--strip-metadata", help="Write no metadata but the colour profile.")
    ] = False
    truncated: Annotated[
        Truncated, typer.Option(help="Inputs that end too soon: refuse, or keep what there is.")
    ] = Truncated.refuse
    max_pixels: MaxPixelsOption = MAX_PIXELS

    def reading(self) -> "ReadOptions":
        """The same for what reads pictures."""
        from vdsr_cli.images import ReadOptions

        return ReadOptions(**asdict(self))


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """How pictures are written."""

    format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            "-f",
            help="Output format; same is the input's.",
            show_default="-o's, or png; of animations and documents their own",
        ),
    ] = None
    quality: Annotated[
        int,
        typer.Option(
            min=1,
            max=100,
            help="Of JPEG, WebP, AVIF, HEIF and JPEG XL; 100 is lossless WebP and JPEG XL.",
        ),
    ] = 95
    overwrite: Annotated[
        bool | None,
        typer.Option(
            "--overwrite/--skip-existing",
            help="What to do with outputs that exist.",
            show_default="refuse",
        ),
    ] = None

    @property
    def existing(self) -> Existing:
        """The same for what writes."""
        return existing_of(self.overwrite)


# Of training, and of the small systems.
RunOption = Annotated[Path, typer.Option("--out", "-o", help="Run folder; a run in it is resumed.")]
LearnedModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="A model's name, a file or a run.", autocompletion=complete_model
    ),
]
NoProgressOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


@dataclass(frozen=True, kw_only=True)
class RunningOptions:
    """Where a leg of a training runs, how long, and how often it is saved."""

    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="End this leg, saved, after so many minutes; run it again.",
            show_default="none",
        ),
    ] = None
    device: DeviceOption = "auto"
    dtype: Annotated[str, typer.Option(help="Of the convolutions: auto, float32 or bfloat16.")] = (
        "auto"
    )
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500
    log_every: Annotated[int, typer.Option(min=1, help="Steps between rows of the log.")] = 50


def given(options: Any) -> dict[str, Any]:
    """The options of a group that were given, by their names."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: value for name, value in values.items() if value is not None}


def refuse_prior(model: str) -> None:
    """Raises UsageError for a prior of weights.toml: one is not downloaded to be refused."""
    from vdsr_cli.weights import load_records

    record = load_records().get(model)
    if record is not None and record.scale is None:
        raise UsageError(
            f"{model} is an unconditional prior, which does not upscale by itself",
            hint="vdsr weights list shows the models that do; vdsr generate draws from this one",
        )


def finite(value: float) -> float:
    """A number that an option takes. Raises UsageError for infinity and what is no number."""
    if not math.isfinite(value):
        raise UsageError(f"{value} is no such number", hint="give a finite one")
    return value


def existing_of(overwrite: bool | None) -> Existing:
    """The value of ``--overwrite/--skip-existing``, or of ``--overwrite`` alone."""
    if overwrite:
        return Existing.overwrite
    return Existing.refuse if overwrite is None else Existing.skip


def check_figure(output: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuses, before any work is done, a picture that cannot or may not be written.

    Raises:
        UsageError: no format that can be written, or one of the inputs.
        OutputExistsError: it is there, and not to be replaced.
    """
    output_format(output)
    check_outputs([output], existing_of(overwrite or None), inputs=inputs)


def write_figure(output: Path, sheet: "NDArray[np.uint8]", *, overwrite: bool) -> None:
    """Writes a picture that :func:`check_figure` let pass, and prints its name."""
    from vdsr_cli.images import save_levels

    save_levels(output, sheet, replace=overwrite)
    print_line(output)


def parse_batch(text: str) -> int | None:
    """The value of ``--batch-size``, None for auto.

    Raises:
        UsageError: neither auto nor a positive number.
    """
    if text == "auto":
        return None
    if not (text.isdecimal() and len(text) < 10) or int(text) < 1:
        raise UsageError(f"--batch-size {text} is neither auto nor a positive number")
    return int(text)
