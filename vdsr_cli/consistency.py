"""The degradation A, and what it takes to stay faithful to it.

A is antialiased bicubic reduction: the cubic with a = -0.5 widened by the scale, half-pixel
centres, edge pixels repeated at the borders. It makes the training pairs, scores LR-PSNR and
defines the consistency projection, so that all three mean the same thing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def cubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5, elementwise; zero from distance 2 on."""
    d = distance.abs()
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def reduction_taps(scale: int) -> Tensor:
    """The taps of one axis, float64, sum 1: 4 * scale of them (4 * scale - 1 for an odd scale).

    LR sample i is centred on HR coordinate ``scale * i + (scale - 1) / 2``, so the taps cover HR
    samples ``scale * i - pad`` to ``scale * i + scale - 1 + pad`` with pad = (taps - scale) / 2.
    """
    count = 4 * scale - scale % 2
    offsets = torch.arange(count, dtype=torch.float64) - (count - 1) / 2
    taps = cubic(offsets / scale)
    return taps / taps.sum()


def _reduce_axis(pixels: Tensor, scale: int, *, vertical: bool) -> Tensor:
    """One pass of A along one axis of (N, 1, H, W)."""
    taps = reduction_taps(scale).to(pixels)
    pad = (len(taps) - scale) // 2
    if vertical:
        padded = F.pad(pixels, (0, 0, pad, pad), mode="replicate")
        return F.conv2d(padded, taps.view(1, 1, -1, 1), stride=(scale, 1))
    padded = F.pad(pixels, (pad, pad, 0, 0), mode="replicate")
    return F.conv2d(padded, taps.view(1, 1, 1, -1), stride=(1, scale))


def degrade(hr: Tensor, scale: int) -> Tensor:
    """A: (B, C, H, W) of any float dtype and range -> (B, C, H / scale, W / scale), not rounded.

    H and W are multiples of the scale.
    """
    planes = hr.flatten(0, 1).unsqueeze(1)
    reduced = _reduce_axis(_reduce_axis(planes, scale, vertical=True), scale, vertical=False)
    return reduced.view(*hr.shape[:2], *reduced.shape[2:])


def degrade_8bit(hr: Tensor, scale: int) -> Tensor:
    """A on 8-bit pictures as the benchmarks' files were made: uint8 (B, C, H, W) -> uint8.

    Rounded and clamped to 0..255 after the vertical and again after the horizontal pass.
    """
    planes = hr.flatten(0, 1).unsqueeze(1).double()
    for vertical in (True, False):
        # Halves go up, as MATLAB's uint8() does; the bias absorbs float64 noise on exact halves.
        reduced = _reduce_axis(planes, scale, vertical=vertical)
        planes = (reduced + 0.5 + 1e-9).floor().clamp(0, 255)
    return planes.view(*hr.shape[:2], *planes.shape[2:]).to(torch.uint8)


def degrade_adjoint(lr: Tensor, scale: int) -> Tensor:
    """A': (B, C, h, w) -> (B, C, h * scale, w * scale), with <A hr, lr> = <hr, A' lr>."""
    planes = lr.flatten(0, 1).unsqueeze(1)
    spread = _spread_axis(_spread_axis(planes, scale, vertical=True), scale, vertical=False)
    return spread.view(*lr.shape[:2], *spread.shape[2:])


def _spread_axis(
    pixels: Tensor, scale: int, *, vertical: bool, fold: tuple[bool, bool] = (True, True)
) -> Tensor:
    """The transpose of :func:`_reduce_axis`: spreads the taps; what falls outside is folded onto
    the edge pixel where ``fold`` says that the first, the last row is the picture's own."""
    taps = reduction_taps(scale).to(pixels)
    pad = (len(taps) - scale) // 2
    if not vertical:
        return _spread_axis(pixels.mT, scale, vertical=True, fold=fold).mT
    padded = F.conv_transpose2d(pixels, taps.view(1, 1, -1, 1), stride=(scale, 1))
    inside = padded[:, :, pad : padded.shape[2] - pad].clone()
    if fold[0]:
        inside[:, :, 0] += padded[:, :, :pad].sum(2)
    if fold[1]:
        inside[:, :, -1] += padded[:, :, padded.shape[2] - pad :].sum(2)
    return inside


def _gram(length: int, scale: int) -> Tensor:
    """A A' of one axis of ``length`` LR samples: (length, length) float64, seven diagonals."""
    unit = torch.eye(length, dtype=torch.float64).view(length, 1, length, 1)
    return _reduce_axis(_spread_axis(unit, scale, vertical=True), scale, vertical=True).view(
        length, length
    )


_HALO = 32
"""LR samples of surroundings for the inverse of A A': its rows fall by half a sample or faster, so
that what is cut off is below float32's rounding."""
_BLOCK = 64


def solve_gram_axis(pixels: Tensor, scale: int) -> Tensor:
    """Applies (A A')^-1 along the rows axis of (..., h, w), block by block with a halo.

    A block's surroundings are cut off at ``_HALO`` samples, so that the cost is linear in h; at
    the picture's true borders nothing is cut off.
    """
    height = pixels.shape[-2]
    inverses: dict[tuple[int, int, int], Tensor] = {}
    out = torch.empty_like(pixels)
    for top in range(0, height, _BLOCK):
        bottom = min(top + _BLOCK, height)
        low, high = max(0, top - _HALO), min(height, bottom + _HALO)
        key = (min(low, 4), high - low, min(height - high, 4))
        if key not in inverses:
            inverses[key] = _inverse_of_window(*key, scale)
        rows = inverses[key][top - low : bottom - low].to(pixels)
        out[..., top:bottom, :] = rows @ pixels[..., low:high, :]
    return out


def _inverse_of_window(before: int, length: int, after: int, scale: int) -> Tensor:
    """Inverse of the part of A A' that belongs to ``length`` samples with up to 4 samples of
    picture before and after them: border rows of A A' differ from inner ones."""
    gram = _gram(before + length + after, scale)
    inverse: Tensor = torch.linalg.inv(gram[before : before + length, before : before + length])
    return inverse


def project(sr: Tensor, lr: Tensor, scale: int) -> Tensor:
    """The nearest picture that degrades to ``lr``: sr + A+ (lr - A sr), A+ = A' (A A')^-1.

    (B, C, H, W) and (B, C, H / scale, W / scale) of one range; not clamped. This is CVDVAE's
    consistency step (paper 003) with the degradation of the training pairs.
    """
    return sr + degrade_adjoint(solve_gram(lr - degrade(sr, scale), scale), scale)


def solve_gram(residual: Tensor, scale: int) -> Tensor:
    """(A A')^-1 on (..., h, w): one axis, then the other."""
    return solve_gram_axis(solve_gram_axis(residual, scale).mT, scale).mT


class StripProjection:
    """:func:`project` for a picture that arrives in strips of rows, in memory of a few strips.

    Args:
        lr: (3, h, w), what the result must degrade to.
        samples: pictures projected side by side.
        scale: of the degradation.
    """

    _REACH = 2
    """LR rows beyond its own that an HR row's correction, or an LR row's degradation, touches."""

    def __init__(self, lr: Tensor, samples: int, scale: int) -> None:
        self.lr, self.scale = lr, scale
        self.height = lr.shape[1]
        self.residual = torch.zeros(samples, *lr.shape, dtype=lr.dtype)
        self.known = 0
        self.emitted = 0
        self.first = 0
        self.rows = torch.empty(samples, 3, 0, lr.shape[2] * scale, dtype=lr.dtype)

    def push(self, strip: Tensor) -> Tensor:
        """Takes the next rows (samples, 3, rows, W), a multiple of the scale; returns the projected
        rows that are final by now, perhaps none."""
        self.rows = torch.cat([self.rows, strip], dim=2)
        available = self.first + self.rows.shape[2] // self.scale
        last = available == self.height
        self._measure(self.height if last else max(self.known, available - self._REACH))
        until = self.height if last else self.known - _HALO - 2 * self._REACH
        return self._emit(until)

    def _measure(self, until: int) -> None:
        """Brings the residual lr - A sr up to LR row ``until``."""
        if until <= self.known:
            return
        low = max(self.first, self.known - self._REACH)
        high = min(self.first + self.rows.shape[2] // self.scale, until + self._REACH)
        window = self.rows[:, :, (low - self.first) * self.scale : (high - self.first) * self.scale]
        reduced = degrade(window, self.scale)[:, :, self.known - low : until - low]
        self.residual[:, :, self.known : until] = self.lr[:, self.known : until] - reduced
        self.known = until

    def _emit(self, until: int) -> Tensor:
        """Projects and releases LR rows ``emitted`` to ``until``."""
        if until <= self.emitted:
            return self.rows[:, :, :0]
        offset = (self.emitted - self.first) * self.scale
        count = (until - self.emitted) * self.scale
        done = self.rows[:, :, offset : offset + count] + self._correction(self.emitted, until)
        keep = max(self.first, min(until, self.known - self._REACH))
        self.rows = self.rows[:, :, (keep - self.first) * self.scale :].clone()
        self.first, self.emitted = keep, until
        return done

    def _correction(self, top: int, bottom: int) -> Tensor:
        """Rows ``top`` to ``bottom`` (LR) of A' (A A')^-1 residual."""
        low, high = max(0, top - self._REACH), min(self.height, bottom + self._REACH)
        start, end = max(0, low - _HALO), min(self.height, high + _HALO)
        inverse = _inverse_of_window(
            min(start, 4), end - start, min(self.height - end, 4), self.scale
        )
        rows = inverse[low - start : high - start].to(self.residual)
        solved = solve_gram_axis((rows @ self.residual[:, :, start:end]).mT, self.scale).mT
        planes = solved.flatten(0, 1).unsqueeze(1)
        wide = _spread_axis(planes, self.scale, vertical=False)
        fold = (low == 0, high == self.height)
        spread = _spread_axis(wide, self.scale, vertical=True, fold=fold)
        spread = spread[:, :, (top - low) * self.scale : (bottom - low) * self.scale]
        return spread.view(*self.residual.shape[:2], *spread.shape[2:])


# What a file can hold: values in [0, 1], on the levels of an integer.

RELAXATIONS = (1.9, 1.4) * 4
"""Step factors of the passes after the projection. Factors above 1 make up for the part of each
step that clipping takes away; alternating ones damp what a constant factor would keep swinging."""

_SOLVE_REACH = 4
"""LR samples to each side in :func:`solve_gram_nearly`."""


def solve_gram_nearly(residual: Tensor, scale: int) -> Tensor:
    """(A A')^-1 on (B, C, h, w) to a few per cent, from ``_SOLVE_REACH`` neighbours a side.

    Exact for constant residuals away from the borders; enough for a step of an iteration, and so
    short-sighted that the iteration works on strips.
    """
    middle = 8 * _SOLVE_REACH
    window = slice(middle - _SOLVE_REACH, middle + _SOLVE_REACH + 1)
    taps = torch.linalg.inv(_gram(2 * middle + 1, scale))[middle, window]
    taps = (scale * taps / taps.sum()).to(residual)
    reach = _SOLVE_REACH
    planes = F.pad(residual.flatten(0, 1).unsqueeze(1), (reach,) * 4, mode="replicate")
    planes = F.conv2d(F.conv2d(planes, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))
    return planes.view(residual.shape)


def _step_towards(sr: Tensor, lr: Tensor, scale: int) -> Tensor:
    """Nearly A+ (lr - A sr): what to add to ``sr`` so that it degrades to ``lr``."""
    return degrade_adjoint(solve_gram_nearly(lr - degrade(sr, scale), scale), scale)


def project_within(
    sr: Tensor,
    lr: Tensor,
    scale: int,
    *,
    low: Tensor | float = 0.0,
    high: Tensor | float = 1.0,
) -> Tensor:
    """A picture near ``sr`` with ``low <= picture <= high`` that degrades to ``lr`` as far as that
    allows: projection and clipping in turn.

    Clipping alone undoes the projection wherever it bites (41 to 60 dB of LR-PSNR are left on
    pictures with black or white parts); here what it takes from a pixel its neighbours give.

    Args:
        sr: (B, C, H, W).
        lr: (B, C, H / scale, W / scale).
        scale: of the degradation.
        low, high: bounds, for all pixels or (broadcast to sr) for each; equal bounds hold a pixel.
    """
    low, high = torch.as_tensor(low).to(sr), torch.as_tensor(high).to(sr)
    inside = project(sr, lr, scale).clamp(low, high)
    for relaxation in RELAXATIONS:
        step = _step_towards(inside, lr, scale)
        inside = inside.add(step, alpha=relaxation).clamp(low, high)
    return inside


_NOTICED = 0.5 / 255
"""What clipping may take from a pixel before it is made up for: what rounding takes anyway."""


class ClippedStripProjection:
    """:func:`project_within` [0, 1] for a picture that arrives in strips of rows.

    The interface of :class:`StripProjection`, which it starts with. The passes that follow touch
    only what lies near clipped pixels, and hold some 20 LR rows each.

    Args:
        lr: (3, h, w), what the result must degrade to.
        samples: pictures projected side by side.
        scale: of the degradation.
    """

    def __init__(self, lr: Tensor, samples: int, scale: int) -> None:
        self.scale = scale
        self.projection = StripProjection(lr, samples, scale)
        self.passes = [_StripPass(lr, samples, scale, factor) for factor in RELAXATIONS]

    def push(self, strip: Tensor) -> Tensor:
        """Takes the next rows (samples, 3, rows, W), a multiple of the scale; returns the rows,
        in [0, 1], that are final by now, perhaps none."""
        projected = self.projection.push(strip)
        rows = projected.clamp(0, 1)
        clipped = _any_in_cell((projected - rows).abs() > _NOTICED, self.scale)
        for relaxed_pass in self.passes:
            rows, clipped = relaxed_pass.push(rows, clipped)
        return rows


def _any_in_cell(pixels: Tensor, scale: int) -> Tensor:
    """(B, C, H, W) bool -> (B, H / scale, W / scale) bool: whether any pixel of a cell is set."""
    height, width = pixels.shape[2] // scale, pixels.shape[3] // scale
    return pixels.any(1).view(len(pixels), height, scale, width, scale).any(4).any(2)


class _StripPass:
    """One relaxed step and clipping, on strips, near the cells that the projection had clipped.

    Samples are stepped one by one, so that none depends on which others there are.
    """

    _REACH = _SOLVE_REACH + 4
    """LR samples that a step sees: two for the degradation, two for its adjoint, and the solver's
    own."""
    _NEAR = 4
    """LR samples from a clipped cell within which pixels are changed."""
    _BLOCK = 16

    def __init__(self, lr: Tensor, samples: int, scale: int, relaxation: float) -> None:
        self.lr, self.scale, self.relaxation = lr, scale, relaxation
        self.first = self.emitted = 0
        self.rows = torch.empty(samples, 3, 0, lr.shape[2] * scale, dtype=lr.dtype)
        self.clipped = torch.empty(samples, 0, lr.shape[2], dtype=torch.bool)

    def push(self, strip: Tensor, clipped: Tensor) -> tuple[Tensor, Tensor]:
        """Takes the next rows in [0, 1] and which of their cells (samples, rows / scale, w) were
        clipped; returns both for the rows that are final by now."""
        self.rows = torch.cat([self.rows, strip], dim=2)
        self.clipped = torch.cat([self.clipped, clipped], dim=1)
        end = self.first + self.clipped.shape[1]
        until = end if end == self.lr.shape[1] else end - self._REACH
        low, high = self.emitted - self.first, until - self.first
        if high <= low:
            return self.rows[:, :, :0], self.clipped[:, :0]
        done = self.rows[:, :, low * self.scale : high * self.scale].clone()
        for sample in range(len(done)):
            self._step_sample(sample, done[sample], low, high)
        done_clipped = self.clipped[:, low:high].clone()
        keep = max(0, high - self._REACH)
        self.rows = self.rows[:, :, keep * self.scale :].clone()
        self.clipped = self.clipped[:, keep:].clone()
        self.first, self.emitted = self.first + keep, until
        return done, done_clipped

    def _step_sample(self, sample: int, done: Tensor, low: int, high: int) -> None:
        """Steps rows ``low`` to ``high`` (LR, of those held) of one sample, ``done``, in place."""
        scale, reach, side = self.scale, self._REACH, 2 * self._NEAR + 1
        cells = self.clipped[sample].float()[None, None]
        cells = F.max_pool2d(cells, (1, side), 1, (0, self._NEAR))
        near = F.max_pool2d(cells, (side, 1), 1, (self._NEAR, 0))[0, 0, low:high] > 0
        for left, right in _runs(near.any(0), self._BLOCK):
            start, stop = max(0, left - reach), min(near.shape[1], right + reach)
            step = self._step(sample, start, stop)[:, low * scale : high * scale]
            step = step[..., (left - start) * scale : (right - start) * scale]
            here = near[:, left:right].repeat_interleave(scale, 0).repeat_interleave(scale, 1)
            part = done[..., left * scale : right * scale]
            part.addcmul_(step, here.to(step), value=self.relaxation).clamp_(0, 1)

    def _step(self, sample: int, start: int, stop: int) -> Tensor:
        """The step (3, rows, W) of all rows held of a sample, LR columns ``start`` to ``stop``."""
        lr = self.lr[:, self.first : self.first + self.clipped.shape[1], start:stop]
        rows = self.rows[sample, ..., start * self.scale : stop * self.scale]
        return _step_towards(rows.unsqueeze(0), lr.unsqueeze(0), self.scale)[0]


def _runs(columns: Tensor, block: int) -> list[tuple[int, int]]:
    """Ranges that cover the set ones of (w,) bool, whole blocks of columns at a time."""
    runs: list[tuple[int, int]] = []
    for left in range(0, len(columns), block):
        right = min(left + block, len(columns))
        if not bool(columns[left:right].any()):
            continue
        if runs and runs[-1][1] == left:
            runs[-1] = (runs[-1][0], right)
        else:
            runs.append((left, right))
    return runs


def round_cells(pixels: Tensor, scale: int, *, full: int = 255) -> Tensor:
    """Rounds to the levels 0..full so that the rounding errors of a cell cancel.

    Each pixel's error is handed on to the next one of its ``scale`` x ``scale`` cell, row by row
    there and back. Plain rounding caps LR-PSNR at 72.3 dB (scale 4, 8 bits); this way it is about
    80 dB, at most one level away from the value itself. Cells do not see each other, so any
    strips of whole cells give the whole picture's result.

    Args:
        pixels: (..., H, W) in [0, 1], H and W multiples of the scale.
        scale: side of a cell.
        full: the level that stands for 1.

    Returns:
        (..., H, W): integers / full, in [0, 1].
    """
    height, width = pixels.shape[-2:]
    cells = (*pixels.shape[:-2], height // scale, scale, width // scale, scale)
    levels = (pixels * full).reshape(cells)
    rounded = torch.empty_like(levels)
    error = torch.zeros_like(levels[..., 0, :, 0])
    for row in range(scale):
        for column in range(scale) if row % 2 == 0 else reversed(range(scale)):
            wanted = levels[..., row, :, column] + error
            rounded[..., row, :, column] = wanted.round().clamp_(0, full)
            error = wanted - rounded[..., row, :, column]
    return (rounded / full).view(pixels.shape)


class StripDegradation:
    """:func:`degrade` of a picture that arrives in strips of rows.

    Args:
        height: of the degraded picture.
        scale: of the degradation.
    """

    _REACH = 2

    def __init__(self, height: int, scale: int) -> None:
        self.height, self.scale = height, scale
        self.first = self.emitted = 0
        self.rows: Tensor | None = None

    def push(self, strip: Tensor) -> Tensor:
        """Takes the next rows (B, C, rows, W), a multiple of the scale; returns the degraded rows
        (B, C, r, W / scale) that are known by now, perhaps none."""
        rows = strip if self.rows is None else torch.cat([self.rows, strip], dim=2)
        end = self.first + rows.shape[2] // self.scale
        until = end if end == self.height else max(self.emitted, end - self._REACH)
        known = degrade(rows, self.scale) if rows.shape[2] else rows[..., :: self.scale]
        known = known[:, :, self.emitted - self.first : until - self.first]
        keep = max(self.first, until - self._REACH)
        self.rows = rows[:, :, (keep - self.first) * self.scale :].clone()
        self.first, self.emitted = keep, until
        return known
