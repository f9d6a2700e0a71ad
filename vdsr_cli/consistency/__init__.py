"""The degradation A, and what it takes to stay faithful to it.

A is antialiased bicubic reduction: the cubic with a = -0.5 widened by the scale, half-pixel
centres, edge pixels repeated at the borders. It makes the training pairs, scores LR-PSNR and
defines the consistency projection, so that all three mean the same thing.

    degradation   A, its transpose, the inverse of A A', the projection
    strips        the same for pictures that arrive in strips of rows
    clipping      the projection within [0, 1], or other bounds
    rounding      to levels, so that the errors of a cell cancel
"""

from vdsr_cli.consistency.clipping import ClippedStripProjection, project_within
from vdsr_cli.consistency.degradation import (
    cubic,
    degrade,
    degrade_8bit,
    degrade_adjoint,
    project,
    project_crop,
    reduction_taps,
    solve_gram,
    solve_gram_nearly,
)
from vdsr_cli.consistency.rounding import round_cells
from vdsr_cli.consistency.strips import (
    StripDegradation,
    StripProjection,
    projected_by,
    replay_top,
)

__all__ = [
    "ClippedStripProjection",
    "StripDegradation",
    "StripProjection",
    "cubic",
    "degrade",
    "degrade_8bit",
    "degrade_adjoint",
    "project",
    "project_crop",
    "project_within",
    "projected_by",
    "reduction_taps",
    "replay_top",
    "round_cells",
    "solve_gram",
    "solve_gram_nearly",
]
