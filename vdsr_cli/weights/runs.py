"""The checkpoints of a training run, as far as they are weights: read here, written by training.

last.pt       the newest, always whole
previous.pt   the one before it
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import torch

from vdsr_cli.errors import WeightsError
from vdsr_cli.files import PICKLE_ERRORS
from vdsr_cli.models.registry import COMPACT_VDVAE_SR
from vdsr_cli.weights.cache import expanded
from vdsr_cli.weights.files import Checkpoint
from vdsr_cli.weights.pickles import load_plain
from vdsr_cli.weights.records import load_records
from vdsr_cli.weights.sources import is_address

LAST, PREVIOUS = "last.pt", "previous.pt"


def find_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that a run in this folder resumes from, or None for a new run."""
    found = (folder / name for name in (LAST, PREVIOUS))
    return next((path for path in found if path.exists()), None)


def checkpoint_of(run: Path) -> Path:
    """The checkpoint in a run's folder, or where it would be; other paths as they are."""
    return (find_checkpoint(run) or run / LAST) if run.is_dir() else run


def read_checkpoint(
    path: Path, device: torch.device | str = "cpu", *, mmap: bool = False
) -> dict[str, Any]:
    """A run's whole state; with ``mmap`` tensors are read when they are looked at.

    Raises:
        WeightsError: no such file, or no checkpoint of a run.
    """
    try:
        state = load_plain(path, device, mmap=mmap)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except (*PICKLE_ERRORS, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is not the checkpoint of a run") from error
    if not _is_checkpoint(state, path.stat().st_size):
        raise WeightsError(f"{path} is not the checkpoint of a run")
    return dict(state)


def run_checkpoint(name: str) -> Path | None:
    """The checkpoint that a name stands for: a run's folder, or a file in it. None of all else:
    models of the table, addresses, other files, published pickles.

    Raises:
        WeightsError: a folder that holds no run.
    """
    if name in load_records() or is_address(name):
        return None
    path = expanded(name)
    if not path.is_dir():
        return path if path.suffix == ".pt" and not _is_published(path) else None
    found = find_checkpoint(path)
    if found is None:
        raise WeightsError(f"{path} holds no run")
    return found


def _is_published(path: Path) -> bool:
    """Whether a pickle is a table of nothing but tensors, as published weights are."""
    try:
        state = load_plain(path, mmap=zipfile.is_zipfile(path))
        return _are_tensors(state, 4 * path.stat().st_size)
    except (OSError, *PICKLE_ERRORS, zipfile.BadZipFile):
        return False


def _is_checkpoint(state: Any, size_bytes: int) -> bool:
    """Whether it has what a run resumes from, and the file had room for it."""
    if not isinstance(state, dict) or not {"model", "ema", "step"} <= state.keys():
        return False
    is_dated = isinstance(state["step"], int) and isinstance(state.get("skipped", 0), int)
    parts = state["model"], state["ema"]
    # A view may repeat a few stored numbers without end; copying it would fill the memory.
    return is_dated and all(_are_tensors(part, 4 * size_bytes) for part in parts)


def _are_tensors(state: Any, most_bytes: int) -> bool:
    is_table = isinstance(state, dict) and all(isinstance(v, torch.Tensor) for v in state.values())
    return is_table and sum(value.nbytes for value in state.values()) <= most_bytes


def read_architecture(path: Path) -> tuple[str, dict[str, Any]]:
    """The kind and configuration of a checkpoint's network, without reading its tensors.

    Raises:
        WeightsError: no such file, or no checkpoint of a run.
    """
    return network_of(path, read_checkpoint(path, mmap=True))


def network_of(path: Path, state: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The kind and configuration in what :func:`read_checkpoint` gives. Raises WeightsError."""
    try:
        config = json.loads(json.dumps(state["architecture"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} does not say what network it is of") from error
    return state.get("kind", COMPACT_VDVAE_SR), config


def averaged_weights(path: Path) -> Checkpoint:
    """The moving averages in a run's checkpoint, as its export would hold them.

    Raises:
        WeightsError: no such file, or no checkpoint of a run.
    """
    run = read_checkpoint(path)
    architecture, config = network_of(path, run)
    trained = run.get("config")
    degradation = trained.get("degradation") if isinstance(trained, dict) else None
    card = {"degradation": degradation} if isinstance(degradation, str) else {}
    return Checkpoint(architecture=architecture, config=config, state=run["ema"], metadata=card)
