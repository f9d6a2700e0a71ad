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
MAX_HEADER_BYTES = 16 << 20
DTYPE_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MAX_NAME_LENGTH = 256
_MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFacts:
    """The facts of one tensor in a header."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A weights file without its numbers.

    Args:
        architecture: the name of the network in the models' registry.
        config: what the registry builds it from.
        metadata: the card: free facts about the training; nothing depends on it.
        tensors: what the file holds, by name.
    """

    architecture: str
    config: dict[str, Any]
    metadata: dict[str, Any]
    tensors: dict[str, TensorFacts]

    @property
    def parameters(self) -> int:
        """How many numbers the file holds."""
        return sum(facts.elements for facts in self.tensors.values())


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
    table, data_bytes = _read_table(path)
    metadata = table.pop("__metadata__", None)
    tensors = _read_tensors(path, table, data_bytes)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(METADATA_KEY), str):
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


def _read_table(path: Path) -> tuple[dict[str, Any], int]:
    """The JSON of a file's header, and how many bytes follow it."""
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            is_possible = 2 <= length <= min(MAX_HEADER_BYTES, size_bytes - 8)
            _require(path, is_possible, "it has no header, or is cut short")
            text = file.read(length)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    return _parse_json(path, text), size_bytes - 8 - length


def _parse_json(path: Path, text: str | bytes) -> dict[str, Any]:
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


def _read_tensors(path: Path, table: dict[str, Any], data_bytes: int) -> dict[str, TensorFacts]:
    """Judge the header's entries: sound each by itself, and together filling the file exactly."""
    tensors: dict[str, TensorFacts] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in table.items():
        is_name = name.isprintable() and 0 < len(name) <= _MAX_NAME_LENGTH
        _require(path, is_name, "a tensor in it has an impossible name")
        tensors[name], span = _read_entry(path, name, entry)
        spans.append(span)
    end = 0
    for start, stop in sorted(spans):
        _require(path, start == end, "its tensors overlap or leave gaps")
        end = stop
    _require(path, end == data_bytes, "its length is not what its header says")
    return tensors


def _read_entry(path: Path, name: str, entry: Any) -> tuple[TensorFacts, tuple[int, int]]:
    """One tensor's facts, and where its bytes start and stop."""
    keys = {"dtype", "shape", "data_offsets"}
    is_entry = isinstance(entry, dict) and set(entry) == keys
    _require(path, is_entry, f"the entry of {name!r} is malformed")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    is_known = isinstance(dtype, str) and dtype in DTYPE_BYTES
    _require(path, is_known, f"{name!r} has an unknown data type")
    is_shape = _are_sizes(shape) and len(shape) <= _MAX_DIMENSIONS
    _require(path, is_shape, f"{name!r} has an impossible shape")
    is_span = _are_sizes(offsets) and len(offsets) == 2
    _require(path, is_span, f"{name!r} has impossible offsets")
    facts = TensorFacts(dtype=dtype, shape=tuple(shape))
    start, stop = offsets
    is_filled = stop - start == facts.elements * DTYPE_BYTES[dtype]
    _require(path, is_filled, f"{name!r} is not as long as its shape says")
    return facts, (start, stop)


def _are_sizes(values: Any) -> bool:
    is_list = isinstance(values, list)
    return is_list and all(type(value) is int and 0 <= value < 1 << 48 for value in values)


def _require(path: Path, condition: bool, problem: str) -> None:
    if not condition:
        raise _damaged(path, problem)


def _damaged(path: Path, problem: str) -> WeightsError:
    return WeightsError(
        f"{path} is not a sound safetensors file: {problem}",
        hint="delete it and fetch or convert it again",
    )
