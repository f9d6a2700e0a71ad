"""Fits the classifier of ``--model auto`` to photographs of your own.

    python tools/fit_input_kind.py PHOTOGRAPHS... [--every 1] [--out FILE]

Each photograph is made into clean and degraded pictures of random strength, other ones than the
twenty of ``benchmarks/input_kinds.py``; what ``vdsr_cli/inspection/estimates.py`` measures of them
goes into a network of one hidden layer with an output for each cause: compression, noise, blur.
Writes ``vdsr_cli/inspection/classifier.json``. The same photographs give the same file.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from input_kinds import (
    Levels,
    Rng,
    blurred,
    camera,
    decoded,
    drawing,
    jpeg,
    noisy,
    reduced,
    resized,
    screenshot,
)

from vdsr_cli.inspection import estimate
from vdsr_cli.inspection import verdict as decision

CLASSIFIER = Path(decision.__file__).with_name(decision.CLASSIFIER)
Labels = tuple[int, int, int]
CLEAN, COMPRESSED, NOISY, BLURRED = (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)
HIDDEN = 12
STEPS = 3000
METHODS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def webp(pixels: Levels, quality: float) -> Levels:
    """The pixels of a lossy WebP file."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=round(quality))
    return decoded(file.getvalue())


def exposed(photo: Levels, rng: Rng) -> Levels:
    """As it is, or on every fourth occasion dark as at night, and on every tenth in grey."""
    if rng.random() < 0.25:
        photo = (photo * rng.uniform(0.08, 0.6)).round().astype(np.uint8)
    if rng.random() < 0.1:
        photo = np.array(Image.fromarray(photo).convert("L").convert("RGB"))
    return photo


class Maker:
    """The pictures made of one photograph: clean ones and degraded ones, with their causes."""

    def __init__(self, photo: Levels, rng: Rng) -> None:
        self.photo, self.rng, self.lr = photo, rng, reduced(photo)

    def __iter__(self) -> Iterator[tuple[str, Levels, Labels]]:
        yield from self._clean()
        yield from self._compressed()
        yield from self._noisy()
        yield from self._drawn()

    def _number(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def _jpeg(self, pixels: Levels, low: float, high: float) -> Levels:
        quality = round(self._number(low, high))
        return decoded(jpeg(pixels, quality, subsampling=int(self.rng.choice((0, 2)))))

    def _source(self) -> Levels:
        """The LR picture, another reduction, a screenshot now and then, or a part of it."""
        draw = self.rng.random()
        if draw < 0.5:
            return self.lr
        if draw < 0.85:
            return resized(self.photo, self._number(0.25, 0.6), METHODS[int(self.rng.integers(3))])
        return screenshot(self.photo, self.rng) if draw < 0.9 else camera(self.photo)

    def _small(self) -> Levels:
        """A source that is not softer than a reduced picture."""
        return self.lr if self.rng.random() < 0.7 else resized(self.photo, self._number(0.2, 0.4))

    def _resized(self, pixels: Levels) -> Levels:
        method = METHODS[int(self.rng.integers(3))]
        return resized(pixels, self._number(0.7, 1.6), method)

    def _clean(self) -> Iterator[tuple[str, Levels, Labels]]:
        full = camera(self.photo)
        soft = blurred(full, self._number(0.2, 0.7))
        is_grey = self.rng.random() < 0.5
        yield "reduced", self.lr, CLEAN
        yield "another reduction", self._small(), CLEAN
        yield "camera", full, CLEAN
        yield "soft camera", noisy(soft, self._number(0.3, 1.5), self.rng), CLEAN
        grain = noisy(full, self._number(0.5, 1.8), self.rng, is_grey=is_grey)
        yield "camera's grain", grain, CLEAN
        yield "camera's JPEG", self._jpeg(grain if is_grey else full, 91, 98), CLEAN
        yield "screenshot", screenshot(self.photo, self.rng), CLEAN
        yield "little noise", noisy(self.lr, self._number(0.5, 2.2), self.rng), CLEAN
        yield "little compression", self._jpeg(self.lr, 89, 98), CLEAN

    def _compressed(self) -> Iterator[tuple[str, Levels, Labels]]:
        yield "JPEG", self._jpeg(self._source(), 15, 80), COMPRESSED
        yield "milder JPEG", (self._jpeg(self._small(), 50, 82)), COMPRESSED
        yield "WebP", webp(self._small(), self._number(5, 50)), COMPRESSED
        for name in ("JPEG, resized", "JPEG, resized again"):
            again = self._resized(self._jpeg(self._small(), 20, 65))
            yield name, again, COMPRESSED
        again = self._resized(self._jpeg(self._small(), 20, 65))
        yield "JPEG, resized, JPEG", self._jpeg(again, 88, 97), COMPRESSED

    def _noisy(self) -> Iterator[tuple[str, Levels, Labels]]:
        is_grey = self.rng.random() < 0.4
        mild = noisy(self._source(), self._number(4, 10), self.rng, is_grey=is_grey)
        yield "noise", mild, NOISY
        yield "colour noise", noisy(self._small(), self._number(4, 7), self.rng), NOISY
        yield "much noise", noisy(self._source(), self._number(8, 30), self.rng), NOISY
        strong = noisy(self._source(), self._number(5, 15), self.rng)
        yield "noise, JPEG", (self._jpeg(strong, 35, 80)), (1, 1, 0)
        soft = blurred(self._small(), self._number(0.8, 1.8))
        both = noisy(soft, self._number(3, 8), self.rng)
        yield "blur, noise, JPEG", (self._jpeg(both, 45, 75)), (1, 1, 1)
        yield "blur", blurred(self._small(), self._number(1.5, 3)), BLURRED

    def _drawn(self) -> Iterator[tuple[str, Levels, Labels]]:
        """Drawings: the same faults, and the same lack of them."""
        for name in ("drawing", "another drawing"):
            yield name, drawing(self.rng), CLEAN
        yield "drawing's fine JPEG", self._jpeg(drawing(self.rng), 92, 100), CLEAN
        yield "drawing's JPEG", self._jpeg(drawing(self.rng), 15, 75), COMPRESSED
        yield "noisy drawing", noisy(drawing(self.rng), self._number(4, 20), self.rng), NOISY
        shot = screenshot(self.photo, self.rng)
        yield "screenshot's fine JPEG", self._jpeg(shot, 92, 100), CLEAN
        yield "screenshot's JPEG", self._jpeg(shot, 15, 75), COMPRESSED


def measured(paths: list[Path]) -> tuple[list[str], Tensor, Tensor]:
    """The name, the features and the labels of every picture that is made of the photographs."""
    names, features, labels = [], [], []
    for index, path in enumerate(paths):
        rng = np.random.default_rng(index)
        photo = exposed(np.array(Image.open(path).convert("RGB")), rng)
        for name, pixels, causes in Maker(photo, rng):
            estimates = estimate(torch.from_numpy(pixels).permute(2, 0, 1) / 255)
            if estimates is not None:
                names.append(name)
                features.append(estimates.features)
                labels.append(causes)
    return names, torch.tensor(features), torch.tensor(labels, dtype=torch.float32)


def fit(features: Tensor, labels: Tensor) -> tuple[nn.Sequential, Tensor, Tensor]:
    """The network, and the mean and the deviation that its features are normalised by."""
    torch.manual_seed(0)
    mean, std = features.mean(0), features.std(0) + 1e-3
    x = (features - mean) / std
    network = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 3))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=3e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        seen = x + 0.15 * torch.randn_like(x)
        loss = F.binary_cross_entropy_with_logits(network(seen), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False), mean, std


def as_json(network: nn.Sequential, mean: Tensor, std: Tensor) -> dict[str, Any]:
    """The numbers, the normalisation taken into the first layer."""
    first, _, last = network
    weight = first.weight / std

    def rounded(values: Tensor) -> Any:
        return (
            [float(f"{v:.5g}") for v in values]
            if values.dim() == 1
            else [rounded(row) for row in values]
        )

    return {
        "hidden": {"weight": rounded(weight), "bias": rounded(first.bias - weight @ mean)},
        "output": {"weight": rounded(last.weight), "bias": rounded(last.bias)},
    }


def report(names: list[str], outputs: Tensor, labels: Tensor) -> None:
    """Prints the share of right decisions by kind."""
    is_right = (outputs.amax(1) > 0) == (labels.amax(1) > 0)
    kinds = defaultdict(list)
    for name, right in zip(names, is_right.tolist(), strict=True):
        kinds[name].append(right)
    for name, rights in kinds.items():
        print(f"{name:24} {np.mean(rights):6.1%} of {len(rights)}")
    print(f"{'all':24} {is_right.float().mean():6.1%}")


def main() -> None:
    """Parses, measures, fits, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", help="of photographs")
    parser.add_argument("--every", type=int, default=1, help="take every n-th photograph")
    parser.add_argument("--out", type=Path, default=CLASSIFIER)
    parser.add_argument("--cache", type=Path, help="keep the measurements in this file")
    options = parser.parse_args()
    paths = [path for folder in options.folders for path in sorted(folder.iterdir())]
    if options.cache and options.cache.exists():
        names, features, labels = torch.load(options.cache)
    else:
        names, features, labels = measured(paths[:: options.every])
        if options.cache:
            torch.save((names, features, labels), options.cache)
    network, mean, std = fit(features, labels)
    options.out.write_text(json.dumps(as_json(network, mean, std)) + "\n", encoding="utf-8")
    report(names, network((features - mean) / std), labels)


if __name__ == "__main__":
    main()
