"""The training loop: one objective, legs that compose, several processes.

Every random number of step k comes from generators seeded by (seed, k), so that a run that was
stopped and resumed is the run that was not.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vdsr_cli.cuda_graph import CudaGraph
from vdsr_cli.errors import DeviceError, WeightsError
from vdsr_cli.models.protocol import LatentShape
from vdsr_cli.models.registry import architecture_of, config_of
from vdsr_cli.training.adversarial import AdversarialPhase, Judge, Look, SampleTerms, computed_once
from vdsr_cli.training.config import Row, RunPlan, TrainConfig, check_crop
from vdsr_cli.training.data import CropSpec, PictureStore
from vdsr_cli.training.degradation import RealDegradation
from vdsr_cli.training.objectives import Losses, objective_of, to_unit_range, vdvae_sr_losses
from vdsr_cli.training.optimizer import set_rate, step_if
from vdsr_cli.training.randomness import StepRandom
from vdsr_cli.training.run_folder import MEAN, append_log, prepare_folder, write_checkpoint
from vdsr_cli.training.schedule import ema_decay_at, learning_rate_factor, plateau_factor, rise
from vdsr_cli.training.world import World
from vdsr_cli.weights.runs import read_checkpoint

__all__ = ["Losses", "RunPlan", "TrainConfig", "Trainer", "to_unit_range", "vdvae_sr_losses"]


class Trainer:
    """A model, its average and its optimiser at some step; ``run`` advances them.

    Args:
        model: trained in place, those of its parameters that want gradients.
        store: the pictures.
        config: hyper-parameters.
        folder: where ``last.pt`` and ``log.jsonl`` go.
        device: where the model and the pictures are.
        compute: dtype of the convolutions (autocast); moments, KL and likelihood stay float32.
        world: this process among those of the run.
        compiled: whether the objective goes through torch.compile.
        replayed: whether forward and backward pass are recorded once and replayed, on CUDA.
        keep_previous: whether the checkpoint before the last stays, as ``previous.pt``.
        adversarial: what a run with the adversarial phase has beside the model, else None.
        leg: facts of this leg for the model card, such as its command.

    Raises:
        UsageError: crops that the model's coarsest latent does not divide.
    """

    def __init__(
        self,
        model: nn.Module,
        store: PictureStore,
        config: TrainConfig,
        folder: Path,
        *,
        device: torch.device,
        compute: torch.dtype = torch.bfloat16,
        world: World | None = None,
        compiled: bool = False,
        replayed: bool = False,
        keep_previous: bool = False,
        adversarial: AdversarialPhase | None = None,
        leg: dict[str, Any] | None = None,
    ) -> None:
        self.adversarial = adversarial
        self.model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.shapes: list[LatentShape] = model.latent_shapes  # type: ignore[assignment]
        self.store = store.to(device)
        self.config, self.folder, self.device, self.compute = config, folder, device, compute
        self.world, self.keep_previous = world or World(), keep_previous
        fixed = getattr(model, "fixed_tile", None)
        check_crop(config.lr_size, self.shapes, store.scale, fixed)
        # What is frozen is its own average: one copy in memory, one in the checkpoint.
        self.ema = {
            name: p.detach().clone() if p.requires_grad else p.detach()
            for name, p in self.model.named_parameters()
        }
        trained = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        self._trained = [parameter for _, parameter in trained]
        self._averages = [self.ema[name] for name, _ in trained]
        self.optimizer = torch.optim.AdamW(
            self._trained,
            lr=config.learning_rate,
            betas=(0.9, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._is_compiled = compiled
        self._losses = torch.compile(self._objective) if compiled else self._objective
        self._is_replayed = replayed
        self._replay: tuple[int, CudaGraph[Losses]] | None = None
        self._real = RealDegradation(store.scale) if config.degradation == "real" else None
        self._waits = device.type == "cpu"
        self._skips = torch.zeros(2, dtype=torch.long, device=device)
        self.val_losses: list[float] = []
        self.step = 0
        self._saved_step = -1
        self.legs: list[dict[str, Any]] = [{**(leg or {}), **store.facts, "from_step": 0}]
        self._started = time.monotonic()

    @property
    def _judge(self) -> Judge | None:
        return self.adversarial.judge if self.adversarial else None

    @property
    def skipped(self) -> int:
        """How many steps were skipped so far."""
        return int(self._skips[0])

    def run(self, plan: RunPlan | None = None) -> None:
        """Trains up to ``config.steps``; saves and logs on the way and at the end.

        Raises:
            OutputError: a file cannot be written; the last checkpoint is intact.
            DeviceError: too many steps in a row had no usable gradient.
        """
        plan = plan or RunPlan()
        if self.world.is_first:
            prepare_folder(self.folder, self.step)
        if plan.validates_start and self.step == 0 and not self._is_over(plan):
            self._validate(plan)
        since, started = self.step, time.monotonic()
        means = _Means()
        if self.world.is_first:
            plan.on_step(self.step, {})
        while self.step < self.config.steps and not self._is_over(plan):
            if self.step == self.config.elbo_from > 0:
                self._keep_mean_path()
            losses, norm = self.train_step()
            figures = losses.figures
            means.add(figures)
            if self.world.is_first:
                plan.on_step(self.step, figures)
            if self.step % plan.log_every == 0:
                row = self._row(means.taken(), norm)
                now = time.monotonic()
                row["seconds_per_step"] = (now - started) / (self.step - since)
                since, started = self.step, now
                self._log(row, plan)
            if plan.validate_every and self.step % plan.validate_every == 0:
                self._validate(plan)
            if self.step % plan.save_every == 0:
                self.save()
        if self._saved_step != self.step:
            self.save()

    def train_step(self) -> tuple[Losses, Tensor]:
        """One optimiser step; a step whose gradient is not finite or too large changes nothing.

        Returns the figures of this process and the norm of the gradient, before clipping, of all.
        On a GPU nothing here waits for the device.
        """
        config = self.config
        factor = learning_rate_factor(
            self.step, warmup=config.warmup, steps=config.steps, cooldown=config.cooldown
        )
        factor *= self._plateau
        set_rate(self.optimizer, config.learning_rate * factor)
        random = StepRandom(config.seed, self.step, self.device)
        hr, lr = self._pairs(random)
        noise = self._draw_noise(random) if self.step >= config.elbo_from else None
        weight = rise(self.step - config.elbo_from, steps=config.rate_warmup)
        inputs = (hr, lr, torch.full((), weight, device=self.device), *(noise or ()))
        phase = self.adversarial
        if phase is not None and self.step >= phase.config.start:
            losses, norm = self._adversarial_step(phase, inputs, random, factor)
        else:
            losses = self._replay_passes(inputs) if self._is_replayed else self._passes(*inputs)
            self.world.average_gradients(self._trained)
            norm = nn.utils.clip_grad_norm_(self._trained, config.grad_clip)
            self._apply(self._is_good(norm, losses.loss))
        self.step += 1
        return losses, norm

    @property
    def _plateau(self) -> float:
        """Factor of the plateau schedule."""
        config = self.config
        is_used = config.schedule == "plateau" and config.learning_rate > 0
        return plateau_factor(self.val_losses, config.learning_rate) if is_used else 1.0

    def _passes(self, hr: Tensor, lr: Tensor, weight: Tensor, *noise: Tensor) -> Losses:
        """Forward and backward pass of a batch, with a weight of the rate: its figures; gradients
        lie in the parameters. Without noise the mean path alone is trained."""
        _forget_gradients(self._trained)
        with self._autocast():
            losses = self._losses(hr, lr, list(noise) or None)
        losses.loss = losses.loss + (weight - 1) * losses.rate
        losses.loss.backward()  # type: ignore[no-untyped-call]
        losses.loss = losses.loss.detach()
        return losses

    def _is_good(self, norm: Tensor, loss: Tensor) -> Tensor:
        """Whether a step may be taken: gradient and loss are finite, the former not too large."""
        return torch.isfinite(norm + self.world.mean(loss)) & (norm < self.config.skip_above)

    def _adversarial_step(
        self, phase: AdversarialPhase, inputs: Sequence[Tensor], random: StepRandom, factor: float
    ) -> tuple[Losses, Tensor]:
        """A step of the model and one of the discriminator, taken both or neither."""
        self._replay = None  # the phases before are over
        drawn = float(torch.rand((), generator=random.cpu))
        samples_noise = self._draw_noise(random, phase.samples)
        look = phase.look(random.cpu, inputs[0].shape[-1])
        losses, terms = self._sample_passes(
            phase, inputs, samples_noise, phase.temperature(drawn), look
        )
        self.world.average_gradients(self._trained)
        norm = nn.utils.clip_grad_norm_(self._trained, self.config.grad_clip)
        losses.terms = terms.figures
        if phase.judge is None:
            self._apply(self._is_good(norm, losses.loss))
            return losses, norm
        discriminator = self._judge_passes(phase.judge, terms)
        losses.terms = {**terms.figures, "discriminator": discriminator}
        is_good = self._is_good(norm, losses.loss + discriminator)
        self._apply(is_good)
        phase.judge.apply(is_good, factor)
        return losses, norm

    def _judge_passes(self, judge: Judge, terms: SampleTerms) -> Tensor:
        """Forward and backward pass of the discriminator: its loss."""
        _forget_gradients(judge.trained)
        with self._autocast():
            loss = judge.loss(terms)
        loss.backward()  # type: ignore[no-untyped-call]
        self.world.average_gradients(judge.trained)
        return loss.detach()

    def _sample_passes(
        self,
        phase: AdversarialPhase,
        inputs: Sequence[Tensor],
        samples_noise: Sequence[Tensor],
        temperature: float,
        look: Look,
    ) -> tuple[Losses, SampleTerms]:
        """:meth:`_passes` with the terms of the samples; gradients lie in the model."""
        hr, lr, weight, *noise = inputs
        _forget_gradients(self._trained)
        since, every = self.step - phase.config.start, phase.config.elbo_every
        has_elbo, ramp = since % every == 0, rise(since, steps=phase.config.ramp)
        with self._autocast(), self._lr_encoded_once():
            losses = self._losses(hr, lr, noise if has_elbo else None)
            terms = phase.sample_terms(
                self.model,
                to_unit_range(hr) * 2 - 1,
                to_unit_range(lr),
                lambda shape: samples_noise[shape.layer],
                temperature,
                ramp,
                look,
            )
        mean_path = self.config.mean_weight * losses.mean_l1
        elbo = losses.loss - mean_path + (weight - 1) * losses.rate  # 0 without one
        loss = phase.config.elbo_weight * (mean_path + every * elbo) + terms.loss
        loss.backward()  # type: ignore[no-untyped-call]
        losses.loss, losses.has_elbo = loss.detach(), has_elbo
        return losses, terms

    def _lr_encoded_once(self) -> AbstractContextManager[None]:
        """A block in which the LR encoder runs once, for the ELBO and for the samples: a third of a
        step's time where it is the larger part of a model. Compiled code would not notice."""
        encoder = getattr(self.model, "lr_encoder", None)
        if encoder is None or self._is_compiled:
            return nullcontext()
        return computed_once(encoder)

    def _autocast(self) -> torch.autocast:
        is_mixed = self.compute != torch.float32
        return torch.autocast(self.device.type, dtype=self.compute, enabled=is_mixed)

    def _replay_passes(self, inputs: Sequence[Tensor]) -> Losses:
        """:meth:`_passes`, recorded when a phase of the training begins."""
        if self._replay is None or self._replay[0] != len(inputs):
            self._replay = None  # its memory is free for the next
            self._replay = len(inputs), CudaGraph(self._passes, inputs)
        return self._replay[1](inputs)

    def _objective(self, hr: Tensor, lr: Tensor, noise: list[Tensor] | None) -> Losses:
        source = None if noise is None else lambda shape: noise[shape.layer]
        objective = objective_of(self.model, kl=self.config.kl)
        return objective(self.model, hr, lr, source, self.config.mean_weight)

    def _pairs(self, random: StepRandom) -> tuple[Tensor, Tensor]:
        """hr and lr of this step, uint8, channels last."""
        config = self.config
        spec = CropSpec(
            batch=config.batch,
            lr_size=config.lr_size,
            scale=self.store.scale,
            symmetries=config.symmetries,
        )
        hr, lr = self.store.batch(spec, random.cpu, self.world)
        if self._real is not None:
            lr = self._real(hr, random, self.world)
        return (
            hr.contiguous(memory_format=torch.channels_last),
            lr.contiguous(memory_format=torch.channels_last),
        )

    def _draw_noise(self, random: StepRandom, repeats: int = 1) -> list[Tensor]:
        """Standard normals of each layer for so many samples of each of this process's crops."""
        side = self.config.lr_size * self.store.scale
        batch = self.config.batch * self.world.size * repeats

        def draw(shape: LatentShape) -> Tensor:
            size = (batch, side // shape.cell, side // shape.cell, shape.channels)
            drawn = torch.randn(size, generator=random.device, device=self.device)
            return self.world.share(drawn.permute(0, 3, 1, 2))

        return [draw(shape) for shape in self.shapes]

    @torch.no_grad()
    def _apply(self, is_good: Tensor) -> None:
        """Takes the optimiser's step and moves the average, if the gradient is good.

        On a GPU the decision stays there: a skipped step is one of weight zero.
        """
        bad = (~is_good).long()
        self._skips[0] += bad
        self._skips[1] = (self._skips[1] + bad) * bad
        weight = 1 - ema_decay_at(self.step, self.config.ema_decay)
        if self._waits:
            self._give_up_if_lost()
        step_if(self.optimizer, is_good)
        if self._waits:
            if is_good:
                torch._foreach_lerp_(self._averages, self._trained, weight)
            return
        changes = torch._foreach_sub(self._trained, self._averages)
        torch._foreach_mul_(changes, is_good * weight)
        torch._foreach_add_(self._averages, changes)

    def _give_up_if_lost(self) -> None:
        if int(self._skips[1]) >= self.config.give_up_after:
            raise DeviceError(
                f"{self.config.give_up_after} steps in a row up to step {self.step} had no usable"
                " gradient; the last checkpoint is from before them",
                hint="try a lower --learning-rate, or --dtype float32",
            )

    def _is_over(self, plan: RunPlan) -> bool:
        """Whether the leg ends here; several processes only ask each other at log steps."""
        if self.world.size > 1 and self.step % plan.log_every:
            return False
        is_late = plan.deadline is not None and time.monotonic() >= plan.deadline
        return self.world.any(is_late or plan.is_stopped(), self.device)

    def _row(self, means: dict[str, Tensor], norm: Tensor) -> Row:
        """The mean figures since the last row and the last norm; waits for the device, once."""
        averaged = self.world.mean(torch.stack(list(means.values())))
        figures = torch.cat([averaged, norm.detach().view(1)]).tolist()
        self._give_up_if_lost()
        return {
            "step": self.step,
            **dict(zip([*means, "grad_norm"], figures, strict=True)),
            "skipped": self.skipped,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }

    def _validate(self, plan: RunPlan) -> None:
        found = 0.0
        if plan.validate is not None and self.world.is_first:
            with self.averaged() as model:
                figures = plan.validate(model, self.step)
            if figures:
                self._log({"step": self.step, **figures}, plan)
            found = figures.get("val_loss", math.nan)
        if self.config.schedule == "plateau":
            first = torch.tensor(found, dtype=torch.float64, device=self.device)
            self.val_losses.append(float(self.world.mean(first)) * self.world.size)
        self.world.wait()

    def _log(self, row: Row, plan: RunPlan) -> None:
        if self.world.is_first:
            append_log(self.folder, row)
            plan.on_log(row)

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """``with trainer.averaged() as model``: the model with the averaged weights in it, which
        are not to be trained."""
        own = {name: parameter.data for name, parameter in self.model.named_parameters()}
        self._put(self.ema)
        try:
            yield self.model
        finally:
            self._put(own)

    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.data = values[name]

    def save(self) -> None:
        """Writes ``last.pt`` atomically: weights, average, optimiser, step, configs, legs.

        Raises:
            OutputError: it cannot be written; the last one is intact.
        """
        if self.world.is_first:
            weights = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            judge = self._judge.state() if self._judge else {}
            state = {**weights, **judge, **self._state()}
            write_checkpoint(self.folder, state, keep_previous=self.keep_previous)
            self._saved_step = self.step

    def _keep_mean_path(self) -> None:
        """Writes ``mean.pt``, the average that has learnt nothing of the ELBO: a share of it in the
        finished weights makes samples cleaner. Raises OutputError."""
        if self.world.is_first:
            state = {"model": {**self.model.state_dict(), **self.ema}, **self._state()}
            write_checkpoint(self.folder, state, name=MEAN)

    def _state(self) -> dict[str, Any]:
        """The state of every checkpoint: the average, step, configurations, legs."""
        self.legs[-1]["to_step"] = self.step
        self.legs[-1]["seconds"] = round(time.monotonic() - self._started, 1)
        return {
            "ema": self.ema,
            "step": self.step,
            "skipped": self.skipped,
            "val_losses": self.val_losses,
            "config": asdict(self.config),
            "kind": architecture_of(self.model).name,
            "architecture": config_of(self.model),
            "legs": self.legs,
        }

    def resume(self, checkpoint: Path) -> None:
        """Takes up everything that ``save`` wrote; the configuration stays this run's own.

        Raises:
            WeightsError: no checkpoint, or that of another model.
        """
        state = read_checkpoint(checkpoint, self.device)
        try:
            self.model.load_state_dict(state["model"])
            optimizer = state["optimizer"]
            if self._judge:
                self._judge.resume(state)
        except (RuntimeError, ValueError, KeyError) as error:
            raise WeightsError(f"{checkpoint} is of another model than this run's") from error
        try:
            self.optimizer.load_state_dict(optimizer)
        except ValueError as error:
            raise WeightsError(
                f"{checkpoint} has trained other parameters of its model than are to be trained",
                hint=f"begin with what it made: --from {checkpoint}, and another --out",
            ) from error
        for group in self.optimizer.param_groups:
            group["betas"] = (0.9, self.config.beta2)
            group["weight_decay"] = self.config.weight_decay
        with torch.no_grad():
            for name, average in self.ema.items():
                average.copy_(state["ema"][name])
        self.step = state["step"]
        self._skips[0] = state["skipped"]
        self.val_losses = list(state.get("val_losses", []))
        self.legs = [*state.get("legs", []), {**self.legs[-1], "from_step": self.step}]


class _Means:
    """Running means of figures by name; some come later than others."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, figures: dict[str, Tensor]) -> None:
        for name, figure in figures.items():
            total, count = self._sums.get(name, (torch.zeros_like(figure), 0))
            self._sums[name] = total + figure, count + 1

    def taken(self) -> dict[str, Tensor]:
        """The means since the last call."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means


def _forget_gradients(parameters: Sequence[Tensor]) -> None:
    for parameter in parameters:
        parameter.grad = None
