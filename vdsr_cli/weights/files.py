"""Our weights files: safetensors that say in their header what network they are of.

    8 bytes    length n of the header
    n bytes    JSON: {"__metadata__": {"vdsr": "..."}, NAME: {dtype, shape, data_offsets}, ...}
    the rest   the tensors, end to end

The string under ``vdsr`` is itself JSON: ``{"architecture": ..., "config": {...}, "card": {...}}``.
A header is read and judged before any tensor is: a file whose header lies is refused.
"""

import errno
import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsr_cli.errors import OutputError, WeightsError
from vdsr_cli.files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

METADATA_KEY = "vdsr"
DTYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MAX_NAME_LENGTH = 256
_MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A weights file without its numbers.

    Args:
        architecture: the name of the network in the models' registry.
        config: what the registry builds it from.
        metadata: the card: free facts about the training; nothing depends on it.
        tensors: the shapes of what the file holds, by name.
    """

    architecture: str
    config: dict[str, Any]
    metadata: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]

    @property
    def parameters(self) -> int:
        """How many numbers the file holds."""
        return sum(map(math.prod, self.tensors.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A weights file in memory: :class:`Header`'s facts, and the tensors, on the CPU."""

    architecture: str
    config: dict[str, Any]
    state: "dict[str, Tensor]"
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_architecture(self.architecture)

    @property
    def numbers(self) -> int:
        """How many numbers its tensors hold."""
        return sum(tensor.numel() for tensor in self.state.values())


def read_header(path: Path) -> Header:
    """Read and judge the header of a weights file; touches no tensor and imports no torch.

    Raises WeightsError where the file is not one of ours, is cut short, or is inconsistent.
    """
    metadata, tensors = _read_table(path)
    if METADATA_KEY not in metadata:
        raise WeightsError(
            f"{path} does not say what network it is of",
            hint="convert it: vdsr weights convert FILE -o OUT.safetensors --config NAME",
        )
    facts = _parse_json(path, metadata[METADATA_KEY])
    for key, kind in (("architecture", str), ("config", dict)):
        _require(path, isinstance(facts.get(key), kind), f"its header has no {key}")
    _require(path, isinstance(facts.get("card", {}), dict), "the card in its header is malformed")
    check_architecture(facts["architecture"])
    return Header(
        architecture=facts["architecture"],
        config=facts["config"],
        metadata=facts.get("card", {}),
        tensors=tensors,
    )


def read_safetensors(path: Path) -> Checkpoint:
    """Read a weights file. Raises WeightsError; see :func:`read_header`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = read_header(path)
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    return Checkpoint(
        architecture=header.architecture,
        config=header.config,
        state=state,
        metadata=header.metadata,
    )


def write_safetensors(path: Path, checkpoint: Checkpoint, *, replace: bool = True) -> None:
    """Write a weights file, whole or not at all, in place of one of its name unless told not to.

    Equal checkpoints give equal bytes. Tensors that share memory are written one by one. Raises
    OutputError.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    facts = {
        "architecture": checkpoint.architecture,
        "config": checkpoint.config,
        "card": checkpoint.metadata,
    }
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    state = _dense(checkpoint.state)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path, replace=replace) as temporary:
            save_file(state, temporary, metadata={METADATA_KEY: text})
    except SafetensorError as error:
        cause = _as_os_error(error)
        raise OutputError(f"cannot write {path}: {cause.strerror}") from cause
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def check_architecture(name: str) -> None:
    """Refuse what cannot be the name of an architecture. Raises WeightsError."""
    if not isinstance(name, str) or _ARCHITECTURE.fullmatch(name) is None:
        raise WeightsError(f"{ascii(name)[:80]} is not the name of an architecture")


def _as_os_error(error: Exception) -> OSError:
    """The failure of the system that safetensors only tells in words: "... (os error 28)", before
    0.6 "... Os { code: 28, ...".
    """
    match = re.search(r"os error (\d+)|Os \{ code: (\d+)", str(error))
    number = int(match[1] or match[2]) if match else errno.EIO
    return OSError(number, os.strerror(number))


def _dense(state: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """The same numbers on the CPU, each tensor dense and in memory of its own."""
    seen: set[int] = set()
    dense: dict[str, Tensor] = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        is_alone = storage.nbytes() == tensor.nbytes and storage.data_ptr() not in seen
        dense[name] = tensor if is_alone else tensor.clone()
        seen.add(storage.data_ptr())
    return dense


def _read_table(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """The free part of a file's header, and the shapes of its tensors, which fill it exactly."""
    from safetensors import SafetensorError, safe_open

    try:
        path.open("rb").close()  # the system's own words where it cannot be
        with safe_open(path, framework="np") as file:
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            metadata, dtypes = file.metadata() or {}, {s.get_dtype() for s in found.values()}
            shapes = {name: tuple(part.get_shape()) for name, part in found.items()}
    except SafetensorError as error:
        # It may quote what stands in the file.
        problem = ascii(str(error))[1:-1].removeprefix("Error while deserializing header: ")
        raise _damaged(path, problem) from error
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    are_names = all(name.isprintable() and 0 < len(name) <= _MAX_NAME_LENGTH for name in shapes)
    _require(path, are_names, "a tensor in it has an impossible name")
    _require(path, dtypes <= DTYPES, "a tensor in it has an unknown data type")
    are_shapes = all(len(shape) <= _MAX_DIMENSIONS for shape in shapes.values())
    _require(path, are_shapes, "a tensor in it has an impossible shape")
    return metadata, shapes


def _parse_json(path: Path, text: str) -> dict[str, Any]:
    """Parse one JSON object, refusing what parsers disagree about."""
    try:
        parsed = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "its header is not sound JSON") from error
    _require(path, isinstance(parsed, dict), "its header is not a JSON object")
    return dict(parsed)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice")
    return table


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _require(path: Path, condition: bool, problem: str) -> None:
    if not condition:
        raise _damaged(path, problem)


def _damaged(path: Path, problem: str) -> WeightsError:
    return WeightsError(
        f"{path} is not a sound safetensors file: {problem}",
        hint="if it is one of weights, fetch or convert it again",
    )
