"""Learning rate, averaging and the weight of the rate: pure functions of the step."""


def learning_rate_factor(step: int, *, warmup: int, steps: int, cooldown: int) -> float:
    """Linear warm-up, constant, then linear to zero over the last ``cooldown`` steps.

    A constant middle makes legs composable: a run can be lengthened, or branched into a cool-down
    at any checkpoint, without having known its length at the start.
    """
    up = min(1.0, (step + 1) / max(warmup, 1))
    down = min(1.0, max(steps - step, 0) / cooldown) if cooldown else 1.0
    return up * down


def ema_decay_at(step: int, decay: float) -> float:
    """The decay of the running average at a step: shorter while the average is young."""
    return min(decay, (1 + step) / (10 + step))


def rate_weight(step: int, *, warmup: int) -> float:
    """The weight of the rate at a step of the ELBO, counted from 0: linear from 0 to 1."""
    return min(1.0, max(step, 0) / warmup) if warmup else 1.0
