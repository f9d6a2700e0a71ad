"""Where the noise of a sample comes from, and keeping it in a file.

The *latents* of a sample are here the standard normals of each stochastic layer, from which the
model makes z = mean + temperature * std * noise. Unlike z itself they do not depend on how the
picture is cut into tiles, so one map a layer, over the whole picture, holds a sample exactly.

    NoiseField     drawn from a seed          (vdsr_cli.sampling.noise)
    StoredNoise    read from a file
    MaskedNoise    one inside a mask, another outside
    WalkNoise      on the way from one to another
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vdsr_cli.errors import InputError, OutputError
from vdsr_cli.files import atomic_path
from vdsr_cli.models.protocol import LatentShape, Sampler
from vdsr_cli.sampling.engine import SampleNoise, SamplingSettings, plan_for

_METADATA_KEY = "vdsr_latents"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentGrid:
    """The cells of each layer over a whole picture, its padding included.

    Attributes:
        shapes: the stochastic layers, coarse to fine.
        height, width: HR pixels that the cells cover.
    """

    shapes: tuple[LatentShape, ...]
    height: int
    width: int

    def positions(self, shape: LatentShape) -> tuple[Tensor, Tensor]:
        """Cell positions of the rows and of the columns of a layer, int32, from 0."""
        rows, columns, _ = self.size(shape)
        return torch.arange(rows, dtype=torch.int32), torch.arange(columns, dtype=torch.int32)

    def draw(self, noise: SampleNoise, shape: LatentShape) -> Tensor:
        """The noise of a whole layer: (rows, columns, channels)."""
        return noise.normal(shape.layer, *self.positions(shape), shape.channels)

    def size(self, shape: LatentShape) -> tuple[int, int, int]:
        """Shape of the noise that :meth:`draw` gives."""
        if shape.is_global:
            return 1, 1, shape.channels
        return self.height // shape.cell, self.width // shape.cell, shape.channels


def latent_grid(model: Sampler, height: int, width: int, settings: SamplingSettings) -> LatentGrid:
    """The grid of an LR picture of ``height`` by ``width`` pixels."""
    padding = plan_for(model, height, width, settings).padding
    # The margin, which is as wide on all sides, has the noise of what it mirrors.
    height += padding.bottom - padding.top
    width += padding.right - padding.left
    return LatentGrid(
        shapes=tuple(model.latent_shapes), height=height * model.scale, width=width * model.scale
    )


class StoredNoise:
    """Noise that was drawn before: one map (rows, columns, channels) a layer."""

    def __init__(self, layers: Mapping[int, Tensor]) -> None:
        self.layers = layers

    def normal(self, layer: int, rows: Tensor, columns: Tensor, channels: int) -> Tensor:
        """The stored values at these positions."""
        stored = self.layers[layer].to(rows.device)
        return stored[rows.long()][:, columns.long()]

    def logistic(self, layer: int, rows: Tensor, columns: Tensor, channels: int) -> Tensor:
        """The likelihood's noise is not stored."""
        raise NotImplementedError("stored latents hold no noise of pixels")


class MaskedNoise:
    """``inside`` in cells that a mask touches, ``outside`` elsewhere.

    Args:
        mask: (H, W) bool, HR pixels.
        shapes: the layers, for their cells.
    """

    def __init__(
        self,
        inside: SampleNoise,
        outside: SampleNoise,
        mask: Tensor,
        shapes: Sequence[LatentShape],
    ) -> None:
        self.inside, self.outside, self.mask = inside, outside, mask
        self.cells = {shape.layer: _touched_cells(mask, shape) for shape in shapes}

    def normal(self, layer: int, rows: Tensor, columns: Tensor, channels: int) -> Tensor:
        """Standard normals, as :meth:`NoiseField.normal`."""
        touched = self._at(self.cells[layer], rows, columns)
        inside = self.inside.normal(layer, rows, columns, channels)
        return torch.where(touched, inside, self.outside.normal(layer, rows, columns, channels))

    def logistic(self, layer: int, rows: Tensor, columns: Tensor, channels: int) -> Tensor:
        """Standard logistic noise of pixels, likewise."""
        touched = self._at(self.mask, rows, columns)
        inside = self.inside.logistic(layer, rows, columns, channels)
        return torch.where(touched, inside, self.outside.logistic(layer, rows, columns, channels))

    @staticmethod
    def _at(cells: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The cells at positions, those beyond the picture as its border: (rows, columns, 1)."""
        cells = cells.to(rows.device)
        low_high = (rows.long().clamp(0, len(cells) - 1), columns.long())
        return cells[low_high[0]][:, low_high[1].clamp(0, cells.shape[1] - 1)].unsqueeze(2)


def _touched_cells(mask: Tensor, shape: LatentShape) -> Tensor:
    """(H, W) bool -> (ceil(H / cell), ceil(W / cell)) bool: whether any pixel of a cell is set."""
    if shape.is_global:
        return mask.any()[None, None]
    pooled = F.max_pool2d(mask.float()[None, None], shape.cell, ceil_mode=True)
    return pooled[0, 0] > 0


class WalkNoise:
    """A point of the great-circle walk from one sample's noise to another's, layer by layer.

    sin((1 - t) a) / sin(a) * start + sin(t a) / sin(a) * end, with a the angle between the two
    maps of a layer (nearly a right angle for independent draws). So every point has the length
    of a draw; a straight line would pass through noise that is too quiet, and so too smooth.

    Args:
        t: 0 at ``start``, 1 at ``end``; both ends are met exactly.
        angles: of each layer, from :func:`layer_angles`.
    """

    def __init__(
        self, start: SampleNoise, end: SampleNoise, t: float, angles: Mapping[int, float]
    ) -> None:
        self.start, self.end = start, end
        self.weights = {layer: _walk_weights(t, angle) for layer, angle in angles.items()}

    def normal(self, layer: int, rows: Tensor, columns: Tensor, channels: int) -> Tensor:
        """Standard normals, as :meth:`NoiseField.normal`."""
        start, end = self.weights[layer]
        mixed = start * self.start.normal(layer, rows, columns, channels)
        return mixed.add_(self.end.normal(layer, rows, columns, channels), alpha=end)

    def logistic(self, layer: int, rows: Tensor, columns: Tensor, channels: int) -> Tensor:
        """Logistic noise has no such walk."""
        raise NotImplementedError("the noise of pixels is not walked through")


def _walk_weights(t: float, angle: float) -> tuple[float, float]:
    if math.sin(angle) < 1e-6:
        return 1 - t, t
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def layer_angles(start: SampleNoise, end: SampleNoise, grid: LatentGrid) -> dict[int, float]:
    """The angle between two samples' noise in each layer, radians."""
    angles = {}
    for shape in grid.shapes:
        a, b = (grid.draw(noise, shape).flatten().double() for noise in (start, end))
        cosine = (a @ b) / (a.norm() * b.norm()).clamp_min(1e-12)
        angles[shape.layer] = math.acos(min(1.0, max(-1.0, cosine.item())))
    return angles


def save_latents(
    path: Path,
    noises: Sequence[SampleNoise],
    grid: LatentGrid,
    facts: Mapping[str, Any],
    *,
    replace: bool = True,
) -> None:
    """Writes the noise of samples as safetensors, whole or not at all.

    The tensors are ``sample.I.layer.K``, (rows, columns, channels) float32, coarse to fine.

    Args:
        facts: of the run: model, seed of the samples or None, temperatures.

    Raises:
        OutputError: the file cannot be written, or not replaced.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {
        _name(index, shape): grid.draw(noise, shape).contiguous()
        for index, noise in enumerate(noises)
        for shape in grid.shapes
    }
    header = {"samples": len(noises), "layers": [asdict(s) for s in grid.shapes], **facts}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path, replace=replace) as temporary:
            save_file(tensors, temporary, {_METADATA_KEY: json.dumps(header, sort_keys=True)})
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path}: the latents cannot be written: {error}") from error


def load_latents(path: Path, grid: LatentGrid) -> list[StoredNoise]:
    """The samples of a file of :func:`save_latents`, in their order.

    Raises:
        InputError: no such file, or latents of another model or of a picture of another size.
    """
    from safetensors import safe_open

    count = count_latents(path)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return [_stored(path, tensors, index, grid) for index in range(count)]


def count_latents(path: Path) -> int:
    """How many samples a file of :func:`save_latents` holds.

    Raises:
        InputError: no such file.
    """
    count: int = latents_header(path)["samples"]
    return count


def latents_header(path: Path) -> dict[str, Any]:
    """The number of samples of a file of :func:`save_latents`, and its facts, as they stand there.

    Raises:
        InputError: no such file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get(_METADATA_KEY, "null"))
            most = len(file.keys())
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: the latents cannot be read: {error}") from error
    count = header.get("samples") if isinstance(header, dict) else None
    if type(count) is not int or not 1 <= count <= most:
        raise InputError(f"{path} holds no latents", hint="--save-latents makes such files")
    return {**header, "samples": count}


def _stored(path: Path, tensors: Mapping[str, Tensor], index: int, grid: LatentGrid) -> StoredNoise:
    layers = {}
    for shape in grid.shapes:
        stored = tensors.get(_name(index, shape))
        if stored is None or tuple(stored.shape) != grid.size(shape):
            raise InputError(
                f"{path}: its latents are of another model or of a picture of another size",
                hint="give the --model that drew them;"
                f" here layer {shape.layer} must be {'x'.join(map(str, grid.size(shape)))}",
            )
        layers[shape.layer] = stored.float()
    has_more = {name.rpartition(".")[2] for name in tensors} - {str(layer) for layer in layers}
    if len(tensors) % len(grid.shapes) or has_more:
        raise InputError(f"{path}: its latents are of another model")
    return StoredNoise(layers)


def _name(index: int, shape: LatentShape) -> str:
    return f"sample.{index}.layer.{shape.layer}"
