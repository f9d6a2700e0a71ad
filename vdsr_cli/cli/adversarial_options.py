"""The options of ``vdsr train`` for the adversarial phase, under a heading of their own."""

from enum import StrEnum
from typing import Annotated, Any

import typer


class PerceptualNet(StrEnum):
    """Whose features samples are compared by: not AlexNet's, which judge the result."""

    squeeze = "squeeze"
    vgg = "vgg"
    both = "both"

    @property
    def networks(self) -> tuple[str, ...]:
        """Their names."""
        return ("squeeze", "vgg") if self is PerceptualNet.both else (str(self),)


def _option(
    text: str, *, default: str | None = None, min: float | None = None, max: float | None = None
) -> Any:
    """An option whose default stands in :class:`~vdsr_cli.training.config.AdversarialConfig`."""
    return typer.Option(
        help=text,
        rich_help_panel="Adversarial phase",
        show_default=default or True,
        min=min,
        max=max,
    )


AdversarialOption = Annotated[
    int | None,
    _option(
        "First step of training samples against a discriminator; sharper and cleaner ones."
        " Takes LPIPS weights: see --metric-weights.",
        min=0,
    ),
]
PerceptualNetOption = Annotated[
    PerceptualNet, _option("Network of the perceptual term; of both, one at random each step.")
]
L1WeightOption = Annotated[float | None, _option("Weight of a sample's L1.", default="1", min=0.0)]
PerceptualWeightOption = Annotated[
    float | None, _option("Weight of a sample's LPIPS.", default="1", min=0.0)
]
AdversarialWeightOption = Annotated[
    float | None, _option("Weight of the discriminator's verdict.", default="0.1", min=0.0)
]
ElboWeightOption = Annotated[
    float | None, _option("Weight of ELBO and mean path together.", default="0.05", min=0.0)
]
DiversityOption = Annotated[
    float | None,
    _option(
        "Share of the distance between samples that is not held against them.",
        default="0.3",
        min=0.0,
        max=1.0,
    ),
]
SharpenOption = Annotated[
    float | None, _option("Unsharp mask on what samples are compared with.", default="0", min=0.0)
]
ViewsOption = Annotated[
    bool | None,
    _option(
        "Compare samples shifted, flipped, recoloured, at half the size, at random.", default="on"
    ),
]
TemperaturesOption = Annotated[
    tuple[float, float] | None, _option("Range of the samples' temperatures.", default="0.6 1")
]
RampOption = Annotated[
    int | None,
    _option("Steps in which the discriminator's verdict comes to weigh.", default="300", min=0),
]
DiscriminatorRateOption = Annotated[
    float | None, _option("Its peak learning rate.", default="2e-4", min=0.0)
]
DiscriminatorWidthOption = Annotated[int | None, _option("Its channels.", default="48", min=1)]
