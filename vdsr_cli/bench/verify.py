"""Bicubic before all else: on a set that is known it must come out as known.

Where it does not, the files, their LR pictures or the ruler differ from everybody else's, and no
other figure would mean what it seems to.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from vdsr_cli.bench.data import Dataset, Protocol
from vdsr_cli.bench.published import BicubicFigure, load_known_sets
from vdsr_cli.bench.report import DatasetFacts, PictureScore, mean_row
from vdsr_cli.errors import InputError

PSNR_TOLERANCE_DB: Final = 0.02
SSIM_TOLERANCE: Final = 0.001


def dataset_facts(
    dataset: Dataset,
    sizes: Sequence[tuple[int, int]],
    scores: Sequence[PictureScore],
    *,
    protocol: Protocol,
    scale: int,
    insist: bool,
) -> DatasetFacts:
    """The facts of a dataset, with bicubic verified.

    Args:
        sizes: (width, height) of its HR files.
        scores: of bicubic on them.
        insist: whether another figure than the known ones is an error.

    Raises:
        InputError: no picture was left, or bicubic came out differently.
    """
    if not scores:
        raise InputError("none of the pictures can be scored")
    known = next((s for s in load_known_sets() if s.is_made_of(sizes, scale)), None)
    kind = (protocol.value, scale)
    figures = [f for f in (known.bicubic if known else ()) if (f.protocol, f.scale) == kind]
    row = {key: estimate.mean for key, estimate in mean_row(scores).scores.items()}
    is_verified = any(_agree(row, figure) for figure in figures) if figures else None
    if known and is_verified is False and insist:
        raise _disagreement(known.name, row, figures[0])
    return DatasetFacts(
        name=dataset.name,
        path=str(dataset.path),
        pictures=len(scores),
        known_as=known.name if known else None,
        verified=is_verified,
    )


def _agree(row: Mapping[str, float], figure: BicubicFigure) -> bool:
    return all(
        abs(row[key] - value) <= (PSNR_TOLERANCE_DB if key.startswith("psnr") else SSIM_TOLERANCE)
        for key, value in figure.scores.items()
    )


def _disagreement(name: str, row: Mapping[str, float], figure: BicubicFigure) -> InputError:
    got = ", ".join(f"{key} {row[key]:.4f}" for key in figure.scores)
    wanted = ", ".join(f"{key} {value:g}" for key, value in figure.scores.items())
    return InputError(
        f"{name}: bicubic gives {got}, where the set's own files give {wanted}",
        hint="the files are not the usual ones; --no-verify scores them all the same",
    )
