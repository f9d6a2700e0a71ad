"""Steps of an optimiser that depend on a gradient which may not be looked at yet."""

import torch
from torch import Tensor


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of every parameter."""
    for group in optimizer.param_groups:
        group["lr"] = rate


@torch.no_grad()
def step_if(optimizer: torch.optim.AdamW, is_good: Tensor) -> None:
    """Takes a fused optimiser's step where the gradient is good: a () bool on its device.

    On a GPU the decision stays there: nothing waits for it.
    """
    if is_good.device.type == "cpu":
        if is_good:
            optimizer.step()
        return
    # The fused optimiser leaves parameters and moments alone where found_inf is 1. Its kernel has
    # read the gradients by then, which need not be finite.
    optimizer.found_inf = (~is_good).float()  # type: ignore[attr-defined]
    optimizer.step()
