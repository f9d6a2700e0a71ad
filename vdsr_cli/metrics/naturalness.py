"""BRISQUE and NIQE: how far a picture's local statistics are from those of natural photographs.

No ground truth is looked at. Both describe, at two scales, the grey picture's locally normalised
values and the products of neighbours by generalised Gaussians (36 numbers):

    grey ─► (x - mean) / (deviation + 1) ─► fits of x and of x times its 4 neighbours ─► 18 numbers
      └─► reduced by 2 ─► the same ─► 18 more

BRISQUE (Mittal et al. 2012) puts the whole picture's numbers into a support vector regression;
NIQE (Mittal et al. 2013) compares their distribution over blocks with that of pristine pictures.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor

from vdsr_cli.consistency import degrade
from vdsr_cli.errors import WeightsError

_NEIGHBOURS: Final = ((0, 1), (1, 0), (1, 1), (1, -1))
_FEATURES: Final = 36
NIQE_BLOCK_PX: Final = 96


def _gamma(x: Tensor) -> Tensor:
    return torch.lgamma(x).exp()


class Brisque:
    """BRISQUE: about 0 (natural) to 100.

    Args:
        model, scaling: the authors' libsvm files ``allmodel`` and ``allrange``.

    Raises:
        WeightsError: files that hold something else.
    """

    def __init__(self, model: Path, scaling: Path) -> None:
        try:
            facts, vectors = _read_libsvm(model.read_text())
            self.gamma, self.rho = float(facts["gamma"]), float(facts["rho"])
            self.coefficients, self.vectors = vectors[:, 0], vectors[:, 1:]
            lines = [line.split() for line in scaling.read_text().splitlines()[2:]]
            ranges = torch.tensor([[float(n) for n in line[1:]] for line in lines if line])
            self.low, self.high = ranges.double().unbind(1)
            if len(self.low) != _FEATURES:
                raise ValueError("other features")
        except (OSError, UnicodeDecodeError, LookupError, ValueError) as error:
            raise WeightsError(f"{model}: not BRISQUE's model ({error})") from error

    def __call__(self, pixels: Tensor) -> float | None:
        """The score of a uint8 (3, H, W) picture; None for one without any texture."""
        parts = []
        for plane in _two_scales(grey_levels(pixels)):
            values = normalised(plane, edges="constant")
            spread, shape = _fit_symmetric(values.flatten())
            fits = [_fit(p.flatten().unsqueeze(0)) for p in _products(values)]
            parts += [torch.stack([shape, spread]), *(_squared(fit)[0] for fit in fits)]
        features = torch.cat(parts)
        scaled = -1 + 2 * (features - self.low) / (self.high - self.low)
        distances = (self.vectors - scaled).square().sum(1)
        score = float((self.coefficients * torch.exp(-self.gamma * distances)).sum() - self.rho)
        return score if math.isfinite(score) else None


def _read_libsvm(text: str) -> tuple[dict[str, str], Tensor]:
    """The header of a libsvm model, and (vectors, 1 + features): coefficient, then values.

    The file leaves out values that are 0.
    """
    head, _, body = text.partition("SV\n")
    facts = dict(line.split(maxsplit=1) for line in head.splitlines() if " " in line)
    lines = [line.split() for line in body.splitlines() if line.strip()]
    vectors = torch.zeros(len(lines), 1 + _FEATURES, dtype=torch.float64)
    for row, (coefficient, *entries) in zip(vectors, lines, strict=True):
        row[0] = float(coefficient)
        for entry in entries:
            index, _, value = entry.partition(":")
            row[int(index)] = float(value)
    return facts, vectors


class Niqe:
    """NIQE: about 3 (natural) upwards. Pictures with a block of 96x96 or more.

    Args:
        prior: npz or safetensors with ``mu_pris_param`` (1, 36) and ``cov_pris_param`` (36, 36).

    Raises:
        WeightsError: a file that holds something else.
    """

    def __init__(self, prior: Path) -> None:
        try:
            arrays = load_file(prior) if prior.suffix == ".safetensors" else _read_npz(prior)
            self.mean = torch.from_numpy(arrays["mu_pris_param"]).double().view(_FEATURES)
            self.covariance = torch.from_numpy(arrays["cov_pris_param"]).double()
        except (OSError, LookupError, ValueError, RuntimeError, SafetensorError) as error:
            raise WeightsError(f"{prior}: not NIQE's prior ({error})") from error

    def __call__(self, pixels: Tensor) -> float | None:
        """The score of a uint8 (3, H, W) picture; None for fewer than 2 blocks with texture."""
        grey = grey_levels(pixels)
        rows, columns = (side // NIQE_BLOCK_PX for side in grey.shape)
        grey = grey[: rows * NIQE_BLOCK_PX, : columns * NIQE_BLOCK_PX]
        sizes = (NIQE_BLOCK_PX, NIQE_BLOCK_PX // 2)
        planes = zip(_two_scales(grey), sizes, strict=True)
        if rows * columns == 0:
            return None
        features = torch.cat([_block_features(plane, size) for plane, size in planes], 1)
        known = features[~features.isnan().any(1)]
        if len(known) < 2:
            return None
        difference = self.mean - features.nanmean(0)
        pooled = (self.covariance + torch.cov(known.T)) / 2
        return float((difference @ torch.linalg.pinv(pooled) @ difference).sqrt())


def _read_npz(path: Path) -> dict[str, NDArray[np.float64]]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _block_features(plane: Tensor, size: int) -> Tensor:
    """(blocks, 18) of the blocks of one scale."""
    values = (
        normalised(plane, edges="replicate")
        .unfold(0, size, size)
        .unfold(1, size, size)
        .flatten(0, 1)
    )
    shape, _, left, right = _fit(values.flatten(1)).unbind(1)
    parts = [torch.stack([shape, (left + right) / 2], 1)]
    parts += [_fit(products.flatten(1)) for products in _products(values)]
    return torch.cat(parts, 1)


def _two_scales(grey: Tensor) -> Iterator[Tensor]:
    """The plane (H, W), and the same reduced by 2."""
    yield grey
    height, width = (side // 2 * 2 for side in grey.shape)
    yield degrade(grey[:height, :width].view(1, 1, height, width), 2)[0, 0]


def grey_levels(pixels: Tensor) -> Tensor:
    """Grey as MATLAB has it, in whole levels: uint8 (3, H, W) -> float64 (H, W)."""
    weights = torch.tensor([0.2989, 0.5870, 0.1140], dtype=torch.float64)
    levels: Tensor = torch.tensordot(weights, pixels.double(), dims=1)
    return levels.add(0.5).floor()


def normalised(plane: Tensor, *, edges: Literal["constant", "replicate"]) -> Tensor:
    """Values less their local mean, over their local deviation: (H, W) float64 -> (H, W).

    Beyond the ``edges`` the authors' codes take zeros for BRISQUE, the edge's pixels for NIQE.
    """
    position = torch.arange(7, dtype=torch.float64) - 3
    taps = torch.exp(-(position**2) / (2 * (7 / 6) ** 2))
    taps /= taps.sum()
    mean, square = (_smoothed(x, taps, edges) for x in (plane, plane * plane))
    return (plane - mean) / ((square - mean * mean).abs().sqrt() + 1)


def _smoothed(plane: Tensor, taps: Tensor, edges: str) -> Tensor:
    """Both axes filtered."""
    pad = len(taps) // 2
    padded = F.pad(plane.view(1, 1, *plane.shape), (pad,) * 4, mode=edges)[0, 0]
    for axis in (0, 1):
        length = padded.shape[axis] - 2 * pad
        shifted = [padded.narrow(axis, k, length) * tap for k, tap in enumerate(taps.tolist())]
        padded = torch.stack(shifted).sum(0)
    return padded


def _products(values: Tensor) -> Iterator[Tensor]:
    """Each value times its neighbour in four directions, wrapping around: (..., H, W)."""
    for shift in _NEIGHBOURS:
        yield values * values.roll(shift, (-2, -1))


def _shapes() -> Tensor:
    return torch.arange(200, 10001, dtype=torch.float64) / 1000


def _fit(values: Tensor) -> Tensor:
    """Asymmetric generalised Gaussians by moment matching: (n, values) -> (n, 4).

    The columns: shape, mean, left scale, right scale.
    """
    left = _root_mean_square(values, values < 0)
    right = _root_mean_square(values, values > 0)
    ratio = left / right
    crest = values.abs().mean(1).square() / values.square().mean(1)
    crest = crest * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1).square()
    shapes = _shapes()
    expected = _gamma(2 / shapes).square() / (_gamma(1 / shapes) * _gamma(3 / shapes))
    shape = shapes[(expected - crest.unsqueeze(1)).square().argmin(1)]
    factor = (_gamma(1 / shape) / _gamma(3 / shape)).sqrt()
    mean = (right - left) * factor * _gamma(2 / shape) / _gamma(1 / shape)
    return torch.stack([shape, mean, left * factor, right * factor], 1)


def _root_mean_square(values: Tensor, mask: Tensor) -> Tensor:
    return ((values.square() * mask).sum(1) / mask.sum(1)).sqrt()


def _squared(fit: Tensor) -> Tensor:
    """BRISQUE's form of a fit: variances of the two sides in place of their scales."""
    shape, mean, left, right = fit.unbind(1)
    factor = (_gamma(3 / shape) / _gamma(1 / shape)).sqrt()
    return torch.stack([shape, mean, (left * factor) ** 2, (right * factor) ** 2], 1)


def _fit_symmetric(values: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and shape of a generalised Gaussian, of (values,)."""
    variance = values.square().mean()
    shapes = _shapes()
    expected = _gamma(1 / shapes) * _gamma(3 / shapes) / _gamma(2 / shapes).square()
    crest = variance / values.abs().mean().square()
    return variance, shapes[(expected - crest).abs().argmin()]
