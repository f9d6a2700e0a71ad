"""The processes of one run: torch.distributed, as torchrun starts it, or a single process.

A run of W processes with batch B is the run of one process with batch W * B: every process draws
the whole batch's random numbers, takes its share of the rows, and averages gradients.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from vdsr_cli.errors import DeviceError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among its peers.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and talks."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """This process's rows of (B * size, ...): (B, ...)."""
        count = rows.shape[0] // self.size
        return rows[self.rank * count : (self.rank + 1) * count]

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replaces every gradient by its mean over the processes, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, averaged in zip(gradients, parts, strict=True):
            gradient.copy_(averaged.view(gradient.shape))

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total.div_(self.size)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process; all processes must ask."""
        if self.size == 1:
            return flag
        return bool(self.mean(torch.tensor(float(flag), device=device)) > 0)

    def wait(self) -> None:
        """Waits until all processes are here."""
        if self.size > 1:
            dist.barrier()


def join_world(device: str) -> tuple[World, str]:
    """Joins the processes that torchrun started; returns this one's place and its device's name.

    Without torchrun's environment: one process, and the device as given. "cuda" becomes the
    process's own card.

    Raises:
        DeviceError: the processes do not find each other.
        UsageError: a device for all of them.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(), device
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device {device} is one device, and each process of torchrun has its own",
            hint="--device cuda gives each its card",
        )
    on_cards = device in ("cuda", "auto") and torch.cuda.is_available()
    own = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_cards else "cpu"
    if on_cards:
        torch.cuda.set_device(own)
    if not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if on_cards else "gloo")
        except (RuntimeError, ValueError) as error:
            raise DeviceError(f"the processes of torchrun do not meet: {error}") from error
    return World(rank=dist.get_rank(), size=size), own


def leave_world() -> None:
    """Ends what :func:`join_world` began."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
