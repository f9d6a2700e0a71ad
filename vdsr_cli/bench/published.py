"""Facts of the usual sets, and scores that others have published on them: ``published.toml``."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class BicubicFigure:
    """The scores of bicubic enlargement on a set under a protocol."""

    protocol: str
    scale: int
    scores: Mapping[str, float]
    preparation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSet:
    """A set that many score.

    Attributes:
        sizes: (width, height) of its pictures, in any order; empty where it is not told by them.
        url, terms: where to get it, and what one may do with it.
        bicubic: any one of the figures of a protocol is right.
    """

    name: str
    title: str
    pictures: int
    url: str
    terms: str
    sizes: Sequence[tuple[int, int]] = ()
    bicubic: tuple[BicubicFigure, ...] = ()

    def is_made_of(self, sizes: Sequence[tuple[int, int]], scale: int) -> bool:
        """Whether pictures of these sizes, cropped to a multiple of the scale, are this set."""
        return bool(self.sizes) and _cropped(self.sizes, scale) == _cropped(sizes, scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One method of one published table on one set.

    Attributes:
        is_primary: whether the table is the method's own, not a quotation.
    """

    dataset: str
    method: str
    protocol: str
    scale: int
    source: str
    scores: Mapping[str, float]
    temperature: float | None = None
    parameters: str | None = None
    is_primary: bool = True
    note: str | None = None

    @property
    def label(self) -> str:
        """The method and its temperature."""
        return self.method if self.temperature is None else f"{self.method} t={self.temperature:g}"


def _cropped(sizes: Sequence[tuple[int, int]], scale: int) -> list[tuple[int, int]]:
    return sorted((width // scale, height // scale) for width, height in sizes)


@cache
def _document() -> Mapping[str, Any]:
    text = files("vdsr_cli.bench").joinpath("published.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def load_known_sets() -> list[KnownSet]:
    """The sets, in the file's order."""
    return [
        KnownSet(**{**row, "name": name, "bicubic": tuple(map(_figure, row.get("bicubic", ())))})
        for name, row in _document()["sets"].items()
    ]


def _figure(row: Mapping[str, Any]) -> BicubicFigure:
    facts = ("protocol", "scale", "preparation")
    scores = {key: value for key, value in row.items() if key not in facts}
    return BicubicFigure(scores=scores, **{fact: row[fact] for fact in facts})


def published_rows(dataset: str, protocol: str, scale: int) -> list[PublishedRow]:
    """The published rows that may stand beside ours: same set, protocol and scale."""
    return [
        PublishedRow(**{**row, "dataset": dataset, "scores": row["scores"][dataset]})
        for row in _document()["published"]
        if dataset in row["scores"] and (row["protocol"], row["scale"]) == (protocol, scale)
    ]
