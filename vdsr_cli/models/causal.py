"""The pixels before a pixel, in the compact models' likelihood.

    n of r = sum over k of a_k (r_k - mean_k)      k: left, above, above left, above right
    n of g = the same of (g_k - mean_k) - c_gr (r_k - mean_k), n of b likewise: see colours
    told = what the 12 pixels before differ by  ─► network ─► more of n, of a, c and log scale

    x x x x x
    x x x x x      before: two rows up, two columns to each side, in the raster order
    x x o

So what the latents leave open may be grain of any direction and size, and a picture whose grain is
less than its latents say, or whose colours move together more, is learnt from what is there of it.
The magnitudes of the a, one a colour, sum to less than 1, and the network is told logarithms, so
that no draw runs away. What it is told counts as data: no gradient goes through it.

Pixels depend on others of their block, which is one of the coarsest cells. Blocks are independent
given the latents: they are drawn side by side, and tiles that start on them agree. Within a block
the pixels of one ``x + 3 y`` are drawn at once, since none of them is before another.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.models.colours import COLOUR_CHANNELS, LOG_SCALES, Colours, bounded, from_colours

_BEFORE = (
    *((0, 1), (1, 0), (1, 1), (1, -1)),
    *((0, 2), (1, 2), (1, -2), (2, 2), (2, 1), (2, 0), (2, -1), (2, -2)),
)
"""Rows up and columns to the left; first those that pixels take over from."""
_NEIGHBOURS = 4
NEIGHBOUR_CHANNELS = 3 * _NEIGHBOURS
_TOLD = 6
"""Numbers that the network is told of each pixel before."""
_RAW = COLOUR_CHANNELS + NEIGHBOUR_CHANNELS
_FIRST_RAW = 6
_ORDER = 3
"""Columns that a row's pixels are drawn after those of the row above."""
_USUAL_LOG_SCALE = -4.0


class PixelsBefore(nn.Module):
    """Conditions the likelihood's parameters on the pixels before in each block.

    Args:
        block: side of the blocks.
        width: channels of the network; 0 for none, the a alone.
    """

    def __init__(self, block: int, width: int) -> None:
        super().__init__()
        self.block = block
        self.network = None
        if width:
            last = nn.Linear(width, 6 + _RAW)
            inputs = _TOLD * len(_BEFORE) + 3 + _RAW
            hidden = (nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
            self.network = nn.Sequential(*hidden, last)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def colours(self, hr: Tensor, parameters: Tensor) -> Colours:
        """The logistics of each pixel given those before it in hr, colours last.

        Args:
            hr: (B, 3, H, W) in [-1, 1]; sides are multiples of the block's.
            parameters: (B, 21, H, W), float32 or wider.
        """
        rows, pixels = self._folded(parameters), self._folded(hr)
        off = pixels - rows[..., :3].clamp(-1, 1)
        places = _places(self.block, hr.device)
        near = _gathered(off, places[:, :_NEIGHBOURS])
        told = None
        if self.network is not None:
            told = _gathered(_told(pixels, off, rows, near).detach(), places)
        return self._given(rows, near, told).mapped(lambda part: self._unfolded(part, hr.shape))

    def draw(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) on [-1, 1] of parameters (B, 21, H, W) by standard logistic noise
        (B, 3, H, W)."""
        rows, deviations = self._folded(parameters), self._folded(noise)
        drawn = torch.empty_like(deviations)
        # The last slab, of zeros, stands for what is outside of the block.
        off = deviations.new_zeros(len(drawn) + 1, *drawn.shape[1:])
        told = deviations.new_zeros(*off.shape[:2], _TOLD)
        places = _places(self.block, drawn.device)
        for here in _fronts(self.block, drawn.device):
            near = _at(off, places[here, :_NEIGHBOURS])
            context = None if self.network is None else _at(told, places[here])
            pixels = self._given(rows[here], near, context).drawn(deviations[here])
            drawn[here], off[here] = pixels, pixels - rows[here][..., :3].clamp(-1, 1)
            if self.network is not None:
                told[here] = _told(pixels, off[here], rows[here], near)
        return self._unfolded(drawn, noise.shape).movedim(-1, 1)

    def _given(self, rows: Tensor, near: Tensor, told: Tensor | None) -> Colours:
        """Logistics of parameters (P, N, 21) given what the pixels before are off by (P, N, 4, 3)
        and what the network is told of them (P, N, 12, 6)."""
        if self.network is None or told is None:
            return _moved(rows, near)
        described = torch.cat(
            [told.flatten(-2), rows[..., 3:6] - _USUAL_LOG_SCALE, rows[..., _FIRST_RAW:]], -1
        )
        (weight, *_) = self.network.parameters()
        more = self.network(described.to(weight.dtype)).to(rows.dtype)
        scale = rows[..., 3:6]
        log_scale = (scale + bounded(more[..., 3:6])).clamp(*LOG_SCALES)
        raw = rows[..., _FIRST_RAW:] + more[..., 6:]
        refined = torch.cat([rows[..., :3], log_scale, raw], -1)
        return _moved(refined, near, more[..., :3] * scale.exp())

    def _folded(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (P, N, C): the P pixels of each of N blocks, in the raster order."""
        batch, channels, height, width = maps.shape
        side = self.block
        cells = maps.view(batch, channels, height // side, side, width // side, side)
        return cells.permute(3, 5, 0, 2, 4, 1).reshape(side**2, -1, channels)

    def _unfolded(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        """(P, N, C) -> (B, H, W, C)."""
        batch, _, height, width = shape
        side = self.block
        cells = rows.view(side, side, batch, height // side, width // side, -1)
        return cells.permute(2, 3, 0, 4, 1, 5).reshape(batch, height, width, -1)


def _moved(rows: Tensor, near: Tensor, more: Tensor | float = 0.0) -> Colours:
    """Logistics whose means neighbours that are off by (P, N, 4, 3) move by the a, each colour by
    what those before it leave of the neighbours' own; ``more`` is added."""
    colours = Colours.of(rows)
    assert colours.coupling is not None
    own = near - from_colours(near, colours.coupling.unsqueeze(-2))
    raw = rows[..., _FIRST_RAW + COLOUR_CHANNELS :]
    raw = raw.view(*raw.shape[:-1], _NEIGHBOURS, 3)
    within = (1 + raw.abs().sum(-2).square()).rsqrt()
    return colours._replace(location=colours.location + (raw * own).sum(-2) * within + more)


def _told(pixels: Tensor, off: Tensor, rows: Tensor, near: Tensor) -> Tensor:
    """The numbers (P, N, 6) that the network is told of a pixel (P, N, 3): in scales, by how much
    each colour differs from what the a and c expected, and from its mean."""
    surprise = pixels - _moved(rows, near).located(pixels)
    units = torch.cat([surprise, off], -1) * (-rows[..., 3:6]).exp().repeat(1, 1, 2)
    return units.sign() * units.abs().log1p()


@lru_cache
@torch.inference_mode(False)
def _places(block: int, device: torch.device) -> Tensor:
    """The index of each pixel before (P, 12) of each of a block; P for one outside."""
    index = torch.arange(block**2, device=device).unsqueeze(1)
    y, x = index // block, index % block
    up, left = torch.tensor(_BEFORE, device=device).unbind(1)
    rows, columns = y - up, x - left
    outside = (rows < 0) | (columns < 0) | (columns >= block)
    return torch.where(outside, block**2, rows * block + columns)


@lru_cache
@torch.inference_mode(False)
def _fronts(block: int, device: torch.device) -> list[Tensor]:
    """The pixels of a block that are drawn at once, front after front."""
    index = torch.arange(block**2, device=device)
    order = index % block + _ORDER * (index // block)
    return [(order == front).nonzero().flatten() for front in range(int(order.max()) + 1)]


def _gathered(values: Tensor, places: Tensor) -> Tensor:
    """(P, N, C) at places (Q, K): (Q, N, K, C), 0 outside."""
    return _at(F.pad(values, (0, 0, 0, 0, 0, 1)), places)


def _at(padded: Tensor, places: Tensor) -> Tensor:
    """(P + 1, N, C) at places (Q, K): (Q, N, K, C)."""
    flat = padded.index_select(0, places.flatten())
    return flat.view(*places.shape, *flat.shape[1:]).transpose(1, 2)
