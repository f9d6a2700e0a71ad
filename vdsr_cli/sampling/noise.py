"""The noise field: standard normals that depend on where they are, and on nothing else.

The number at (seed, sample, layer, row, column, channel) is a hash of these six and a look-up in a
table of 65,536 normal quantiles: integer arithmetic and a gather, so every device gives the same
bits, however the picture is cut into tiles and batches. Overlapping tiles see the same noise and
agree where they overlap; sample 3 of 5 is sample 3 of 100.

    (seed, sample, layer) ─► key          splitmix64, on Python integers
    key, row              ─► row hash     (rows,)
    row hash, column      ─► cell hash    (rows, columns)
    cell hash, channel/2  ─► 32 bits      (rows, columns, ceil(channels / 2)) ─► two 16-bit indices
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from vdsr_cli.models.protocol import LatentShape, NoiseSource

PIXEL_LAYER = -1
"""The noise field's layer for the likelihood's own noise (``--pixels sample``)."""
_MASK64 = (1 << 64) - 1
_TABLE_BITS = 16
_CHUNK_CELLS = 1 << 16
"""Cells hashed at a time on the CPU, so that the intermediate integers stay in its cache."""


def _splitmix64(state: int) -> int:
    """One output of the splitmix64 generator (Steele, Lea, Flood 2014)."""
    z = (state + 0x9E3779B97F4A7C15) & _MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK64
    return z ^ (z >> 31)


def _signed32(value: int) -> int:
    """The low 32 bits as a signed integer, which is what torch multiplies without promotion."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def _mix_(x: Tensor) -> Tensor:
    """In-place 32-bit finaliser with two multiplications (Wellons' lowbias32); x is int32."""
    x ^= (x >> 16) & 0xFFFF
    x *= _signed32(0x7FEB352D)
    x ^= (x >> 15) & 0x1FFFF
    x *= _signed32(0x846CA68B)
    x ^= (x >> 16) & 0xFFFF
    return x


@lru_cache(maxsize=8)
def _normal_table(device: torch.device) -> Tensor:
    """(65536,) float32: the standard normal's quantiles at (k + 1/2) / 65536; extremes +-4.32."""
    levels = (torch.arange(1 << _TABLE_BITS, dtype=torch.float64) + 0.5) / (1 << _TABLE_BITS)
    quantiles: Tensor = torch.special.ndtri(levels)
    return quantiles.float().to(device)


@lru_cache(maxsize=8)
def _logistic_table(device: torch.device) -> Tensor:
    """(65536,) float32: the standard logistic's quantiles at (k + 1/2) / 65536; extremes +-11.8."""
    levels = (torch.arange(1 << _TABLE_BITS, dtype=torch.float64) + 0.5) / (1 << _TABLE_BITS)
    return torch.logit(levels).float().to(device)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseField:
    """The noise of one sample.

    Attributes:
        seed: the user's seed, any integer.
        sample: index among the samples of one picture, from 0.
    """

    seed: int
    sample: int = 0

    def normal(self, layer: int, rows: Tensor, columns: Tensor, channels: int) -> Tensor:
        """Standard normals (len(rows), len(columns), channels), float32, on the rows' device.

        Args:
            layer: index of the stochastic layer.
            rows: (h,) int32 absolute cell positions; negative ones are positions like others.
            columns: (w,) int32, likewise.
            channels: latent channels.
        """
        return self._draw(layer, rows, columns, channels, _normal_table(rows.device))

    def logistic(self, layer: int, rows: Tensor, columns: Tensor, channels: int) -> Tensor:
        """Standard logistic noise; otherwise as :meth:`normal`."""
        return self._draw(layer, rows, columns, channels, _logistic_table(rows.device))

    def _key(self, layer: int) -> tuple[int, int]:
        state = _splitmix64(self.seed & _MASK64)
        state = _splitmix64(state ^ self.sample)
        state = _splitmix64(state ^ (layer & _MASK64))
        return _signed32(state), _signed32(state >> 32)

    def _draw(
        self, layer: int, rows: Tensor, columns: Tensor, channels: int, table: Tensor
    ) -> Tensor:
        row_key, column_key = self._key(layer)
        row_hash = _mix_(rows * _signed32(0x9E3779B1) + row_key)
        column_hash = columns * _signed32(0x85EBCA77) + column_key
        pairs = (channels + 1) // 2
        channel_hash = torch.arange(1, pairs + 1, dtype=torch.int32, device=rows.device)
        channel_hash *= _signed32(0xC2B2AE3D)
        out = torch.empty(len(rows), len(columns), 2 * pairs, device=rows.device)
        cells_each = _CHUNK_CELLS if rows.device.type == "cpu" else out.numel()
        step = max(1, cells_each // max(1, len(columns) * pairs))
        for top in range(0, len(rows), step):
            cells = _mix_(row_hash[top : top + step, None] + column_hash)
            bits = _mix_(cells.unsqueeze(2) + channel_hash)
            index = bits.view(torch.int16).int() + (1 << (_TABLE_BITS - 1))
            torch.index_select(table, 0, index.view(-1), out=out[top : top + step].view(-1))
        return out[:, :, :channels]


def noise_of(
    fields: Sequence[NoiseField],
    size: tuple[int, int],
    device: torch.device,
    *,
    origin: tuple[int, int] = (0, 0),
) -> NoiseSource:
    """The latents' noise of some samples: (samples, channels, H / cell, W / cell) of each layer.

    ``origin`` is where in a larger picture the pixels begin, row and column in whole cells.
    """

    def draw(shape: LatentShape) -> Tensor:
        spans = zip(origin, size, strict=True)
        rows, columns = (_cells(start, length, shape.cell, device) for start, length in spans)
        drawn = [field.normal(shape.layer, rows, columns, shape.channels) for field in fields]
        return torch.stack(drawn).permute(0, 3, 1, 2)

    return draw


def pixel_noise(
    fields: Sequence[NoiseField], channels: int, size: tuple[int, int], device: torch.device
) -> Tensor:
    """Logistic noise for the pixels of some samples: (samples, channels, H, W)."""
    rows, columns = (_cells(0, length, 1, device) for length in size)
    drawn = [field.logistic(PIXEL_LAYER, rows, columns, channels) for field in fields]
    return torch.stack(drawn).permute(0, 3, 1, 2)


def _cells(start: int, length: int, cell: int, device: torch.device) -> Tensor:
    first = start // cell
    return torch.arange(first, first + length // cell, dtype=torch.int32, device=device)
