"""Device and dtype, decided once; models never name one."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.errors import DeviceError, UsageError

T = TypeVar("T")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Where and in what precision the convolutions of a model run.

    Attributes:
        device: torch device.
        dtype: of parameters and feature maps; moments, sampling and pixels stay float32.
    """

    device: torch.device
    dtype: torch.dtype

    def place(self, model: nn.Module) -> nn.Module:
        """The model in evaluation mode on this device, in this dtype, channels last."""
        model = model.eval().requires_grad_(False)
        # nn.Module.to has no overload that takes all three.
        return model.to(self.device, self.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def choose_runtime(device: str = "auto", dtype: str = "auto") -> Runtime:
    """Resolves ``auto``.

    Args:
        device: "auto" (CUDA, else MPS, else CPU) or a torch device name.
        dtype: "auto" or a key of ``DTYPES``.

    Raises:
        DeviceError: the device is not there or does not know the dtype.
        UsageError: there is no such dtype.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise UsageError(
            f"no such dtype: {dtype!r}", hint=f"use auto or one of {', '.join(DTYPES)}"
        )
    chosen = _known_device(_best_device() if device == "auto" else device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError("no CUDA device is available", hint="try --device cpu")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("no MPS device is available", hint="try --device cpu")
    if dtype == "float16" and chosen.type == "cpu":
        raise DeviceError("float16 is not for the CPU", hint="try --dtype bfloat16 or float32")
    _check_answers(chosen)
    known = _best_dtype(chosen) if dtype == "auto" else DTYPES[dtype]
    if chosen.type == "cuda":
        # Left alone, CUDA's convolutions round float32 to the ten bits of TF32.
        torch.backends.cudnn.allow_tf32 = False
    return Runtime(device=chosen, dtype=known)


def _known_device(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"no such device: {name!r}", hint="try --device cpu") from error


def _check_answers(device: torch.device) -> None:
    """Raises DeviceError unless numbers can be put on a device and taken off again: torch has names
    of devices that it was not built for, that are not in this machine, and that compute nothing."""
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise DeviceError(f"device {device} cannot be used", hint="try --device cpu") from error


class Batches:
    """Work in batches, which are halved where memory runs out, and stay so.

    Args:
        size: most items of a batch.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def run(
        self, items: range, work: Callable[[range], T], refusal: Callable[[], DeviceError]
    ) -> Iterator[T]:
        """The results of batches of about one size, in order.

        Raises:
            DeviceError: ``refusal()``, where a single item does not fit.
        """
        while items:
            batch = items[: math.ceil(len(items) / math.ceil(len(items) / self.size))]
            try:
                result = work(batch)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                is_told = "can't allocate memory" in str(error)  # by a CPU's allocator
                if not (is_told or isinstance(error, torch.OutOfMemoryError)):
                    raise
                if len(batch) == 1:
                    raise refusal() from error
                self.size //= 2
            else:
                yield result
                items = items[len(batch) :]


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _best_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where it makes convolutions faster than float32, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu" and _bfloat16_speedup() > _WORTH_ROUNDING:
        return torch.bfloat16
    return torch.float32


_WORTH_ROUNDING = 1.25
"""How many times faster bfloat16 must be; AMX makes it 4 or more, AVX512 nearly 2, emulation less
than 1."""
_ROUNDS = 12


@cache
@torch.inference_mode()
def _bfloat16_speedup() -> float:
    """Seconds of a small convolution in float32 over those in bfloat16, measured on the CPU once a
    process. A processor's list of features does not tell: some have the instructions in name, and
    the library may have been told not to use them.

    The shortest of some runs in turn, each on one thread: on several, a run waits for the thread
    that a busy machine lets wait, and the verdict, with it every pixel, would turn by chance.
    """
    dtypes = (torch.float32, torch.bfloat16)
    maps = [_channels_last(1, 64, 32, 32, dtype=dtype) for dtype in dtypes]
    weights = [_channels_last(64, 64, 3, 3, dtype=dtype) for dtype in dtypes]
    seconds: list[list[float]] = [[], []]
    with _one_thread():
        for _ in range(_ROUNDS + 1):
            for x, weight, taken in zip(maps, weights, seconds, strict=True):
                started = time.perf_counter()
                F.conv2d(x, weight, padding=1)
                taken.append(time.perf_counter() - started)
    slow, fast = (min(taken[1:]) for taken in seconds)
    return slow / fast


@contextmanager
def _one_thread() -> Iterator[None]:
    """Operations run on the calling thread alone within it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _channels_last(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(shape, dtype=dtype).to(memory_format=torch.channels_last)
