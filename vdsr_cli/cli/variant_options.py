"""Options of ``vdsr train``: which of the papers' variants a model of the published shape is.

Where paper, thesis and released code differ is in :mod:`vdsr_cli.models.vdvae_sr`.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from vdsr_cli.errors import UsageError

if TYPE_CHECKING:
    from vdsr_cli.models.vdvae_sr import Variant

_PANEL = "The papers' variants, on a published prior"


class LRInto(StrEnum):
    """The parts that see the LR activations."""

    both = "both"
    prior = "prior"
    posterior = "posterior"


class KLWeighting(StrEnum):
    """How CVDVAE's layers are added up."""

    sum = "sum"
    mean = "mean"


ConditionalTopOption = Annotated[
    bool | None,
    typer.Option(
        "--conditional-top",
        rich_help_panel=_PANEL,
        help="VDVAE-SR: p(z_0 | lr) by linear layers (Chira 2022, eq. 9-11).",
        show_default=False,
    ),
]
GatesOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_PANEL,
        help="LR activations at resolutions below this number, e.g. 32 as in the released code;"
        " all (Chira 2022); or none.",
        show_default="all",
    ),
]
LRIntoOption = Annotated[
    LRInto | None,
    typer.Option(
        rich_help_panel=_PANEL,
        help="LR activations into the posterior alone (the thesis, 5.6), the prior alone, or both.",
        show_default="both",
    ),
]
TrivialEncoderOption = Annotated[
    bool | None,
    typer.Option(
        "--trivial-encoder",
        rich_help_panel=_PANEL,
        help="One linear layer as the LR encoder (the thesis, 5.4); with --conditional-top.",
        show_default=False,
    ),
]
TrainedOption = Annotated[
    str | None,
    typer.Option(
        "--train",
        rich_help_panel=_PANEL,
        help="The parts that train, with commas: encoder, decoder, lr-encoder. Texts:"
        " decoder,lr-encoder; the released 64 to 256: encoder,decoder.",
        show_default="decoder,lr-encoder",
    ),
]
TargetBitsOption = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=_PANEL,
        min=5,
        max=8,
        help="On openai/ffhq256: 5, grey levels floored as for the prior, or 8, the released"
        " code's, scored in the prior's 32 bins.",
        show_default="5",
    ),
]
ConditionedLayersOption = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=_PANEL,
        min=1,
        help="CVDVAE: k of Prost 2024, eq. 12, the first layers that see the LR picture.",
        show_default="all that can",
    ),
]
KLOption = Annotated[
    KLWeighting | None,
    typer.Option(
        rich_help_panel=_PANEL,
        help="CVDVAE: each layer's KL as its sum (Prost 2024, eq. 14) or, as in the released code,"
        " its mean over dimensions.",
        show_default="sum",
    ),
]


def variant_of(
    *,
    conditional_top: bool | None,
    gates: str | None,
    lr_into: LRInto | None,
    trivial_encoder: bool | None,
    trained: str | None,
    target_bits: int | None,
) -> "Variant | None":
    """The variant asked for, or None where none was. Raises UsageError."""
    from vdsr_cli.models.vdvae_sr import Variant

    given = {
        "conditional_top": conditional_top,
        "gate_below": None if gates is None else _gate_below(gates),
        "lr_into": None if lr_into is None else str(lr_into),
        "trivial_encoder": trivial_encoder,
        "trained": None if trained is None else tuple(part.strip() for part in trained.split(",")),
        "target_bits": target_bits,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        variant = Variant(**chosen)  # type: ignore[arg-type]  # the values are of their fields
    except ValueError as error:
        raise UsageError(str(error)) from error
    return None if variant == Variant() else variant


def _gate_below(gates: str) -> int | None:
    """``Variant.gate_below`` of ``--gates``."""
    if gates in ("all", "none"):
        return None if gates == "all" else 0
    if not gates.isdecimal():
        raise UsageError(f"--gates {gates}: all, none, or a resolution such as 32")
    return int(gates)
