"""The worst pictures, looked at: crops of every method side by side where the first errs most."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

import torch.nn.functional as F
from torch import Tensor

from vdsr_cli.bench.data import Scene
from vdsr_cli.bench.methods import Bicubic, Method
from vdsr_cli.bench.report import label_of
from vdsr_cli.errors import InputError
from vdsr_cli.figures.contact_sheet import Entry

SIDE_PX = 96


def worst_place(sr: Tensor, hr: Tensor, side: int = SIDE_PX) -> tuple[int, int]:
    """Row and column of the square of ``side`` pixels with the largest absolute error."""
    error = (sr.float() - hr.float()).abs().mean(0, keepdim=True).unsqueeze(0)
    height, width = min(side, hr.shape[1]), min(side, hr.shape[2])
    sums = F.avg_pool2d(error, (height, width), stride=1)[0, 0]
    return divmod(int(sums.argmax()), sums.shape[1])


def worst_crops(dataset: str, scene: Scene, methods: Sequence[Method]) -> list[Entry]:
    """Bicubic, each method's first sample, and HR, cropped where the first method errs most."""
    drawn = dict(_first_samples(dataset, scene, methods))
    baseline = Bicubic().draw(dataset, scene).samples[0]
    top, left = worst_place(next(iter(drawn.values()), baseline), scene.hr)
    lower, right = top + SIDE_PX, left + SIDE_PX
    pictures = {"bicubic": baseline, **drawn, "HR": scene.hr}
    return [
        Entry(label=label, rgb=pixels[:, top:lower, left:right].permute(1, 2, 0).numpy())
        for label, pixels in pictures.items()
    ]


def _first_samples(
    dataset: str, scene: Scene, methods: Sequence[Method]
) -> Iterator[tuple[str, Tensor]]:
    """By label; a folder that lacks the picture has said so before."""
    for method in methods:
        with suppress(InputError):
            label = label_of(method.name, method.temperature)
            yield label, method.draw(dataset, scene).samples[0]
