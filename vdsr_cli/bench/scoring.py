"""Scores of what a method made of a scene, by protocol."""

from torch import Tensor

from vdsr_cli.bench.data import Protocol, Scene, degraded
from vdsr_cli.bench.report import pool_of
from vdsr_cli.config import Edges
from vdsr_cli.metrics import (
    LPIPS,
    average_pairwise,
    mse_unit,
    ntire_diversity,
    psnr_rgb,
    psnr_y,
    ssim_rgb,
    ssim_y,
)
from vdsr_cli.metrics.learned import Learned

Features = list[Tensor]


class Scorer:
    """Scores samples of a scene under a protocol.

    Args:
        protocol: decides on the colour space and the border.
        learned: the metrics that have weights.
        edges: of the reduction that LR-PSNR is scored by, where it is ours.
    """

    def __init__(self, protocol: Protocol, learned: Learned, edges: Edges = Edges.repeat) -> None:
        self.protocol, self.edges = protocol, edges
        self.learned = learned
        self._reference: tuple[Scene, dict[str, Features]] | None = None

    def score(
        self, scene: Scene, samples: Tensor, unprojected: Tensor | None = None
    ) -> dict[str, float]:
        """Scores by column key: means over the samples, uint8 (k, 3, H, W).

        Args:
            unprojected: one sample before the consistency projection, scored as ``lr_psnr_raw``.
        """
        each = [self._fidelity(scene, sr) for sr in samples]
        keys = [key for key in each[0] if all(key in one for one in each)]
        scores = {key: pool_of(key)([one[key] for one in each]) for key in keys}
        scores["lr_psnr_worst"] = min(one["lr_psnr"] for one in each)
        if unprojected is not None:
            scores["lr_psnr_raw"] = self._lr_psnr(scene, unprojected)
        reference = self._features_of(scene)
        for key, metric in self.learned.paired.items():
            features = [metric.features(sr) for sr in samples]
            distances = [metric.distance(f, reference[key]) for f in features]
            scores[key] = sum(distances) / len(distances)
            if self.protocol is Protocol.diverse and key == "lpips_alex":
                scores |= self._perceived_diversity(scene, features)
        if self.protocol is Protocol.diverse:
            scores["apd_mse"] = 1e4 * average_pairwise(list(samples), mse_unit)
        return scores

    def _fidelity(self, scene: Scene, sr: Tensor) -> dict[str, float]:
        shave, hr = self.protocol.shave_px(scene.scale), scene.hr
        scores = {"psnr_rgb": psnr_rgb(sr, hr, shave=shave)}
        if self.protocol is not Protocol.diverse:
            scores["psnr_y"] = psnr_y(sr, hr, shave=shave)
        if self.protocol in (Protocol.standard, Protocol.article):
            scores["ssim_y"] = ssim_y(sr, hr, shave=shave)
        else:
            scores["ssim_rgb"] = ssim_rgb(sr, hr, shave=shave)
        scores["lr_psnr"] = self._lr_psnr(scene, sr)
        unaided = {key: metric(sr) for key, metric in self.learned.unaided.items()}
        return scores | {key: score for key, score in unaided.items() if score is not None}

    def _lr_psnr(self, scene: Scene, sr: Tensor) -> float:
        return psnr_rgb(degraded(sr, self.protocol, scene.scale, self.edges), scene.lr, shave=0)

    def _features_of(self, scene: Scene) -> dict[str, Features]:
        """The HR picture's features, kept for the next method."""
        if self._reference is None or self._reference[0] is not scene:
            paired = self.learned.paired.items()
            self._reference = (scene, {key: metric.features(scene.hr) for key, metric in paired})
        return self._reference[1]

    def _perceived_diversity(self, scene: Scene, features: list[Features]) -> dict[str, float]:
        """Distances among the samples, and what choosing the best place by place would gain."""
        alex = self.learned.paired["lpips_alex"]
        assert isinstance(alex, LPIPS)
        hr, size = self._features_of(scene)["lpips_alex"], (scene.hr.shape[1], scene.hr.shape[2])
        return {
            "apd_lpips": 1e3 * average_pairwise(features, alex.distance),
            "diversity": ntire_diversity([alex.distance_map(f, hr, size) for f in features]),
        }
