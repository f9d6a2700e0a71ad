"""The pixels before a pixel, in the compact models' likelihood.

    n of r = sum over k of a_k (r_k - mean_k)      k: left, above, above left, above right
    n of g = the same of (g_k - mean_k) - c_gr (r_k - mean_k), n of b likewise: see colours
    told = what the 24 pixels before differ by, ─► network ─► more of n, c, log scale and of a,
           how colour changes among them,                     which the 20 others have from here,
           and whether x and y are odd                        spread and tails, and whether the
                                                              colour is that of left or above
    x x x x x x x
    x x x x x x x
    x x x x x x x      before: three rows up, three columns to each side, in the raster order
    x x x o

So what the latents leave open may be grain of any direction and size, and a picture whose grain is
less than its latents say, or whose colours move together more, is learnt from what is there of it.
So is a picture of which colour was once kept for two pixels or four, as JPEG and video do: within
those green and blue differ from red by what they do left or above, and a share w of the network's
for each of the two says so,

    location of g = (1 - sum of w) location_g + sum over k of w_k (g_k - r_k + r)      b likewise

The magnitudes of the a, one a colour, sum to less than 1, and the network is told logarithms, so
that no draw runs away. What it is told counts as data: no gradient goes through it.

Pixels depend on others of their block, which is one of the coarsest cells. Blocks are independent
given the latents: they are drawn side by side, and tiles that start on them agree. Within a block
the pixels of one ``x + 4 y`` are drawn at once, since none of them is before another.
"""

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vdsr_cli.models.colours import (
    COLOUR_CHANNELS,
    LOG_SCALES,
    SHAPE_CHANNELS,
    Colours,
    bounded,
    from_colours,
)

_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Rows up and columns to the left of those whose a the latents tell."""
NEIGHBOUR_CHANNELS = 3 * len(_NEIGHBOURS)
_REACH = 3
_BEFORE = _NEIGHBOURS + tuple(
    place
    for place in itertools.product(range(_REACH + 1), range(_REACH, -_REACH - 1, -1))
    if place > (0, 0) and place not in _NEIGHBOURS
)
"""All pixels before, neighbours first."""
_TOLD = 9
"""Numbers that the network is told of each pixel before."""
_PAIRS = tuple(
    (_BEFORE.index(one), _BEFORE.index(other))
    for one, other in (
        ((0, 1), (0, 2)),
        ((1, 0), (1, 1)),
        ((1, 0), (1, -1)),
        ((2, 0), (2, 1)),
        ((2, 0), (2, -1)),
        ((1, 0), (2, 0)),
        ((0, 1), (1, 1)),
        ((1, -1), (2, -1)),
    )
)
"""Pixels before that lie side by side, or one above the other: it is told what changes there."""
_COPIED = 2
"""The first of those before: left and above, whose colour a pixel may have."""
_COPY_SLOPE, _COPY_COST = 4.0, 5.0
"""Slope and cost of a share's score: at 0 a pixel has 0.7 % of the colour near by, since a network
that knows nothing yet must not rely on it, at 3 all but 0.1 %."""
_RAW = COLOUR_CHANNELS + NEIGHBOUR_CHANNELS
_FIRST_RAW = 6
_OUTPUTS = 6 + COLOUR_CHANNELS + 3 * len(_BEFORE) + SHAPE_CHANNELS + _COPIED
"""Numbers that the network tells."""
_ORDER = _REACH + 1
"""Columns that a row's pixels are drawn after those of the row above."""
_USUAL_LOG_SCALE = -4.0
_AT_ONCE = 2**15
"""Pixels whose predecessors are gathered at once: more leave the processor's caches."""


class _Seen(NamedTuple):
    """The pixels before those (P, N), as the network and the shares see them.

    Attributes:
        told: all that the network is told of them: (P, N, numbers).
        near: those to the left and above: (P, N, 2, 3).
        inside: whether these are in the block: (P, 2).
    """

    told: Tensor
    near: Tensor
    inside: Tensor


class PixelsBefore(nn.Module):
    """Conditions the likelihood's parameters on the pixels before in each block.

    Args:
        block: side of the blocks.
        width: channels of the network; 0 for none, the neighbours' a alone.
    """

    def __init__(self, block: int, width: int) -> None:
        super().__init__()
        self.block = block
        self.network = None
        self.pixels = len(_BEFORE if width else _NEIGHBOURS)
        """How many of those before a pixel it depends on."""
        if width:
            inputs = _TOLD * len(_BEFORE) + 3 * len(_PAIRS) + 3 + 3 + _RAW
            layers = [(nn.Linear(size, width), nn.ReLU()) for size in (inputs, width, width)]
            last = nn.Linear(width, _OUTPUTS)
            self.network = nn.Sequential(*itertools.chain(*layers), last)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def colours(self, hr: Tensor, parameters: Tensor) -> Colours:
        """The logistics of each pixel given those before it in hr, colours last.

        Args:
            hr: (B, 3, H, W) in [-1, 1]; sides are multiples of the block's.
            parameters: (B, 21, H, W), float32 or wider.
        """
        rows, pixels = self._folded(parameters), self._folded(hr)
        blocks = max(1, _AT_ONCE // self.block**2)
        parts = zip(torch.split(rows, blocks, 1), torch.split(pixels, blocks, 1), strict=True)
        found = [self._colours(*part) for part in parts]
        return Colours.joined(found).mapped(lambda part: self._unfolded(part, hr.shape))

    def draw(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) on [-1, 1] of parameters (B, 21, H, W) by standard logistic noise
        (B, 3, H, W)."""
        rows, deviations = self._folded(parameters), self._folded(noise)
        # The last slab stands for what is outside of the block.
        pixels = deviations.new_zeros(len(deviations) + 1, *deviations.shape[1:])
        off, told = torch.zeros_like(pixels), pixels.new_zeros(*pixels.shape[:2], 6)
        places = self._places(pixels.device)
        for here in _fronts(self.block, pixels.device):
            before, given = places[here], rows[here]
            near, seen = _at(off, before), None
            if self.network is not None:
                inside, odd = before < len(deviations), _odd(self.block, pixels.device)[here]
                seen = _seen(_at(told, before), _at(pixels, before), inside, odd, given)
            drawn = self._given(given, near, seen).drawn(deviations[here])
            pixels[here], off[here] = drawn, drawn - _centres(given)
            if self.network is not None:
                told[here] = _surprises(drawn, off[here], given, near)
        return self._unfolded(pixels[:-1], noise.shape).movedim(-1, 1)

    def _colours(self, rows: Tensor, pixels: Tensor) -> Colours:
        """Logistics of parameters (P, N, 21) given pixels (P, N, 3), of whole blocks."""
        places = self._places(rows.device)
        off = pixels - _centres(rows)
        near, seen = _gathered(off, places), None
        if self.network is not None:
            with torch.no_grad():
                told = _gathered(_surprises(pixels, off, rows, near), places)
                inside, odd = places < len(pixels), _odd(self.block, pixels.device)
                seen = _seen(told, _gathered(pixels, places), inside, odd, rows)
        return self._given(rows, near, seen)

    def _given(self, rows: Tensor, near: Tensor, seen: _Seen | None) -> Colours:
        """Logistics of parameters (P, N, 21) given what the pixels before are off by (P, N, 24, 3)
        and what the network is told of them."""
        if self.network is None or seen is None:
            return _moved(rows, near)
        described = torch.cat(
            [seen.told, rows[..., 3:6] - _USUAL_LOG_SCALE, rows[..., _FIRST_RAW:]], -1
        )
        (weight, *_) = self.network.parameters()
        told = self.network(described.to(weight.dtype)).to(rows.dtype)
        parts = [_OUTPUTS - SHAPE_CHANNELS - _COPIED, SHAPE_CHANNELS, _COPIED]
        more, shape, copied = torch.split(told, parts, -1)
        scale = rows[..., 3:6]
        log_scale = (scale + bounded(more[..., 3:6])).clamp(*LOG_SCALES)
        others = more.shape[-1] - 6 - _RAW
        raw = F.pad(rows[..., _FIRST_RAW:], (0, others)) + more[..., 6:]
        refined = torch.cat([rows[..., :3], log_scale, raw], -1)
        colours = _moved(refined, near, more[..., :3] * scale.exp()).shaped(shape)
        return _copied(colours, copied, seen)

    def _places(self, device: torch.device) -> Tensor:
        return _places(self.block, device)[:, : self.pixels]

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


def as_now(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's weights, those of a network of an older file that was told and tells less among
    zeros: it computes what it did, but for usual tails and a colour that is hardly copied."""
    state = dict(state)
    first, last = (state.get(f"before.network.{layer}.weight") for layer in (0, 6))
    if first is None or last is None:
        return state
    told, more = _TOLD * len(_BEFORE), 3 * len(_PAIRS) + 3
    if first.shape[1] == told + 3 + _RAW:
        zeros = first.new_zeros(len(first), more)
        parts = first[:, :told], zeros, first[:, told:]
        state["before.network.0.weight"] = torch.cat(parts, 1)
    lacking = _OUTPUTS - len(last)
    if lacking in (_COPIED, SHAPE_CHANNELS + _COPIED):
        for name in ("before.network.6.weight", "before.network.6.bias"):
            zeros = state[name].new_zeros(lacking, *state[name].shape[1:])
            state[name] = torch.cat([state[name], zeros])
    return state


def _centres(rows: Tensor) -> Tensor:
    """The means within white and black of parameters (..., 21): (..., 3)."""
    return rows[..., :3].clamp(-1, 1)


def _moved(rows: Tensor, near: Tensor, more: Tensor | float = 0.0) -> Colours:
    """Logistics whose means pixels that are off by (P, N, 24, 3) move by the a of as many of them
    as the parameters (P, N, 9 + 3 k) have, each colour by what those before it leave of the
    pixel's own; ``more`` is added."""
    colours = Colours.of(rows)
    assert colours.coupling is not None
    raw = rows[..., _FIRST_RAW + COLOUR_CHANNELS :]
    raw = raw.view(*raw.shape[:-1], -1, 3)
    near = near[..., : raw.shape[-2], :]
    own = near - from_colours(near, colours.coupling.unsqueeze(-2))
    within = (1 + raw.abs().sum(-2).square()).rsqrt()
    return colours._replace(location=colours.location + (raw * own).sum(-2) * within + more)


def _surprises(pixels: Tensor, off: Tensor, rows: Tensor, near: Tensor) -> Tensor:
    """The numbers (P, N, 6) that the network is told of a pixel (P, N, 3) wherever it looks from:
    in its scales, by how much a colour differs from what a and c expected, and from its mean."""
    surprise = pixels - _moved(rows, near).located(pixels)
    return torch.cat([_told(surprise, rows), _told(off, rows)], -1)


def _seen(told: Tensor, before: Tensor, inside: Tensor, odd: Tensor, rows: Tensor) -> _Seen:
    """All that is seen at parameters (P, N, 21): what the pixels before tell (P, N, 24, 6), by
    how much those (P, N, 24, 3) that are inside of the block (P, 24) differ from the mean here and
    in pairs, and what is odd here (P, 3)."""
    apart = (before - _centres(rows).unsqueeze(-2)) * inside[:, None, :, None]
    each = torch.cat([told, _told(apart, rows.unsqueeze(-2))], -1).flatten(-2)
    changes = _changes(before, inside).flatten(-2)
    odd = odd.to(each).unsqueeze(1).expand(-1, rows.shape[1], -1)
    return _Seen(torch.cat([each, changes, odd], -1), before[..., :_COPIED, :], inside[:, :_COPIED])


def _copied(colours: Colours, raw: Tensor, seen: _Seen) -> Colours:
    """The same where green and blue may differ from red by as much as they do in the pixels near,
    by numbers (P, N, 2) of which 0 is hardly."""
    assert colours.coupling is not None
    scores = _COPY_SLOPE * raw - _COPY_COST
    scores = scores.masked_fill(~seen.inside.unsqueeze(1), -torch.inf)
    share = F.pad(scores, (1, 0)).softmax(-1)[..., 1:].unsqueeze(-1)
    copied = share.sum(-2)
    both = copied.expand(-1, -1, 2)
    # Of red nothing is copied; green and blue then follow it alone, by a c of 1.
    of_colour, on_red = F.pad(both, (1, 0)), F.pad(both, (0, 1))
    tint = (share * (seen.near - seen.near[..., :1])).sum(-2) + of_colour * colours.centre[..., :1]
    return colours._replace(
        location=(1 - of_colour) * colours.location + tint,
        coupling=(1 - copied) * colours.coupling + on_red,
    )


def _changes(before: Tensor, inside: Tensor) -> Tensor:
    """Logarithms of the grey levels by which pairs of the pixels before (P, N, 24, 3) differ in
    green and in red and blue less green: (P, N, pairs, 3), 0 outside of the block (P, 24)."""
    one, other = _pairs(before.device)
    change = 127.5 * (before[:, :, one] - before[:, :, other])
    green = change[..., 1:2]
    levels = torch.cat([green, change[..., ::2] - green], -1)
    return _signed_log(levels) * (inside[:, one] & inside[:, other])[:, None, :, None]


def _told(differences: Tensor, rows: Tensor) -> Tensor:
    """Logarithms of differences (..., 3) of colours, in the scales of parameters (..., 21)."""
    return _signed_log(differences * (-rows[..., 3:6]).exp())


def _signed_log(differences: Tensor) -> Tensor:
    return differences.sign() * differences.abs().log1p()


@lru_cache
@torch.inference_mode(False)
def _places(block: int, device: torch.device) -> Tensor:
    """The index of each pixel before (P, 24) of each of a block; P for one outside."""
    index = torch.arange(block**2, device=device).unsqueeze(1)
    y, x = index // block, index % block
    up, left = torch.tensor(_BEFORE, device=device).unbind(1)
    rows, columns = y - up, x - left
    outside = (rows < 0) | (columns < 0) | (columns >= block)
    return torch.where(outside, block**2, rows * block + columns)


@lru_cache
@torch.inference_mode(False)
def _pairs(device: torch.device) -> Tensor:
    """The indices of the first and of the second pixel of each pair: (2, pairs). On the device from
    the first step on, since a CUDA graph that is being recorded takes nothing from the host."""
    return torch.tensor(_PAIRS, device=device).T.contiguous()


@lru_cache
@torch.inference_mode(False)
def _odd(block: int, device: torch.device) -> Tensor:
    """Signs of each pixel of a block, 1 of an odd x and -1 of an even one, of y likewise, and
    their product: (P, 3)."""
    index = torch.arange(block**2, device=device)
    x, y = 2 * (index % block % 2) - 1, 2 * (index // block % 2) - 1
    return torch.stack([x, y, x * y], 1)


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
