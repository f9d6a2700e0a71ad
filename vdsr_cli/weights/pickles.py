"""Published pickles, made into our safetensors without running what they contain.

.th, .pt, .pth ──► torch.load(weights_only=True) ──► name -> tensor ──► safetensors
                   the only reader; never any other   "module." off      config in the header
"""

import pickle
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsr_cli.errors import WeightsError
from vdsr_cli.weights.cache import hash_file
from vdsr_cli.weights.files import Checkpoint, Header, read_header, write_safetensors

if TYPE_CHECKING:
    from torch import Tensor

PUBLISHED_ARCHITECTURE = "openai-vdvae"
PARALLEL_PREFIX = "module."
"""What DistributedDataParallel puts before every name it saves."""

_CODE_MARKS = ("Unsupported global", "Unsupported class", "blocked", "unrecognized function")
_DAMAGE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What torch.load has been seen to raise on damaged files."""


def convert(
    source: Path,
    destination: Path,
    config_name: str | None = None,
    *,
    architecture: str = PUBLISHED_ARCHITECTURE,
) -> Header:
    """Write the tensors of the pickle ``source`` to the safetensors file ``destination``.

    ``config_name`` names the published configuration that the tensors are of; None finds it by
    their names and shapes. The header keeps it, and the sha256 of ``source``. Returns the new
    header. Raises WeightsError for a file that would run code, is damaged, holds anything but
    tensors by name, or not those of its configuration's generative half; OutputError where
    ``destination`` cannot be written.
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
    write_safetensors(destination, checkpoint)
    return read_header(destination)


def read_pickle(path: Path) -> "dict[str, Tensor]":
    """Read name -> tensor from a pickle, running none of its code; ``module.`` is taken off.

    Raises WeightsError.
    """
    import torch

    try:
        size_bytes = path.stat().st_size
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of storage classes that old files name
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        raise _refusal(path, error) from error
    return _checked_state(path, loaded, size_bytes)


def _refusal(path: Path, error: BaseException) -> WeightsError:
    """Say why a pickle was not read: torch's own message advises to run it regardless."""
    if isinstance(error, OSError) and error.strerror:
        return WeightsError(f"cannot read {path}: {error.strerror}")
    text = str(error)
    if any(mark in text for mark in _CODE_MARKS) or "TorchScript" in text:
        return WeightsError(
            f"{path} is refused: this file would run code",
            hint="ask its author for safetensors, or for a pickle of plain tensors",
        )
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
