"""Scores of what a method made of a scene, by protocol."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from torch import Tensor

from vdsr_cli.errors import WeightsError
from vdsr_cli.metrics import (
    LPIPS,
    Brisque,
    Niqe,
    average_pairwise,
    mse_unit,
    ntire_diversity,
    psnr_rgb,
    psnr_y,
    ssim_rgb,
    ssim_y,
)
from vdsr_cli.metrics.lpips import Features
from vdsr_cli.services.bench_data import Protocol, Scene, degraded

LPIPS_FILES: Final[Mapping[str, str]] = {
    "alex": "lpips_alex.safetensors",
    "squeeze": "lpips_squeeze.safetensors",
}
"""Names in the folder of metric weights, by network."""

BRISQUE_FILES: Final = ("allmodel", "allrange")
"""Names of the authors' two files, in the folder or in ``brisque/`` below it."""

NIQE_FILE: Final = "niqe_pris_params.npz"
"""Name of the prior, in the folder or in ``niqe/`` below it."""

_LEARNED: Final[Mapping[str, str]] = {
    "alex": "LPIPS",
    "squeeze": "LPIPS squeeze",
    "brisque": "BRISQUE",
    "niqe": "NIQE",
}


class Judge:
    """Scores samples of a scene under a protocol.

    Args:
        protocol: decides on the colour space and the border.
        weights: folder with the weights of the learned metrics, or None.
    """

    def __init__(self, protocol: Protocol, weights: Path | None) -> None:
        self.protocol = protocol
        self.weights = weights
        self.nets = {net: LPIPS(path, net) for net, path in find_lpips(weights).items()}
        self.unaided = find_unaided(weights)
        self._reference: tuple[Scene, dict[str, Features]] | None = None

    @property
    def notes(self) -> list[str]:
        """What is not scored, and why."""
        present = {*self.nets, *self.unaided}
        missing = [title for key, title in _LEARNED.items() if key not in present]
        if not missing:
            return []
        reason = "no --metric-weights" if self.weights is None else f"no weights in {self.weights}"
        return [f"not scored, {reason}: {', '.join(missing)}"]

    def score(self, scene: Scene, samples: Tensor) -> dict[str, float]:
        """Scores by column key: means over the samples, uint8 (k, 3, H, W)."""
        each = [self._fidelity(scene, sr) for sr in samples]
        keys = [key for key in each[0] if all(key in one for one in each)]
        scores = {key: sum(one[key] for one in each) / len(each) for key in keys}
        scores["lr_psnr_worst"] = min(one["lr_psnr"] for one in each)
        features = {net: [lpips.features(sr) for sr in samples] for net, lpips in self.nets.items()}
        reference = self._features_of(scene)
        for net, lpips in self.nets.items():
            distances = [lpips.distance(f, reference[net]) for f in features[net]]
            scores[f"lpips_{net}"] = sum(distances) / len(distances)
        if self.protocol is Protocol.diverse:
            scores |= self._diversity(scene, samples, features.get("alex"))
        return scores

    def _fidelity(self, scene: Scene, sr: Tensor) -> dict[str, float]:
        shave, hr = self.protocol.shave_px(scene.scale), scene.hr
        scores = {"psnr_rgb": psnr_rgb(sr, hr, shave=shave)}
        if self.protocol is not Protocol.diverse:
            scores["psnr_y"] = psnr_y(sr, hr, shave=shave)
        if self.protocol is Protocol.standard:
            scores["ssim_y"] = ssim_y(sr, hr, shave=shave)
        else:
            scores["ssim_rgb"] = ssim_rgb(sr, hr, shave=shave)
        again = degraded(sr, self.protocol, scene.scale)
        scores["lr_psnr"] = psnr_rgb(again, scene.lr, shave=0)
        unaided = {key: metric(sr) for key, metric in self.unaided.items()}
        return scores | {key: score for key, score in unaided.items() if score is not None}

    def _features_of(self, scene: Scene) -> dict[str, Features]:
        """The HR picture's features, kept for the next method."""
        if self._reference is None or self._reference[0] is not scene:
            made = {net: lpips.features(scene.hr) for net, lpips in self.nets.items()}
            self._reference = (scene, made)
        return self._reference[1]

    def _diversity(
        self, scene: Scene, samples: Tensor, features: list[Features] | None
    ) -> dict[str, float]:
        scores = {"apd_mse": 1e4 * average_pairwise(list(samples), mse_unit)}
        if features is None:
            return scores
        alex, hr = self.nets["alex"], self._features_of(scene)["alex"]
        size = (scene.hr.shape[1], scene.hr.shape[2])
        scores["apd_lpips"] = 1e3 * average_pairwise(features, alex.distance)
        scores["diversity"] = ntire_diversity([alex.distance_map(f, hr, size) for f in features])
        return scores


def find_lpips(folder: Path | None) -> dict[str, Path]:
    """The LPIPS weights in a folder, by network.

    Raises:
        WeightsError: there is no such folder.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise WeightsError(f"{folder}: there is no such folder of metric weights")
    paths = {net: folder / name for net, name in LPIPS_FILES.items()}
    return {net: path for net, path in paths.items() if path.is_file()}


def find_unaided(folder: Path | None) -> dict[str, Callable[[Tensor], float | None]]:
    """The metrics without ground truth whose files are in a folder, by column key."""
    metrics: dict[str, Callable[[Tensor], float | None]] = {}
    if folder is None:
        return metrics
    model, scaling = (_find(folder, "brisque", name) for name in BRISQUE_FILES)
    if model and scaling:
        metrics["brisque"] = Brisque(model, scaling)
    if prior := _find(folder, "niqe", NIQE_FILE):
        metrics["niqe"] = Niqe(prior)
    return metrics


def _find(folder: Path, below: str, name: str) -> Path | None:
    return next((p for p in (folder / name, folder / below / name) if p.is_file()), None)
