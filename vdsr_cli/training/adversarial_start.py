"""Puts together what a run with the adversarial phase has beside the model."""

from contextlib import suppress

import torch
from torch import nn

from vdsr_cli.errors import UsageError, WeightsError
from vdsr_cli.metrics import LPIPS
from vdsr_cli.metrics.learned import choose_metrics, load_learned
from vdsr_cli.training.adversarial import LEAST_SIDE, SIDE_MULTIPLE, AdversarialPhase, Judge
from vdsr_cli.training.request import TrainRequest
from vdsr_cli.training.validation import model_upscales
from vdsr_cli.weights.runs import read_checkpoint, run_checkpoint


def adversarial_phase(
    request: TrainRequest, model: nn.Module, device: torch.device
) -> AdversarialPhase | None:
    """The discriminator and the perceptual network of a run that has the phase, else None.

    Raises:
        UsageError: a model, crops or options that it does not go with.
        WeightsError: the perceptual network's weights cannot be had.
    """
    config = request.config
    if config.adversarial is None or not config.is_ever_adversarial:
        return None
    if not model_upscales(model) or request.objective == "srvae":
        raise UsageError(
            f"--adversarial trains samples of an LR picture, which vdsr train {request.objective}"
            " has none of",
            hint="vdsr train vdvae-sr and vdsr train cvdvae have",
        )
    if config.adversarial.start < config.elbo_from:
        raise UsageError("--adversarial keeps the ELBO: it cannot begin before --elbo-from")
    side = config.lr_size * int(model.scale)  # type: ignore[arg-type]
    if side % SIDE_MULTIPLE or side < LEAST_SIDE:
        raise UsageError(
            f"--adversarial takes crops whose HR side is a multiple of {SIDE_MULTIPLE}, at least"
            f" {LEAST_SIDE}",
            hint=f"change --lr-size, which at x{model.scale} makes it {side}",
        )
    if request.graph:
        raise UsageError("--graph does not go with --adversarial", hint="leave it out")
    phase = AdversarialPhase(
        config.adversarial,
        [_perceptual(name, request) for name in request.perceptual],
        device=device,
        projected=config.degradation == "bicubic",
    )
    if phase.judge is not None and request.start_from is not None:
        _take_over(phase.judge, request.start_from)
    return phase


def _take_over(judge: Judge, source: str) -> None:
    """Makes the discriminator that of the run a new one starts from, where it has one that fits."""
    path = run_checkpoint(source)
    if path is None:
        return
    with suppress(KeyError, RuntimeError, ValueError):
        judge.resume(read_checkpoint(path))


def _perceptual(net: str, request: TrainRequest) -> LPIPS:
    """LPIPS of a network, from the folder of metric weights or the cache."""
    name = f"lpips-{net}"
    learned = load_learned(choose_metrics(name), request.metric_weights)
    for metric in learned.paired.values():
        if isinstance(metric, LPIPS):
            return metric
    reason = next(iter(learned.missing.values()))
    raise WeightsError(
        f"--adversarial needs the weights of {name}: {reason}",
        hint=f"name a folder that has lpips_{net}.safetensors: --metric-weights DIR",
    )
