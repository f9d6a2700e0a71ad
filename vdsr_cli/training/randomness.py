"""The random numbers of a run: all of step k come from generators seeded by (seed, k) alone.

So the step number is the whole random state: a run that was stopped and resumed is the run that
was not, and nothing of it need be stored.
"""

import torch

from vdsr_cli.config import torch_seed


class StepRandom:
    """The generators of one step.

    Args:
        step: number of the step, from 0.
        device: where large draws are made.

    Attributes:
        cpu: for crops and other small choices; the same on every device.
        device: for noise the size of pictures; ``cpu`` itself on the CPU.
    """

    def __init__(self, seed: int, step: int, device: torch.device) -> None:
        number = torch_seed(seed * 1_000_003 + step)
        self.cpu = torch.Generator().manual_seed(number)
        self.device = (
            self.cpu if device.type == "cpu" else torch.Generator(device).manual_seed(number)
        )
