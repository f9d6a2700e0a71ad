"""Figures and pictures of a model at work, for the log and the eye.

Scores are of whole pictures by the product's conventions: PSNR-Y and, where its weights are given,
LPIPS, at temperature 0 and at 0.8; and the objective's bits per dimension on fixed crops.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.images import save_levels, writing_to
from vdsr_cli.images.levels import to_levels
from vdsr_cli.metrics import LPIPS, mean_psnr, psnr_y
from vdsr_cli.models.protocol import LatentShape, Prior, Sampler
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.engine import SamplingSettings, sample_strips
from vdsr_cli.training.config import Row
from vdsr_cli.training.data import CropSpec, PictureStore
from vdsr_cli.training.objectives import objective_of, to_unit_range

SAMPLE_TEMPERATURE = 0.8
GRID_ROWS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A picture to be scored: hr (3, H, W) and lr (3, h, w), uint8."""

    hr: Tensor
    lr: Tensor


def pairs_of(store: PictureStore, limit: int) -> list[Pair]:
    """The first ``limit`` whole pictures of a store."""
    pairs = []
    for index in range(min(limit, len(store.sizes))):
        height, width = (int(side) for side in store.sizes[index])
        start, pixels, scale = int(store.offsets[index]), height * width, store.scale
        lr = store.lr[start : start + pixels].view(height, width, 3)
        area = scale**2
        hr = store.hr[start * area : (start + pixels) * area]
        hr = hr.view(height * scale, width * scale, 3)
        pairs.append(Pair(hr=hr.permute(2, 0, 1).cpu(), lr=lr.permute(2, 0, 1).cpu()))
    return pairs


class Validator:
    """Scores and draws a model; called with it (averaged weights inside) and the step.

    Args:
        spec: crops for the bits per dimension and for the grid of samples.
        folder: where ``samples/STEP.png`` go; None for none.
        limit: how many pictures are scored; with 0 it only draws.
        kl: how the objective adds up CVDVAE's layers.
    """

    def __init__(
        self,
        store: PictureStore,
        spec: CropSpec,
        folder: Path | None,
        *,
        device: torch.device,
        compute: torch.dtype,
        lpips: LPIPS | None = None,
        limit: int = 16,
        kl: str = "sum",
    ) -> None:
        self.folder, self.device, self.compute, self.lpips = folder, device, compute, lpips
        self.kl = kl
        self.pairs = pairs_of(store, limit)
        hr, lr = store.batch(spec, torch.Generator().manual_seed(0))
        self.hr, self.lr = hr.to(device), lr.to(device)

    @torch.no_grad()
    def __call__(self, model: nn.Module, step: int) -> Row:
        """The figures: ``val_bits``, ``val_loss`` and, of a model that upscales, ``val_psnr_y`` and
        perhaps ``val_lpips``, at 0.8 with ``_sample`` behind; draws the grid."""
        was_training = model.training
        model.eval()
        with torch.autocast(
            self.device.type, dtype=self.compute, enabled=self.compute != torch.float32
        ):
            row = self._losses(model) if self.pairs else {}
            if self.pairs and model_upscales(model):
                row |= self._scores(model)
            is_drawn = model_upscales(model) or isinstance(model, Prior)
            if self.folder is not None and is_drawn:
                save_grid(self.grid(model), self.folder / "samples" / f"{step:07d}.png")
        model.train(was_training)
        return row

    def _losses(self, model: nn.Module) -> Row:
        objective = objective_of(model, kl=self.kl)
        batch, _, *sides = self.hr.shape
        losses = objective(model, self.hr, self.lr, fixed_noise(batch, sides, self.device), 0.0)
        bits = float(losses.distortion + losses.rate)
        return {"val_bits": bits, "val_loss": float(losses.loss)}

    def _scores(self, model: Any) -> Row:
        found: dict[str, list[float]] = {}
        for pair in self.pairs:
            for suffix, temperature in (("", 0.0), ("_sample", SAMPLE_TEMPERATURE)):
                sr = self.upscaled(model, pair.lr, temperature)
                found.setdefault(f"val_psnr_y{suffix}", []).append(
                    psnr_y(sr, pair.hr, shave=model.scale)
                )
                if self.lpips is not None:
                    found.setdefault(f"val_lpips{suffix}", []).append(self.lpips(sr, pair.hr))
        pools = {name: mean_psnr if "psnr" in name else fmean for name in found}
        return {name: pools[name](scores) for name, scores in found.items()}

    def upscaled(self, model: Any, lr: Tensor, temperature: float) -> Tensor:
        """A whole picture at once, or tile by tile where the model knows one size: (3, h, w) uint8
        -> (3, H, W) uint8 on the CPU."""
        if model.fixed_tile is not None:
            settings = SamplingSettings(temperature=temperature)
            runtime = Runtime(device=self.device, dtype=torch.float32)
            strips = sample_strips(model, to_unit_range(lr), settings, runtime)
            return to_levels(torch.cat([strip.pixels[0] for strip in strips], dim=1)).cpu()
        height, width = lr.shape[1:]
        bottom, right = -height % model.lr_multiple, -width % model.lr_multiple
        padded = F.pad(to_unit_range(lr).unsqueeze(0), (0, right, 0, bottom), mode="replicate")
        size = (padded.shape[2] * model.scale, padded.shape[3] * model.scale)
        noise = fixed_noise(1, size, self.device) if temperature else None
        pixels = model.sample(padded.to(self.device), noise, temperature)[0, :3]
        return _rounded(pixels)[:, : height * model.scale, : width * model.scale].cpu()

    def grid(self, model: Any) -> list[list[Tensor]]:
        """Rows of pictures (3, H, W) uint8: lr, temperature 0, 0.8, hr; of a prior, samples."""
        hr, lr = self.hr[:GRID_ROWS], self.lr[:GRID_ROWS]
        size = (hr.shape[2], hr.shape[3])
        noise = fixed_noise(len(hr), size, self.device)
        if isinstance(model, Prior):
            columns = [
                _rounded(model.pixels(model.sample(len(hr), size, noise, temperature), None))
                for temperature in (0.5, SAMPLE_TEMPERATURE, 1.0)
            ]
        else:
            lr_unit = to_unit_range(lr)
            drawn = [(None, 0.0), (noise, SAMPLE_TEMPERATURE)]
            columns = [F.interpolate(lr, size=size, mode="nearest")]
            drawn_parameters = (model.sample(lr_unit, n, t) for n, t in drawn)
            columns += [_rounded(model.pixels(p, None)) for p in drawn_parameters]
        return [list(row) for row in zip(*columns, hr, strict=True)]


def model_upscales(model: nn.Module) -> bool:
    """Whether a model draws HR pictures of an LR one."""
    return isinstance(model, Sampler)


def fixed_noise(
    batch: int, size: Sequence[int], device: torch.device
) -> Callable[[LatentShape], Tensor]:
    """Standard normals of each layer for pictures of ``size``, the same at every call."""

    def draw(shape: LatentShape) -> Tensor:
        generator = torch.Generator().manual_seed(shape.layer)
        cells = [side // shape.cell for side in size]
        drawn = torch.randn(batch, *cells, shape.channels, generator=generator)
        return drawn.permute(0, 3, 1, 2).to(device)

    return draw


def _rounded(pixels: Tensor) -> Tensor:
    """[-1, 1] -> uint8."""
    return to_levels((pixels.float() + 1) / 2)


def save_grid(rows: Sequence[Sequence[Tensor]], path: Path) -> None:
    """Writes pictures (3, H, W) uint8, all of one size, in rows and columns; raises OutputError."""
    with writing_to(str(path.parent)):
        path.parent.mkdir(parents=True, exist_ok=True)
    whole = torch.cat([torch.cat([p.cpu() for p in row], dim=2) for row in rows], dim=1)
    save_levels(path, whole.permute(1, 2, 0).numpy())
