"""Published pickles, made into our safetensors without running what they contain.

.th, .pt, .pth ──► its opcodes, unrun ──► torch.load(weights_only=True) ──► name -> tensor ──► ours
                   plain tensors alone    the only reader; never any other  "module." off

What weights_only lets pass is more than weights need: ``bytearray(1 << 40)``, a record that
deflates to nothing, many records that are the same bytes, and a few megabytes of empty sets fill
the memory before anything can be judged. So the opcodes of a pickle are read first, by
:mod:`pickletools`, which runs nothing. The checkpoints of a run go the same way.
"""

import pickletools
import re
import warnings
import zipfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vdsr_cli.errors import WeightsError
from vdsr_cli.files import PICKLE_ERRORS
from vdsr_cli.weights.cache import hash_file
from vdsr_cli.weights.files import Checkpoint, Header, read_header, write_safetensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PUBLISHED_ARCHITECTURE = "openai-vdvae"
PARALLEL_PREFIX = "module."
"""The prefix of every name that DistributedDataParallel saves."""

_CODE_MARKS = ("Unsupported global", "Unsupported class", "blocked", "unrecognized function")
_DAMAGE = (*PICKLE_ERRORS, OSError, zipfile.BadZipFile)
_PLAIN = re.compile(
    r"collections OrderedDict|torch Size|torch\.nn\.parameter Parameter"
    r"|torch (storage )?\w*Storage|torch\.storage \w*Storage"
    r"|torch\._utils (_rebuild_tensor|_rebuild_tensor_v2|_rebuild_parameter)"
)
"""The names that a pickle of tensors calls."""
_TORCH = re.compile(
    r"(torch|collections|_codecs)\b.*|(builtins|__builtin__) (bytearray|set|complex)"
)
"""Names that torch.load allows too, for what is no plain tensor."""
_CALLS = frozenset({"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"})
_CONTAINERS = frozenset({"EMPTY_SET", "FROZENSET", "BYTEARRAY8"})
_MOST_OPCODES = 2_000_000
"""The most of a file; each makes an object of 64 bytes or so, and a tensor takes some 60."""
_LEGACY_PICKLES = 5
"""Before the raw numbers of a file of the older format: magic, version, system, table, keys."""


def convert(
    source: Path,
    destination: Path,
    config_name: str | None = None,
    *,
    architecture: str = PUBLISHED_ARCHITECTURE,
    replace: bool = True,
) -> Header:
    """Write the tensors of the pickle ``source`` to the safetensors file ``destination``.

    ``config_name`` names the published configuration that the tensors are of; None finds it by
    their names and shapes. The header keeps it, and the sha256 of ``source``. Returns the new
    header. Raises WeightsError for a file that would run code, is damaged, holds anything but
    tensors by name, or not those of its configuration's generative half; OutputError where
    ``destination`` cannot be written, or is there and not to be replaced.
    """
    from vdsr_cli.models.upstream import check_published, identify_published

    state = read_pickle(source)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    config_name = config_name or identify_published(shapes)
    check_published(config_name, shapes)
    checkpoint = Checkpoint(
        architecture=architecture,
        config={"published": config_name},
        state=state,
        metadata={"converted_from_sha256": hash_file(source)},
    )
    write_safetensors(destination, checkpoint, replace=replace)
    return read_header(destination)


def read_pickle(path: Path) -> "dict[str, Tensor]":
    """Read name -> tensor from a pickle, running none of its code; ``module.`` is taken off.

    Raises WeightsError.
    """
    try:
        size_bytes = path.stat().st_size
        loaded = load_plain(path)
    except _DAMAGE as error:
        raise _refusal(path, error) from error
    return _checked_state(path, loaded, size_bytes)


def load_plain(path: Path, device: "torch.device | str" = "cpu", *, mmap: bool = False) -> Any:
    """Loads a pickle of tensors, numbers and texts, in memory that its size
    bounds; with ``mmap`` tensors are read when they are looked at.

    Raises:
        WeightsError: there is something else in it.
        OSError, PICKLE_ERRORS, zipfile.BadZipFile: it cannot be read, or is damaged.
    """
    import torch

    _refuse_what_is_not_plain(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of storage classes that old files name
        return torch.load(path, map_location=device, weights_only=True, mmap=mmap)


def _refuse_what_is_not_plain(path: Path) -> None:
    """Reads what a pickle does, running nothing; see the module."""
    with path.open("rb") as file:
        is_archive = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        if not is_archive:
            for _ in range(_LEGACY_PICKLES):
                _refuse_calls(path, file)
            return
        with zipfile.ZipFile(file) as archive:
            _refuse_what_grows(path, archive.infolist())
            for record in archive.infolist():
                if record.filename.endswith(".pkl"):
                    _refuse_calls(path, BytesIO(archive.read(record)))


def _refuse_what_grows(path: Path, records: list[zipfile.ZipInfo]) -> None:
    """Refuses an archive whose records are more than it is."""
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise WeightsError(f"{path} is refused: it is compressed, which files of weights are not")
    if sum(record.file_size for record in records) > path.stat().st_size:
        raise WeightsError(f"{path} is refused: its parts overlap, which those of weights do not")


def _refuse_calls(path: Path, pickle: BinaryIO) -> None:
    for count, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
        if count > _MOST_OPCODES:
            raise WeightsError(f"{path} is refused: it has more parts than weights have")
        if opcode.name in _CONTAINERS:
            raise WeightsError(f"{path} is not a file of weights: it holds more than plain tensors")
        if opcode.name not in _CALLS:
            continue
        name = str(argument) if opcode.name == "GLOBAL" else "something"
        if _PLAIN.fullmatch(name):
            continue
        if _TORCH.fullmatch(name):
            problem = f"it holds more than plain tensors ({name.replace(' ', '.')})"
            raise WeightsError(f"{path} is not a file of weights: {problem}")
        raise _would_run_code(path)


def _would_run_code(path: Path) -> WeightsError:
    return WeightsError(
        f"{path} is refused: this file would run code",
        hint="ask its author for safetensors, or for a pickle of plain tensors",
    )


def _refusal(path: Path, error: BaseException) -> WeightsError:
    """Say why a pickle was not read: torch's own message advises to run it regardless."""
    if isinstance(error, OSError) and error.strerror:
        return WeightsError(f"cannot read {path}: {error.strerror}")
    text = str(error)
    if any(mark in text for mark in _CODE_MARKS) or "TorchScript" in text:
        return _would_run_code(path)
    if isinstance(error, MemoryError) or "allocate" in text:
        return WeightsError(
            f"{path} asks for more memory than there is",
            hint="it is damaged, or this machine is too small for it",
        )
    return WeightsError(
        f"{path} is damaged, or not a file of weights",
        hint="download it again; a whole file of plain tensors is wanted",
    )


def _checked_state(path: Path, loaded: Any, size_bytes: int) -> "dict[str, Tensor]":
    """Refuse all but a flat table of ordinary tensors that the file had room for."""
    import torch

    def require(condition: bool, problem: str) -> None:
        if not condition:
            raise WeightsError(f"{path} is not a file of weights: {problem}")

    require(isinstance(loaded, dict) and bool(loaded), "it holds no table of tensors")
    state: dict[str, Tensor] = {}
    for key, tensor in loaded.items():
        require(isinstance(key, str), "a name in it is not text")
        require(type(tensor) in {torch.Tensor, torch.nn.Parameter}, f"{key!r} is not a tensor")
        is_plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        require(is_plain and not tensor.is_quantized, f"{key!r} is not an ordinary tensor")
        name = key.removeprefix(PARALLEL_PREFIX)
        require(name not in state, f"{name!r} occurs twice")
        state[name] = tensor.detach()
    total_bytes = sum(tensor.nbytes for tensor in state.values())
    # A view may repeat a few stored numbers without end; copying it would fill the memory.
    require(total_bytes <= 4 * size_bytes, "it says it holds more than it does")
    return state
