"""Learning rate, averaging and weights that rise: pure functions of the step."""


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


def rise(step: int, *, steps: int) -> float:
    """A weight that comes to weigh: at a step counted from 0, linear from 0 to 1 over ``steps``."""
    return min(1.0, max(step, 0) / steps) if steps else 1.0
