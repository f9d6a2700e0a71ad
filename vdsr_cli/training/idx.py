"""Grey pictures in idx files, as MNIST and Fashion-MNIST are published, and x2 pairs of them.

bytes 0-3    0, 0, 8 (unsigned bytes), number of dimensions
then         each dimension, a big-endian 32-bit integer
then         the values, row after row
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vdsr_cli.errors import InputError
from vdsr_cli.training.data import CropSpec, PictureStore
from vdsr_cli.training.world import World

TRAIN_IMAGES, TEST_IMAGES = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"
_MAX_VALUES = 1 << 31


def read_idx_images(path: Path) -> Tensor:
    """The pictures of an idx file, gzipped or not: (N, H, W) uint8.

    Raises:
        InputError: it cannot be read, is cut short, or holds something else than grey pictures.
    """
    content = _content(path)
    if len(content) < 16 or content[:4] != b"\0\0\x08\x03":
        raise InputError(f"{path} is not an idx file of grey pictures")
    count, height, width = shape = struct.unpack(">3I", content[4:16])
    if min(shape) < 1 or math.prod(shape) > _MAX_VALUES or len(content) != 16 + math.prod(shape):
        raise InputError(
            f"{path} says {count} pictures of {width}x{height} and holds {len(content) - 16} bytes"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=16).copy()).view(*shape)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def find_idx(folder: Path, name: str) -> Path:
    """``folder/name.gz`` or ``folder/name``; raises InputError where there is neither."""
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise InputError(
        f"there is no {name}.gz in {folder}",
        hint="Fashion-MNIST: apt install dataset-fashion-mnist, or --data FOLDER",
    )


def averaged(hr: Tensor, scale: int) -> Tensor:
    """The mean of each ``scale`` x ``scale`` block, rounded: (N, H, W) -> (N, h, w), uint8."""
    count, height, width = hr.shape
    blocks = hr.view(count, height // scale, scale, width // scale, scale).int()
    area = scale**2
    return ((blocks.sum(dim=(2, 4)) + area // 2) // area).to(torch.uint8)


class IdxStore(PictureStore):
    """Pairs of an idx file: whole pictures, and their averages over 2x2 blocks as LR.

    Args:
        scale: side of the blocks.
        size_px: the side that pictures must have.

    Raises:
        InputError: no idx file of grey pictures, or pictures of another size.
    """

    def __init__(self, path: Path, *, scale: int, size_px: int) -> None:
        pictures = read_idx_images(path)
        if pictures.shape[1:] != (size_px, size_px):
            size = f"{pictures.shape[2]}x{pictures.shape[1]}"
            raise InputError(f"{path} holds pictures of {size}, not {size_px}x{size_px}")
        reduced = averaged(pictures, scale)
        sizes = torch.tensor(reduced.shape[1:]).repeat(len(pictures), 1)
        self._adopt(scale, pictures.reshape(-1, 1), reduced.reshape(-1, 1), sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def pictures(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """hr (B, 1, H, W) and lr (B, 1, h, w), uint8, of the pictures of these numbers."""
        height, width = (int(side) for side in self.sizes[0])
        hr = self.hr.view(-1, 1, height * self.scale, width * self.scale)
        return hr[index], self.lr.view(-1, 1, height, width)[index]

    def batch(
        self, spec: CropSpec, generator: torch.Generator, world: World | None = None
    ) -> tuple[Tensor, Tensor]:
        """Random whole pictures, never flipped: shirts stand upright; see :class:`PictureStore`."""
        world = world or World()
        self._check(spec)
        index = torch.randint(len(self), (spec.batch * world.size,), generator=generator)
        return self.pictures(world.share(index).to(self.hr.device))
