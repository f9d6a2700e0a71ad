"""FID of the rows of a dataset: each method's pictures, as one set, against the HR pictures."""

import torch
from torch import Tensor

from vdsr_cli.bench.data import Scene
from vdsr_cli.config import Temperature
from vdsr_cli.metrics import FEWEST_PICTURES, InceptionFeatures, frechet_distance

RowKey = tuple[str, Temperature | None, int | None]
"""Method, temperature and seed."""


class SetFeatures:
    """Collects the features of a dataset's pictures, of HR and by row.

    Args:
        inception: None collects nothing, and there are no scores.
    """

    def __init__(self, inception: InceptionFeatures | None) -> None:
        self.inception = inception
        self.hr: dict[str, Tensor] = {}
        self.rows: dict[RowKey, list[Tensor]] = {}

    def add(self, row: RowKey, scene: Scene, samples: Tensor) -> None:
        """Takes the samples of one scene, uint8 (k, 3, H, W)."""
        if self.inception is None:
            return
        if scene.name not in self.hr:
            self.hr[scene.name] = self.inception(scene.hr)
        self.rows.setdefault(row, []).extend(self.inception(sr) for sr in samples)

    def scores(self) -> dict[RowKey, float]:
        """FID by row; none of fewer than 50 pictures."""
        if len(self.hr) < FEWEST_PICTURES:
            return {}
        hr = torch.stack(list(self.hr.values()))
        return {
            row: frechet_distance(torch.stack(features), hr)
            for row, features in self.rows.items()
            if len(features) >= FEWEST_PICTURES
        }
