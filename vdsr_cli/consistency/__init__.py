"""The degradation A, and what it takes to stay faithful to it.

A is antialiased bicubic reduction: the cubic with a = -0.5 widened by the scale, half-pixel
centres, edge pixels repeated at the borders or, where that is asked for, mirrored. It makes the
training pairs, scores LR-PSNR and defines the consistency projection, so that all three mean the
same thing.

    degradation   A, its transpose, the inverse of A A', the projection
    clipping      the projection within [0, 1], or other bounds
    strips        the same for pictures that arrive in strips of rows
"""

from vdsr_cli.consistency.clipping import project_within
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
from vdsr_cli.consistency.strips import (
    StripDegradation,
    project_rows,
    projection_tops,
    seen_rows,
)

__all__ = [
    "StripDegradation",
    "cubic",
    "degrade",
    "degrade_8bit",
    "degrade_adjoint",
    "project",
    "project_crop",
    "project_rows",
    "project_within",
    "projection_tops",
    "reduction_taps",
    "seen_rows",
    "solve_gram",
    "solve_gram_nearly",
]
