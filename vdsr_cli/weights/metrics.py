"""The weights of learned metrics: rows ``[metrics.NAME]`` of ``weights.toml`` -> files.

    --metric-weights DIR ──┐
                           ├──► NAME.safetensors ──► the metric
    source ──► cache ──────┘
       └─ fetched, verified by sha256, kept as safetensors in $VDSR_HOME/metrics

A file that the table has no source for is looked for under its own name, in DIR alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vdsr_cli.errors import WeightsError
from vdsr_cli.weights import Checkpoint, write_safetensors
from vdsr_cli.weights.cache import CacheEntry, cache_errors, cache_home, hash_file, wrong_hash
from vdsr_cli.weights.fetch import Download, Progress, fetch
from vdsr_cli.weights.partial import discard
from vdsr_cli.weights.pickles import read_pickle
from vdsr_cli.weights.records import read_table, registry_path
from vdsr_cli.weights.sources import Web, is_pickle
from vdsr_cli.weights.store import offline_by_environment


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricWeights:
    """One row of the table; see ``weights.toml``."""

    name: str
    summary: str
    licence: str
    sha256: str
    bytes: int
    source: str | None = None
    page: str | None = None
    keep: str = ""

    @property
    def entry(self) -> CacheEntry:
        """Its place in the cache."""
        return CacheEntry(source=str(self.source), folder=cache_home() / "metrics", stem=self.name)


@cache
def load_metric_weights() -> dict[str, MetricWeights]:
    """Every row, by name."""
    rows = read_table(registry_path())["metrics"]
    return {name: MetricWeights(name=name, **row) for name, row in rows.items()}


def find_file(row: MetricWeights, folder: Path | None) -> Path | None:
    """The file in a folder of metric weights, else in the cache; None where it is in neither.

    Raises:
        WeightsError: a file as published that is not the published one.
    """
    if folder is not None:
        prepared = folder / f"{row.name}.safetensors"
        if prepared.is_file():
            return prepared
        for path in filter(Path.is_file, _as_published(row, folder)):
            if hash_file(path) != row.sha256:
                raise WeightsError(f"{path}: not the published file", hint=row.page or row.source)
            return path
    if row.source is None:
        return None
    with cache_errors(row.entry.folder):
        return row.entry.file if row.entry.is_intact() else None


def _as_published(row: MetricWeights, folder: Path) -> Iterator[Path]:
    """A file that needs no conversion, in the folder or one level below it."""
    name = row.name if row.source is None else Web(url=row.source).filename
    if not is_pickle(name):
        yield from (folder / name, *sorted(folder.glob(f"*/{name}")))


def obtain_file(
    row: MetricWeights, folder: Path | None, *, progress: Progress | None = None
) -> Path:
    """The file, downloaded to the cache if it is not on this disk.

    Raises:
        WeightsError: it cannot be had, or is not the published one.
    """
    if (found := find_file(row, folder)) is not None:
        return found
    if row.source is None:
        raise WeightsError(
            f"{row.name} is not on this disk and is not downloaded",
            hint=f"put it into a folder for --metric-weights; it is published at {row.page}",
        )
    if offline_by_environment():
        raise WeightsError(f"{row.source} may not be fetched offline")
    with cache_errors(row.entry.folder), row.entry.locked():
        if not row.entry.is_intact():
            _download(row, row.source, progress)
    return row.entry.file


def _download(row: MetricWeights, source: str, progress: Progress | None) -> None:
    part = row.entry.part
    fetched = fetch(Download(url=source, size_bytes=row.bytes), part, progress=progress)
    if fetched.sha256 != row.sha256:
        discard(part)
        raise wrong_hash(Web(url=source), fetched.sha256, row.sha256)
    state = read_pickle(part) if is_pickle(source) else _read_arrays(part)
    kept = {name: value for name, value in state.items() if name.startswith(row.keep)}
    write_safetensors(row.entry.file, Checkpoint(architecture=row.name, config={}, state=kept))
    row.entry.write_receipt(source_sha256=row.sha256)
    discard(part)


def _read_arrays(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
