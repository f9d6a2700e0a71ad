"""The metrics that have learned something: which there are, and those that a run can score.

names ──► LearnedMetric ──► files (weights.metrics) ──► paired     features and their distance
                                  │                   unaided    a score of the picture alone
                                  ▼                   inception  for a distance of whole sets
                            missing, and why
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from torch import Tensor

from vdsr_cli.errors import UsageError, WeightsError
from vdsr_cli.metrics import DISTS, LPIPS, Brisque, InceptionFeatures, Niqe
from vdsr_cli.weights.fetch import Progress
from vdsr_cli.weights.metrics import (
    MetricWeights,
    find_file,
    load_metric_weights,
    obtain_file,
)


class Paired(Protocol):
    """A distance of two pictures' features, which are computed once a picture."""

    def features(self, pixels: Tensor) -> list[Tensor]:
        """The features that are compared of a uint8 (3, H, W) picture."""

    def distance(self, one: list[Tensor], other: list[Tensor]) -> float:
        """Distance of two pictures' features."""


Unaided = Callable[[Tensor], float | None]
"""A score of a uint8 (3, H, W) picture, or None where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedMetric:
    """A metric that needs weights.

    Attributes:
        name: what ``--metrics`` takes.
        key: its column.
        rows: of the table of weights, in the order that ``build`` takes their files.
        whole: name of one file that holds all of that, if there is such a thing.
        build: files -> the metric.
    """

    name: str
    key: str
    rows: tuple[str, ...]
    build: Callable[..., Any]
    whole: str | None = None


def _lpips(name: str, net: str, backbone: str) -> LearnedMetric:
    return LearnedMetric(
        name=name,
        key=f"lpips_{net}",
        rows=(backbone, f"lpips-{net}-heads"),
        build=partial(LPIPS, net=net),
        whole=f"lpips_{net}.safetensors",
    )


LEARNED: Final = (
    _lpips("lpips", "alex", "alexnet"),
    _lpips("lpips-squeeze", "squeeze", "squeezenet"),
    _lpips("lpips-vgg", "vgg", "vgg16"),
    LearnedMetric(
        name="dists",
        key="dists",
        rows=("vgg16", "dists-heads"),
        build=DISTS,
        whole="dists.safetensors",
    ),
    LearnedMetric(name="brisque", key="brisque", rows=("allmodel", "allrange"), build=Brisque),
    LearnedMetric(name="niqe", key="niqe", rows=("niqe",), build=Niqe),
    LearnedMetric(name="fid", key="fid", rows=("inception",), build=InceptionFeatures),
)
"""Every one, in the order of the tables."""


@dataclass(slots=True)
class Learned:
    """The metrics of a run, by column.

    Attributes:
        paired: against the HR picture.
        unaided: of a picture alone.
        inception: the features that FID compares, or None.
        missing: of the others, why there is none.
    """

    paired: dict[str, Paired] = field(default_factory=dict)
    unaided: dict[str, Unaided] = field(default_factory=dict)
    inception: InceptionFeatures | None = None
    missing: dict[str, WeightsError] = field(default_factory=dict)


def choose_metrics(text: str) -> tuple[LearnedMetric, ...]:
    """The metrics of ``--metrics``: names with commas, ``all`` or ``none``.

    Raises:
        UsageError: a name that is none of theirs.
    """
    known = {metric.name: metric for metric in LEARNED}
    if text in {"all", "none"}:
        return LEARNED if text == "all" else ()
    names = dict.fromkeys(name.strip() for name in text.split(","))
    if unknown := [name for name in names if name not in known]:
        raise UsageError(
            f"--metrics: there is no metric {unknown[0]!r}",
            hint=f"all, none, or some of {', '.join(known)}",
        )
    return tuple(metric for metric in LEARNED if metric.name in names)


def load_learned(
    wanted: Sequence[LearnedMetric] | None, folder: Path | None, *, progress: Progress | None = None
) -> Learned:
    """Loads the wanted metrics, downloading what is not on this disk; None for those that are.

    A metric that cannot be had is missing; the others are loaded.

    Raises:
        WeightsError: ``folder`` is not there, or a file holds something else.
    """
    if folder is not None and not folder.is_dir():
        raise WeightsError(f"{folder}: there is no such folder of metric weights")
    learned = Learned()
    for metric in LEARNED if wanted is None else wanted:
        try:
            files = _files(metric, folder, may_download=wanted is not None, progress=progress)
        except WeightsError as error:
            learned.missing[metric.key] = error
            continue
        _place(learned, metric, metric.build(*files))
    return learned


def _files(
    metric: LearnedMetric, folder: Path | None, *, may_download: bool, progress: Progress | None
) -> list[Path]:
    whole = folder / metric.whole if folder is not None and metric.whole else None
    if whole is not None and whole.is_file():
        return [whole]
    table: Mapping[str, MetricWeights] = load_metric_weights()
    rows = [table[name] for name in metric.rows]
    if may_download:
        return [obtain_file(row, folder, progress=progress) for row in rows]
    found = [find_file(row, folder) for row in rows]
    if any(path is None for path in found):
        raise WeightsError("no weights")
    return [path for path in found if path is not None]


def _place(learned: Learned, metric: LearnedMetric, built: Any) -> None:
    if isinstance(built, InceptionFeatures):
        learned.inception = built
    elif isinstance(built, LPIPS | DISTS):
        learned.paired[metric.key] = built
    else:
        learned.unaided[metric.key] = built
