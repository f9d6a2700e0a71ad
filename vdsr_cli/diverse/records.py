"""The request, the file names and the result of ``vdsr sample-diverse``."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from vdsr_cli.config import DEFAULT_TEMPERATURE, Temperature, check_temperature
from vdsr_cli.errors import UsageError
from vdsr_cli.images import ReadOptions
from vdsr_cli.metrics.streaming import farthest, medoid
from vdsr_cli.outputs import Existing
from vdsr_cli.sampling.engine import SamplingSettings

MOST_SAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """Which of the samples are kept.

    ``medoid``: the sample with the smallest sum of distances to the others. ``mean``: the mean of
    all, which is no sample: smoother, and nearer to the truth on average. ``farthest``: the
    ``count`` samples that differ most.
    """

    kind: Literal["medoid", "mean", "farthest"]
    count: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the kept pictures."""
        if self.kind == "farthest":
            return tuple(f"far{rank}" for rank in range(1, self.count + 1))
        return (self.kind,)

    def samples(self, distances: Tensor) -> tuple[int | None, ...]:
        """The sample behind each of the names, by the samples' distances; None for the mean."""
        if self.kind == "farthest":
            return farthest(distances, self.count)
        return (medoid(distances) if self.kind == "medoid" else None,)


def parse_pick(text: str) -> Pick:
    """``medoid``, ``mean`` or ``farthest-K``, K from 2.

    Raises:
        UsageError: anything else.
    """
    match = re.fullmatch(r"farthest-(\d{1,3})", text)
    if match and int(match[1]) >= 2:
        return Pick(kind="farthest", count=int(match[1]))
    if text == "medoid":
        return Pick(kind="medoid")
    if text == "mean":
        return Pick(kind="mean")
    raise UsageError(f"--pick {text} is unknown", hint="use medoid, mean or farthest-3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """``steps`` pictures on the way from sample ``start`` to sample ``end``, both included."""

    start: int
    end: int
    steps: int = 8

    def __post_init__(self) -> None:
        if min(self.start, self.end) < 0 or self.start == self.end:
            raise UsageError(
                f"--interpolate {self.start} {self.end} needs two samples, counted from 0"
            )
        if not 2 <= self.steps <= MOST_SAMPLES:
            raise UsageError(f"--steps {self.steps} is outside 2 to {MOST_SAMPLES}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiverseRequest:
    """How to sample a picture, and what to write.

    Attributes:
        samples: how many; None for five, or all of ``from_latents``.
        settings: how the model samples; its temperature and samples are not used.
        pick: keep only these; None for all, with mean, deviation and contact sheet.
        mask: a picture, white where samples may differ from sample 0.
        save_latents, from_latents: files of ``sampling.latents``.
        walk: pictures between two samples in place of samples.
        metric_weights: folder that may hold ``lpips_alex.safetensors``.
    """

    samples: int | None = None
    temperatures: tuple[Temperature, ...] = (DEFAULT_TEMPERATURE,)
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    consistency: bool | None = None
    pick: Pick | None = None
    mask: Path | None = None
    save_latents: Path | None = None
    from_latents: Path | None = None
    walk: Walk | None = None
    report: Path | None = None
    metric_weights: Path | None = None
    existing: Existing = Existing.refuse
    quality: int = 95
    reading: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        if self.samples is not None and not 1 <= self.samples <= MOST_SAMPLES:
            raise UsageError(f"-n {self.samples} is outside 1 to {MOST_SAMPLES}")
        for value in self.temperatures:
            check_temperature(value)
        if len(set(self.temperatures)) != len(self.temperatures) or not self.temperatures:
            raise UsageError("--temperatures needs different ones, such as 0.2,0.5,0.8")
        self._refuse_conflicts()

    def sample_names(self, count: int) -> list[str]:
        """Names of so many samples: s0, s1, ...; w0, w1, ... on a walk."""
        return [f"{'w' if self.walk else 's'}{index}" for index in range(count)]

    def _refuse_conflicts(self) -> None:
        if self.walk and (self.pick or self.mask):
            raise UsageError("--interpolate goes with neither --pick nor --mask")
        keeps_noise = self.from_latents or self.save_latents or self.walk
        if keeps_noise and self.settings.output == "sample":
            raise UsageError(
                "latents and --interpolate hold no noise of pixels", hint="leave out --pixels"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFiles:
    """Names of one temperature's files; a map is None when it is not written."""

    pictures: dict[str, Path]
    std_colours: Path | None = None
    std_values: Path | None = None

    def __iter__(self) -> Iterator[Path]:
        yield from self.pictures.values()
        yield from (path for path in (self.std_colours, self.std_values) if path)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputNames:
    """How the files of a run are called.

    Attributes:
        base: such as ``face_x4.png``; names are put behind its stem.
        is_exact: whether the user named ``base`` itself, so that a single picture is called so.
    """

    base: Path
    is_exact: bool = False

    def of_set(self, request: DiverseRequest, temperature: Temperature, samples: int) -> SetFiles:
        """The files of one temperature with so many samples."""
        written = f"_t{temperature:g}".replace(",", "_").replace(":", "-")
        tag = written if len(request.temperatures) > 1 else ""
        if request.pick:
            names = request.pick.names
            if self.is_exact and len(names) == 1 and not tag:
                return SetFiles(pictures={names[0]: self.base})
            return SetFiles(pictures=self._pictures(tag, names))
        pictures = self._pictures(tag, request.sample_names(samples))
        if samples == 1 or request.walk:
            return SetFiles(pictures=pictures)
        return SetFiles(
            pictures=pictures | self._pictures(tag, ["mean"]),
            std_colours=self.png(f"{tag}_std"),
            std_values=self.png(f"{tag}_std16"),
        )

    def all_of(self, request: DiverseRequest, samples: int) -> list[Path]:
        """Every file of a run with so many samples."""
        pictures = [p for t in request.temperatures for p in self.of_set(request, t, samples)]
        extras = (self.sheet(request), request.report, request.save_latents)
        return pictures + [path for path in extras if path]

    def sheet(self, request: DiverseRequest) -> Path | None:
        """The contact sheet, or None where only picked pictures are written."""
        return None if request.pick else self.png("_sheet")

    def png(self, name: str) -> Path:
        """A PNG of this name, whatever the format of the pictures."""
        return self.base.with_name(f"{self.base.stem}{name}.png")

    def _pictures(self, tag: str, names: Sequence[str]) -> dict[str, Path]:
        return {
            name: self.base.with_name(f"{self.base.stem}{tag}_{name}{self.base.suffix}")
            for name in names
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureResult:
    """One written picture.

    Attributes:
        name: s0, s1, ...; mean; medoid; far1, ...; w0, ...
        sample: its index among the samples, None for a mean.
        lr_psnr: dB of the file, read back and degraded again, against the input; not rounded.
        lr_psnr_float: dB of the same picture before it was rounded to its file's levels.
        lr_same: share of the input's samples that the file gives back to 8 bits.
    """

    name: str
    sample: int | None
    file: str
    lr_psnr: float
    lr_psnr_float: float
    lr_same: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SetResult:
    """The pictures of one temperature.

    Attributes:
        apd_mse: average pairwise distance, mean squared, of all samples as 0..1 pictures.
        apd_lpips: the same in LPIPS (AlexNet); None without its weights.
        std_mean: mean over the picture of the samples' standard deviation, in 8-bit levels.
        std_colour_full: what the brightest colour of ``std_file`` stands for, in 8-bit levels.
        std_file: the deviation in viridis colours.
        std_values_file: the same as a 16-bit PNG whose value 257 is one 8-bit level.
        seconds: for drawing and projecting.
    """

    temperature: Temperature
    samples: int
    pictures: tuple[PictureResult, ...]
    apd_mse: float | None
    apd_lpips: float | None
    std_mean: float | None
    std_colour_full: float | None
    std_file: str | None
    std_values_file: str | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DiverseResult:
    """The result for a picture; its fields are the keys of ``--json``.

    Attributes:
        seed: that gives these samples; None of latents of which it is not known.
    """

    input: str
    status: str = "done"
    model: str | None = None
    model_reason: str | None = None
    scale: int | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    tiles: int | None = None
    consistency: bool | None = None
    edges: str | None = None
    wrap: str | None = None
    mask: str | None = None
    sets: tuple[SetResult, ...] = ()
    sheet: str | None = None
    report: str | None = None
    latents: str | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """All fields, null where there is nothing to say."""
        return asdict(self)
