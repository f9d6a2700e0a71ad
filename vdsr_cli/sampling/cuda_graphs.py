"""A model's samples by CUDA graphs, where its kernels are shorter than their launches."""

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from vdsr_cli.config import Temperature
from vdsr_cli.cuda_graph import CudaGraph
from vdsr_cli.models.protocol import NoiseSource, Sampler

MOST_PIXELS: Final = 32 * 64 * 64
"""LR pixels times samples of a batch, above which launches are hidden behind kernels."""
_FIRST_SEEN: Final = 2
"""How often a batch of one kind is sampled as it comes; recording costs some samples more."""
_HELD: Final = 8
"""Kinds of batches held of a model, those that were used last."""

_Kind = tuple[torch.Size, int, Temperature, bool]


def sample(
    model: Sampler,
    lr: Tensor,
    noise: NoiseSource | None,
    temperature: Temperature,
    *,
    repeats: int,
    means_only: bool = False,
) -> Tensor:
    """``model.sample`` or ``model.means`` by the quickest way; one thread at a time samples of one
    model."""
    draw = model.means if means_only else model.sample
    if not (lr.is_cuda and isinstance(model, nn.Module) and _is_small(lr, repeats)):
        return draw(lr, noise, temperature, repeats=repeats)
    if any(parameter.requires_grad for parameter in model.parameters()):
        return draw(lr, noise, temperature, repeats=repeats)
    kind = lr.shape, repeats, 0.0 if noise is None else temperature, means_only
    drawn = [] if noise is None else [noise(shape) for shape in model.latent_shapes]

    def work(lr: Tensor, *drawn: Tensor) -> Tensor:
        source = (lambda shape: drawn[shape.layer]) if drawn else None
        return draw(lr, source, temperature, repeats=repeats)

    return _GRAPHS.setdefault(model, _Graphs()).run(kind, work, (lr, *drawn))


def _is_small(lr: Tensor, repeats: int) -> bool:
    return lr.shape[0] * lr.shape[2] * lr.shape[3] * repeats <= MOST_PIXELS


class _Graphs:
    """The recordings of one model; they share their memory, and so their results are copied."""

    def __init__(self) -> None:
        self._seen: Counter[_Kind] = Counter()
        self._held: OrderedDict[_Kind, CudaGraph[Tensor]] = OrderedDict()
        self._memory = torch.cuda.graph_pool_handle()

    def run(self, kind: _Kind, work: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
        """``work(*inputs)``, recorded when its kind comes again and again."""
        if kind not in self._held:
            self._seen[kind] += 1
            if self._seen[kind] <= _FIRST_SEEN:
                return work(*inputs)
            if len(self._held) == _HELD:
                self._held.popitem(last=False)
            self._held[kind] = CudaGraph(work, inputs, memory=self._memory)
        self._held.move_to_end(kind)
        return self._held[kind](inputs).clone()


_GRAPHS: WeakKeyDictionary[nn.Module, _Graphs] = WeakKeyDictionary()
