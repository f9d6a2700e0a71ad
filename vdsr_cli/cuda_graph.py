"""Work on a GPU that is recorded once and replayed: CUDA graphs.

A small network's kernels are shorter than their launches. Recorded, they follow each other
without the processor; the arithmetic is the same.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
_TRIES = 3
"""Runs before the recording, in which libraries choose their kernels and claim their memory."""


class CudaGraph(Generic[T]):
    """``work(*inputs)`` as one CUDA graph, for inputs of the shapes that it is recorded with.

    The work must not wait for the device, nor do anything on the processor that is to be done each
    time. What it returns is overwritten by the next call, and by those of other graphs that share
    its memory.

    Args:
        work: what to record; called a few times.
        inputs: what to record it with, all on one CUDA device.
        memory: a pool to share with graphs that do not overlap; None for one of its own.
    """

    def __init__(
        self,
        work: Callable[..., T],
        inputs: Sequence[Tensor],
        *,
        memory: tuple[int, int] | None = None,
    ) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        with torch.cuda.device(inputs[0].device):  # streams and graphs are of the current one
            self._record(work, memory)

    def _record(self, work: Callable[..., T], memory: tuple[int, int] | None) -> None:
        side_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side_stream):
            for _ in range(_TRIES):
                work(*self._inputs)
        torch.cuda.current_stream().wait_stream(side_stream)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads, which copy finished rows, may go on meanwhile.
        with torch.cuda.graph(self._graph, pool=memory, capture_error_mode="thread_local"):  # type: ignore[arg-type]
            self._result = work(*self._inputs)

    def __call__(self, inputs: Sequence[Tensor]) -> T:
        """The work's result for other inputs of the same shapes."""
        torch._foreach_copy_(self._inputs, list(inputs))
        self._graph.replay()
        return self._result
