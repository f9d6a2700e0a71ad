"""The training loop of the compact models: one objective, resumable legs.

Every random number of step k comes from generators seeded by (seed, k), so that a run that was
stopped and resumed is the run that was not.
"""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vdsr_cli.models.compact import CompactVDVAESR, LatentShape
from vdsr_cli.training.data import CropSpec, PictureStore
from vdsr_cli.training.schedule import ema_decay_at, learning_rate_factor


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Hyper-parameters of one run.

    Attributes:
        steps: total steps, earlier legs included.
        batch: crops a step.
        lr_size: side of a crop in LR pixels.
        learning_rate: peak of AdamW's rate.
        warmup: steps of linear warm-up.
        cooldown: last steps, in which the rate falls linearly to zero.
        elbo_from: first step of the ELBO; before it the mean path alone is trained, which costs
            less than half and starts the prior near its goal.
        mean_weight: weight of the mean path's L1 on [-1, 1], against an ELBO in bits/dim.
        grad_clip: largest gradient norm.
        skip_above: a step with a larger gradient norm before clipping is skipped (papers' rule).
        ema_decay: decay of the averaged weights, the ones that are used and shipped.
        seed: of crops and posterior noise.
    """

    steps: int
    batch: int = 16
    lr_size: int = 24
    learning_rate: float = 1e-3
    warmup: int = 200
    cooldown: int = 0
    elbo_from: int = 0
    mean_weight: float = 10.0
    grad_clip: float = 1.0
    skip_above: float = math.inf
    ema_decay: float = 0.999
    weight_decay: float = 0.0
    seed: int = 0


@dataclass(slots=True)
class Losses:
    """One step's figures, still on the device: bits per dimension and the mean path's L1."""

    loss: Tensor
    distortion: Tensor
    rate: Tensor
    mean_l1: Tensor


def to_unit_range(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [0, 1]."""
    return pixels.float() / 255


def vdvae_sr_losses(
    model: CompactVDVAESR,
    hr: Tensor,
    lr: Tensor,
    noise: Callable[[LatentShape], Tensor] | None,
    mean_weight: float,
) -> Losses:
    """The objective of VDVAE-SR: the negative ELBO in bits per dimension plus the mean path's L1.

    Args:
        hr: (B, 3, H, W) uint8.
        lr: (B, 3, h, w) uint8.
        noise: posterior noise, or None to train the mean path alone.
    """
    target, lr_unit = to_unit_range(hr) * 2 - 1, to_unit_range(lr)
    if noise is None:
        mean_l1 = (model.mean_path(lr_unit) - target).abs().mean()
        zero = mean_l1.new_zeros(())
        return Losses(mean_weight * mean_l1, zero, zero, mean_l1)
    elbo, mean_path = model.elbo_and_mean(target, lr_unit, noise)
    per_dimension = 1 / (target[0].numel() * math.log(2))
    distortion = elbo.distortion.mean() * per_dimension
    rate = elbo.rate.sum(0).mean() * per_dimension
    mean_l1 = (mean_path - target).abs().mean()
    return Losses(distortion + rate + mean_weight * mean_l1, distortion, rate, mean_l1)


class Trainer:
    """A model, its average and its optimiser at some step; ``run`` advances them.

    Args:
        model: trained in place.
        store: the pictures.
        config: hyper-parameters.
        folder: where ``last.pt`` and ``log.jsonl`` go.
        device: where the model and the pictures are.
        compute: dtype of the convolutions (autocast); moments, KL and likelihood stay float32.
    """

    def __init__(
        self,
        model: CompactVDVAESR,
        store: PictureStore,
        config: TrainConfig,
        folder: Path,
        *,
        device: torch.device,
        compute: torch.dtype = torch.bfloat16,
    ) -> None:
        self.model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.store = store.to(device)
        self.config, self.folder, self.device, self.compute = config, folder, device, compute
        self.ema = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.step = 0
        self.skipped = 0

    def run(
        self, *, save_every: int, log_every: int, on_log: Callable[[dict[str, float]], None]
    ) -> None:
        """Trains up to ``config.steps``; saves and logs on the way and at the end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        since, started = self.step, time.monotonic()
        while self.step < self.config.steps:
            losses, norm = self.train_step()
            if self.step % log_every == 0:
                now = time.monotonic()
                row = {
                    "step": self.step,
                    "loss": losses.loss.item(),
                    "distortion_bits": losses.distortion.item(),
                    "rate_bits": losses.rate.item(),
                    "mean_l1": losses.mean_l1.item(),
                    "grad_norm": norm,
                    "skipped": self.skipped,
                    "seconds_per_step": (now - started) / (self.step - since),
                }
                since, started = self.step, now
                self._append_log(row)
                on_log(row)
            if self.step % save_every == 0:
                self.save()
        self.save()

    def train_step(self) -> tuple[Losses, float]:
        """One optimiser step; a step whose gradient is not finite or too large changes nothing."""
        config = self.config
        factor = learning_rate_factor(
            self.step, warmup=config.warmup, steps=config.steps, cooldown=config.cooldown
        )
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        hr, lr = self.store.batch(
            CropSpec(batch=config.batch, lr_size=config.lr_size, scale=self.model.scale), generator
        )
        noise = self._noise(generator, len(hr)) if self.step >= config.elbo_from else None
        with torch.autocast(
            self.device.type, dtype=self.compute, enabled=self.compute != torch.float32
        ):
            losses = vdvae_sr_losses(
                self.model,
                hr.contiguous(memory_format=torch.channels_last),
                lr.contiguous(memory_format=torch.channels_last),
                noise,
                config.mean_weight,
            )
        self.optimizer.zero_grad(set_to_none=True)
        losses.loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip))
        if math.isfinite(norm) and norm < config.skip_above:
            self.optimizer.step()
            self._update_ema()
        else:
            self.skipped += 1
        self.step += 1
        return losses, norm

    def _noise(self, generator: torch.Generator, batch: int) -> Callable[[LatentShape], Tensor]:
        side = self.config.lr_size * self.model.scale

        def draw(shape: LatentShape) -> Tensor:
            size = (batch, side // shape.cell, side // shape.cell, shape.channels)
            return torch.randn(size, generator=generator).permute(0, 3, 1, 2).to(self.device)

        return draw

    @torch.no_grad()
    def _update_ema(self) -> None:
        decay = ema_decay_at(self.step, self.config.ema_decay)
        names, parameters = zip(*self.model.named_parameters(), strict=True)
        torch._foreach_lerp_([self.ema[name] for name in names], list(parameters), 1 - decay)

    def save(self) -> None:
        """Writes ``last.pt`` atomically: weights, average, optimiser, step, configs."""
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "skipped": self.skipped,
            "config": asdict(self.config),
            "architecture": asdict(self.model.config),
        }
        temporary = self.folder / "last.pt.part"
        torch.save(state, temporary)
        os.replace(temporary, self.folder / "last.pt")

    def resume(self, checkpoint: Path) -> None:
        """Takes up everything that ``save`` wrote; the configuration stays this run's own."""
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.ema = {name: value.to(self.device) for name, value in state["ema"].items()}
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.skipped = state["step"], state["skipped"]

    def _append_log(self, row: dict[str, float]) -> None:
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
