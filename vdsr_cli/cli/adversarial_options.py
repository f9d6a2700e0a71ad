"""The options of ``vdsr train`` for the adversarial phase, under a heading of their own."""

from enum import StrEnum
from typing import Annotated

import typer

_PANEL = "Adversarial phase"


class PerceptualNet(StrEnum):
    """Whose features samples are compared by: not AlexNet's, which judge the result."""

    squeeze = "squeeze"
    vgg = "vgg"


AdversarialOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="First step of training samples against a discriminator; sharper and cleaner ones."
        " Takes LPIPS weights: see --metric-weights.",
        rich_help_panel=_PANEL,
    ),
]
PerceptualNetOption = Annotated[
    PerceptualNet,
    typer.Option(help="Network of the perceptual term.", rich_help_panel=_PANEL),
]
L1WeightOption = Annotated[
    float | None,
    typer.Option(
        min=0.0, help="Weight of a sample's L1.", rich_help_panel=_PANEL, show_default="1"
    ),
]
PerceptualWeightOption = Annotated[
    float | None,
    typer.Option(
        min=0.0, help="Weight of a sample's LPIPS.", rich_help_panel=_PANEL, show_default="1"
    ),
]
AdversarialWeightOption = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="Weight of the discriminator's verdict.",
        rich_help_panel=_PANEL,
        show_default="0.1",
    ),
]
ElboWeightOption = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="Weight of ELBO and mean path together.",
        rich_help_panel=_PANEL,
        show_default="0.05",
    ),
]
DiversityOption = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Share of the distance between samples that is not held against them.",
        rich_help_panel=_PANEL,
        show_default="0.3",
    ),
]
SharpenOption = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="Unsharp mask on what samples are compared with.",
        rich_help_panel=_PANEL,
        show_default="0",
    ),
]
TemperaturesOption = Annotated[
    tuple[float, float] | None,
    typer.Option(
        help="Range of the samples' temperatures.", rich_help_panel=_PANEL, show_default="0.6 1"
    ),
]
RampOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Steps in which the discriminator's verdict comes to weigh.",
        rich_help_panel=_PANEL,
        show_default="300",
    ),
]
DiscriminatorRateOption = Annotated[
    float | None,
    typer.Option(
        min=0.0, help="Its peak learning rate.", rich_help_panel=_PANEL, show_default="2e-4"
    ),
]
DiscriminatorWidthOption = Annotated[
    int | None,
    typer.Option(min=1, help="Its channels.", rich_help_panel=_PANEL, show_default="48"),
]
