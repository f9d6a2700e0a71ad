"""The files of a run: its checkpoints and its log, which survive whatever ends the process.

    last.pt       the newest checkpoint, always whole
    previous.pt   the one before it
    mean.pt       the averaged weights where the mean path alone ends and the ELBO begins
    log.jsonl     one JSON object a line: figures of the training, of the validation

A checkpoint is written beside its place, brought to the disk and then renamed. Killed at any
moment, the folder holds the old one or the new one.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from vdsr_cli.errors import OutputError, WeightsError
from vdsr_cli.files import PICKLE_ERRORS, atomic_path, write_text_atomic
from vdsr_cli.models.registry import COMPACT_VDVAE_SR

LAST, PREVIOUS, MEAN, LOG = "last.pt", "previous.pt", "mean.pt", "log.jsonl"


def find_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that a run in this folder goes on from, or None for a new run."""
    found = (folder / name for name in (LAST, PREVIOUS))
    return next((path for path in found if path.exists()), None)


def read_checkpoint(
    path: Path, device: torch.device | str = "cpu", *, mmap: bool = False
) -> dict[str, Any]:
    """What :func:`write_checkpoint` wrote; with ``mmap`` tensors are read when they are looked at.

    Raises:
        WeightsError: no such file, or no checkpoint of a run.
    """
    try:
        state: Any = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except PICKLE_ERRORS as error:
        raise WeightsError(f"{path} is not the checkpoint of a run") from error
    if not isinstance(state, dict) or not {"model", "ema", "step"} <= state.keys():
        raise WeightsError(f"{path} is not the checkpoint of a run")
    if not (_are_tensors(state["model"]) and _are_tensors(state["ema"])):
        raise WeightsError(f"{path} is not the checkpoint of a run")
    return state


def _are_tensors(state: Any) -> bool:
    return isinstance(state, dict) and all(isinstance(v, torch.Tensor) for v in state.values())


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


def write_checkpoint(
    folder: Path, state: dict[str, Any], *, name: str = LAST, keep_previous: bool = False
) -> None:
    """Writes ``last.pt``, or another, whole or not at all; the old one can stay as ``previous.pt``.

    Raises:
        OutputError: the disk is full, or the folder is gone; the old checkpoint is as it was.
    """
    path = folder / name
    try:
        with atomic_path(path) as temporary:
            with temporary.open("wb") as file:
                torch.save(state, file)
            if keep_previous and path.exists():
                _replace_by_copy(folder / PREVIOUS, path)
    except (OSError, RuntimeError) as error:
        # torch.save reports a failed write as a RuntimeError whose cause is the system's.
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) else str(error).splitlines()[0]
        raise OutputError(
            f"cannot write {path}: {reason}",
            hint="the last checkpoint is intact; make room and run the same command again",
        ) from error


def _replace_by_copy(target: Path, source: Path) -> None:
    """Makes ``target`` a second name of ``source``, or its copy where there are no hard links."""
    temporary = target.with_name(f".vdsr-{os.getpid()}{target.suffix}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copy2(source, temporary)
    temporary.replace(target)


def prepare_folder(folder: Path, step: int) -> None:
    """Makes the folder ready for a run that goes on from ``step``.

    Log rows of steps that were lost with the process are taken out, as they will come again, and
    so are the unfinished files of a killed process.

    Raises:
        OutputError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in folder.glob(".vdsr-*"):
            unfinished.unlink()
        rows = read_log(folder)
        kept = [row for row in rows if row["step"] <= step]
        if len(kept) < len(rows):
            write_text_atomic(folder / LOG, "".join(json.dumps(row) + "\n" for row in kept))
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror}") from error


def append_log(folder: Path, row: dict[str, float]) -> None:
    """Adds a row to the log; raises OutputError."""
    try:
        with (folder / LOG).open("a") as log:
            log.write(json.dumps(row) + "\n")
    except OSError as error:
        raise OutputError(
            f"cannot write {folder / LOG}: {error.strerror}", hint="the last checkpoint is intact"
        ) from error


def read_log(folder: Path) -> list[dict[str, float]]:
    """The rows of the log; a line cut short by a kill is left out."""
    path = folder / LOG
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
