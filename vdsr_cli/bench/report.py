"""Results of a benchmark: scores a picture, rows of their means, the columns they stand in."""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final, Literal

from vdsr_cli.bench.data import Failure
from vdsr_cli.config import Temperature
from vdsr_cli.images import atomic_write
from vdsr_cli.metrics import mean_psnr, pooled_psnr

Better = Literal["higher", "lower"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A metric as a table shows it.

    Attributes:
        key: its name in ``--json`` and ``--csv``.
        title: its heading.
        digits: behind the point.
        better: which end is the good one; None where there is none.
        pool: how the scores of samples, pictures and seeds make the row's.
    """

    key: str
    title: str
    digits: int
    better: Better = None
    pool: Callable[[Sequence[float]], float] = fmean


SPEED: Final = "seconds_per_megapixel"

COLUMNS: tuple[Column, ...] = (
    Column(key="psnr_y", title="PSNR Y", digits=2, better="higher", pool=mean_psnr),
    Column(key="ssim_y", title="SSIM Y", digits=4, better="higher"),
    Column(key="psnr_rgb", title="PSNR RGB", digits=2, better="higher", pool=mean_psnr),
    Column(key="ssim_rgb", title="SSIM RGB", digits=4, better="higher"),
    Column(key="lpips_alex", title="LPIPS", digits=4, better="lower"),
    Column(key="lpips_squeeze", title="LPIPS squeeze", digits=4, better="lower"),
    Column(key="lpips_vgg", title="LPIPS vgg", digits=4, better="lower"),
    Column(key="dists", title="DISTS", digits=4, better="lower"),
    Column(key="brisque", title="BRISQUE", digits=1, better="lower"),
    Column(key="niqe", title="NIQE", digits=2, better="lower"),
    Column(key="fid", title="FID", digits=2, better="lower"),
    Column(key="lr_psnr", title="LR PSNR", digits=2, better="higher", pool=pooled_psnr),
    Column(key="lr_psnr_raw", title="LR raw", digits=2, better="higher", pool=pooled_psnr),
    Column(key="lr_psnr_worst", title="LR worst", digits=2, better="higher", pool=min),
    Column(key="apd_mse", title="APD MSE e4", digits=1, better="higher"),
    Column(key="apd_lpips", title="APD LPIPS e3", digits=1, better="higher"),
    Column(key="diversity", title="diversity %", digits=2, better="higher"),
    Column(
        key="psnr_reconstruction", title="PSNR recon.", digits=2, better="higher", pool=mean_psnr
    ),
    Column(key="nats_per_dim", title="nats/dim", digits=4, better="lower"),
    Column(key="bits_per_dim", title="bits/dim", digits=4, better="lower"),
    Column(key="bits_iw", title="IW bits", digits=4, better="lower"),
    Column(key="palette_bits", title="palette bits", digits=4, better="lower"),
    Column(key="webp_bits", title="WebP bits", digits=4),
    Column(key="jxl_bits", title="JXL bits", digits=4),
    Column(key=SPEED, title="s/MP", digits=2),
)
"""Every metric, in the order of the tables."""


def pool_of(key: str) -> Callable[[Sequence[float]], float]:
    """How the scores of a key make one."""
    return next((column.pool for column in COLUMNS if column.key == key), fmean)


def label_of(method: str, temperature: Temperature | None) -> str:
    """A method and its temperature, where it has one."""
    return method if temperature is None else f"{method} t={temperature:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A method at a temperature, on a dataset."""

    dataset: str
    method: str
    temperature: Temperature | None

    @property
    def key(self) -> tuple[str, str, Temperature | None]:
        """Tells it from the others."""
        return self.dataset, self.method, self.temperature

    @property
    def label(self) -> str:
        """The method and its temperature."""
        return label_of(self.method, self.temperature)


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureScore(Scored):
    """Scores of one method on one picture with one seed; ``scores`` by column key."""

    picture: str
    seed: int | None
    megapixels: float
    scores: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """Flat, one key a score."""
        return {
            "dataset": self.dataset,
            "picture": self.picture,
            "method": self.method,
            "temperature": self.temperature,
            "seed": self.seed,
            **{key: json_number(value) for key, value in self.scores.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SetScore(Scored):
    """Scores of one method on a dataset as a whole, with one seed."""

    seed: int | None
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over the seeds and its standard deviation, None for one seed."""

    mean: float
    std: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Scored):
    """Means over the pictures of a dataset, then over the seeds."""

    pictures: int
    seeds: tuple[int, ...]
    scores: Mapping[str, Estimate]

    def as_json(self) -> dict[str, Any]:
        """One key a score, and one with ``_std`` where there are several seeds."""
        return {
            "dataset": self.dataset,
            "method": self.method,
            "temperature": self.temperature,
            "pictures": self.pictures,
            "seeds": list(self.seeds),
            **_flat(self.scores),
        }


def _flat(scores: Mapping[str, Estimate]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, estimate in scores.items():
        flat[key] = json_number(estimate.mean)
        if estimate.std is not None:
            flat[f"{key}_std"] = json_number(estimate.std)
    return flat


def json_number(value: float) -> float | str | None:
    """JSON knows neither infinity, which becomes "inf", nor NaN, which becomes null."""
    if math.isnan(value):
        return None
    return round(value, 6) if math.isfinite(value) else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFacts:
    """Facts that a table tells of its pictures; ``verified`` is None for an unknown set."""

    name: str
    path: str
    pictures: int
    known_as: str | None = None
    verified: bool | None = None


@dataclass(slots=True, kw_only=True)
class Report:
    """The result of one run.

    Attributes:
        protocol, scale: how it was scored; the scale is None where nothing was upscaled.
        edges: of the reduction that made LR pictures and is projected on; None likewise.
        pictures: every score of a picture.
        sets: every score of a dataset as a whole.
        unscored: by column that was asked for and has no scores, the reason in a few words.
        notes: what a reader should know, one line each.
        peak_memory_mib: the most memory in use during the run, or None.
    """

    protocol: str
    scale: int | None
    edges: str | None = None
    datasets: list[DatasetFacts] = field(default_factory=list)
    pictures: list[PictureScore] = field(default_factory=list)
    sets: list[SetScore] = field(default_factory=list)
    unscored: dict[str, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    peak_memory_mib: float | None = None

    @property
    def exit_code(self) -> int:
        """0, or the worst failure's."""
        return max((failure.exit_code for failure in self.failures), default=0)

    def rows(self, dataset: str | None = None) -> list[Row]:
        """The means of one dataset or of all, in the order of scoring."""
        scores = [s for s in self.pictures if dataset in (None, s.dataset)]
        return [
            mean_row([s for s in scores if s.key == key], [s for s in self.sets if s.key == key])
            for key in dict.fromkeys(s.key for s in scores)
        ]

    def columns(self) -> list[Column]:
        """Those that something has a score in, and those that were asked for."""
        present = {key for score in self.pictures for key in score.scores}
        present |= {key for whole in self.sets for key in whole.scores} | self.unscored.keys()
        return [column for column in COLUMNS if column.key in present]

    def as_json(self) -> dict[str, Any]:
        """The document of ``--json``."""
        return {
            "protocol": self.protocol,
            "scale": self.scale,
            "edges": self.edges,
            "datasets": [
                {
                    "name": facts.name,
                    "path": facts.path,
                    "pictures": facts.pictures,
                    "known_as": facts.known_as,
                    "bicubic_verified": facts.verified,
                }
                for facts in self.datasets
            ],
            "rows": [row.as_json() for row in self.rows()],
            "pictures": [score.as_json() for score in self.pictures],
            "unscored": self.unscored,
            "failures": [
                {key: getattr(failure, key) for key in ("dataset", "picture", "method", "error")}
                for failure in self.failures
            ],
            "notes": self.notes,
            "peak_memory_mib": self.peak_memory_mib and round(self.peak_memory_mib, 1),
        }


def mean_row(scores: Sequence[PictureScore], sets: Sequence[SetScore] = ()) -> Row:
    """The row of one method's scores on one dataset, all seeds."""
    ordered = sorted(scores, key=lambda score: (score.seed is None, score.seed or 0))
    by_seed = {
        seed: _pooled(list(group)) for seed, group in groupby(ordered, lambda score: score.seed)
    }
    for whole in sets:
        by_seed[whole.seed] |= whole.scores
    first = scores[0]
    keys = dict.fromkeys(key for pooled in by_seed.values() for key in pooled)
    return Row(
        dataset=first.dataset,
        method=first.method,
        temperature=first.temperature,
        pictures=len({score.picture for score in scores}),
        seeds=tuple(seed for seed in by_seed if seed is not None),
        scores={
            key: _estimate(key, [p[key] for p in by_seed.values() if key in p]) for key in keys
        },
    )


def worst_pictures(
    scores: Sequence[PictureScore], column: Column, count: int
) -> list[tuple[str, Row]]:
    """The ``count`` pictures that score worst in a column, worst first, by name.

    Each has the row of its scores by one method, so a mean over the seeds.
    """
    names = dict.fromkeys(score.picture for score in scores)
    rows = [(name, mean_row([s for s in scores if s.picture == name])) for name in names]
    known = [
        (row.scores[column.key].mean, name, row) for name, row in rows if column.key in row.scores
    ]
    ordered = sorted(known, key=lambda entry: entry[0], reverse=column.better == "lower")
    return [(name, row) for mean, name, row in ordered[:count] if not math.isnan(mean)]


def write_csv(report: Report, path: Path, *, replace: bool = True) -> None:
    """One line a picture, method and seed; columns as in ``--json``.

    Raises:
        OutputError: the file cannot be written.
    """
    rows = [score.as_json() for score in report.pictures]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = StringIO(newline="")
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path, replace=replace) as stream:
        stream.write(text.getvalue().encode(errors="backslashreplace"))


def _pooled(scores: Sequence[PictureScore]) -> dict[str, float]:
    """One seed's scores over its pictures; those that a picture lacks are means of the others."""
    pooled = {}
    for key in dict.fromkeys(key for score in scores for key in score.scores):
        values = [score.scores[key] for score in scores if key in score.scores]
        pooled[key] = pool_of(key)(values)
    if SPEED in pooled:
        seconds = sum(score.scores[SPEED] * score.megapixels for score in scores)
        pooled[SPEED] = seconds / sum(score.megapixels for score in scores)
    return pooled


def _estimate(key: str, seeds: Sequence[float]) -> Estimate:
    mean = pool_of(key)(seeds)
    if len(seeds) < 2 or not all(map(math.isfinite, seeds)):
        return Estimate(mean)
    return Estimate(mean, stdev(seeds))
