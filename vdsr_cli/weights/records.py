"""The rows of ``weights.toml``: every fact about every published model, in one place."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vdsr_cli.errors import WeightsError
from vdsr_cli.weights.sources import Bundled, Hub, Source, Web, is_sha256, parse_source

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*(/[a-z0-9][a-z0-9.-]*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One figure of a model, and the command that prints it."""

    metric: str
    data: str
    value: float
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsRecord:
    """One row of ``weights.toml``.

    Args:
        name: what ``--model`` takes.
        architecture: the name of the network in the models' registry.
        summary: one line for a person who chooses a model.
        source: a bundled file's name, ``hf://owner/repo@commit/file`` or ``https://host/file``.
        licence: of the weights, an SPDX expression where there is one.
        sha256: of the source file.
        bytes: size of the source file.
        scale: super-resolution factor; None for a prior, which does not upscale by itself.
        config: name of the published configuration, for files that do not carry their own.
        paper: where the model is described.
        trust_on_first_use: no hash was ever published: the first download's is kept and
            compared with ever after.
        note: what a user should know before relying on it.
        scores: figures to expect.
    """

    name: str
    architecture: str
    summary: str
    source: str
    licence: str
    sha256: str | None = None
    bytes: int | None = None
    scale: int | None = None
    config: str | None = None
    paper: str | None = None
    trust_on_first_use: bool = False
    note: str | None = None
    scores: tuple[Score, ...] = ()

    def __post_init__(self) -> None:
        self._require(_NAME.fullmatch(self.name) is not None, "is not a name")
        for field in ("architecture", "summary", "licence"):
            self._require(bool(getattr(self, field)), f"has no {field}")
        self._require(self.sha256 is None or is_sha256(self.sha256), "has a malformed sha256")
        self._require(self.bytes is None or self.bytes > 0, "has an impossible size")
        self._require(self.scale is None or self.scale >= 1, "has an impossible scale")
        self._check_location(self.location)

    @property
    def location(self) -> Source:
        """The source, parsed."""
        return parse_source(self.source)

    def _check_location(self, location: Source) -> None:
        is_pinned = not isinstance(location, Hub) or location.is_pinned
        is_named = isinstance(location, Bundled) or self.sha256 is not None
        self._require(is_pinned, "must pin its revision to a full commit")
        self._require(is_named or self.trust_on_first_use, "has no sha256")
        self._require(not (self.sha256 and self.trust_on_first_use), "has a sha256 to go by")
        has_hash = isinstance(location, Web) and location.sha256 is not None
        self._require(not has_hash, "must put its sha256 in a key of its own")

    def _require(self, condition: bool, problem: str) -> None:
        if not condition:
            raise WeightsError(f"weights.toml: model {self.name!r} {problem}")


def registry_path() -> Path:
    """Where ``weights.toml`` is: in the installed package, or at the root of the repository."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "weights.toml"
    return installed if installed.is_file() else package.parent / "weights.toml"


@cache
def read_table(path: Path) -> dict[str, Any]:
    """The entries of ``weights.toml``, read once. Raises WeightsError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(
            f"cannot read the table of models {path}: {error.strerror}", hint="reinstall vdsr-cli"
        ) from error
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error


@cache
def load_records(path: Path | None = None) -> Mapping[str, WeightsRecord]:
    """Every row of ``weights.toml`` (or of ``path``), in the file's order.

    Raises WeightsError where the file is missing or a row breaks a rule.
    """
    models = read_table(path or registry_path()).get("models", {})
    return MappingProxyType({name: _parse_row(name, row) for name, row in models.items()})


def find_record(name: str, records: Mapping[str, WeightsRecord] | None = None) -> WeightsRecord:
    """Look a model up by its name. Raises WeightsError with the nearest name as the hint."""
    records = load_records() if records is None else records
    if name in records:
        return records[name]
    raise WeightsError(f"there is no model named {name!r}", hint=did_you_mean(name, records))


def did_you_mean(name: str, records: Mapping[str, WeightsRecord]) -> str:
    """A hint with the nearest name, and where all names are listed."""
    short = {known.rpartition("/")[2]: known for known in records}
    spellings = short | {known: known for known in records}
    close = difflib.get_close_matches(name.lower(), spellings, n=5, cutoff=0.5)
    close.sort(key=lambda known: sorted(known) != sorted(name.lower()))  # letters changed places
    guess = f"did you mean {spellings[close[0]]!r}? " if close else ""
    return f"{guess}`vdsr weights list` shows every model"


def _parse_row(name: str, row: Any) -> WeightsRecord:
    known = {field.name for field in fields(WeightsRecord)} - {"name"}
    if not isinstance(row, dict) or (unknown := sorted(set(row) - known)):
        problem = f"unknown key {unknown[0]!r}" if isinstance(row, dict) else "not a table"
        raise WeightsError(f"weights.toml: model {name!r}: {problem}")
    try:
        scores = tuple(Score(**score) for score in row.get("scores", []))
        return WeightsRecord(**{**row, "name": name, "scores": scores})
    except TypeError as error:
        raise WeightsError(f"weights.toml: model {name!r}: {error}") from error
