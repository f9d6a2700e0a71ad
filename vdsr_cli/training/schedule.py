"""Learning rate, averaging and weights that rise: pure functions of the step."""

import math
from collections.abc import Sequence


def learning_rate_factor(step: int, *, warmup: int, steps: int, cooldown: int) -> float:
    """Linear warm-up, constant, then linear to zero over the last ``cooldown`` steps.

    A constant middle makes legs composable: a run can be lengthened, or branched into a cool-down
    at any checkpoint, without having known its length at the start.
    """
    up = min(1.0, (step + 1) / max(warmup, 1))
    down = min(1.0, max(steps - step, 0) / cooldown) if cooldown else 1.0
    return up * down


PATIENCE = 5
THRESHOLD = 0.01
LEAST_RATE = 1e-6


def plateau_factor(losses: Sequence[float], learning_rate: float) -> float:
    """Factor on a learning rate after so many validations, by the losses that they found.

    The rate falls to a tenth, down to 1e-6, whenever more than 5 validations in a row were not 1 %
    below the best (released code of Prost 2024: torch's ReduceLROnPlateau, an epoch each).
    """
    best, worse, factor = math.inf, 0, 1.0
    for loss in losses:
        if loss < best * (1 - THRESHOLD):
            best, worse = loss, 0
        else:
            worse += 1
        if worse > PATIENCE:
            factor, worse = max(factor / 10, min(1.0, LEAST_RATE / learning_rate)), 0
    return factor


def ema_decay_at(step: int, decay: float) -> float:
    """The decay of the running average at a step: shorter while the average is young."""
    return min(decay, (1 + step) / (10 + step))


def rise(step: int, *, steps: int) -> float:
    """A weight that comes to weigh: at a step counted from 0, linear from 0 to 1 over ``steps``."""
    return min(1.0, max(step, 0) / steps) if steps else 1.0
