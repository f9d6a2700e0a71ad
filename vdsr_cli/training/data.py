"""Training pictures: decoded once into one flat uint8 tensor, cropped in batches on its device.

A picture and its LR are stored as rows of (pixels, 3), one after the other; a batch is one gather.
The LR of the whole picture is made by the product's own degradation, so every crop's LR has its
true surroundings. Crops are flipped and transposed, which the degradation commutes with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vdsr_cli.consistency import degrade_8bit
from vdsr_cli.errors import InputError
from vdsr_cli.files import atomic_path

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CropSpec:
    """What a batch is: ``batch`` squares of ``lr_size`` LR pixels at ``scale``."""

    batch: int
    lr_size: int
    scale: int


def find_pictures(sources: Sequence[Path]) -> list[Path]:
    """The picture files among files and folders (searched recursively), sorted."""
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            found += (p for p in source.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
        else:
            found.append(source)
    return sorted(found)


def decode_rgb(path: Path) -> Image.Image:
    """The picture as 8-bit RGB; InputError where it cannot be read."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path}: cannot be read as a picture ({error})") from error


class PictureStore:
    """Pictures of any size in two flat uint8 tensors, HR (N, 3) and LR (n, 3).

    Args:
        paths: picture files.
        scale: the super-resolution factor of the pairs.
        rescales: each picture is kept once at each of these sizes (1 = as it is); smaller copies
            have sharper pixels and cleaner chroma.
        min_lr_size: pictures with a shorter side of LR are left out.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        scale: int,
        rescales: Sequence[float] = (1.0,),
        min_lr_size: int,
    ) -> None:
        hr_parts, lr_parts, sizes = [], [], []
        for path in paths:
            picture = decode_rgb(path)
            for factor in rescales:
                hr = _cropped_pixels(picture, factor, scale)
                if min(hr.shape[:2]) < min_lr_size * scale:
                    continue
                lr = degrade_8bit(hr.permute(2, 0, 1).unsqueeze(0), scale)[0].permute(1, 2, 0)
                hr_parts.append(hr.reshape(-1, 3))
                lr_parts.append(lr.reshape(-1, 3))
                sizes.append(lr.shape[:2])
        if not sizes:
            raise InputError(
                f"none of {len(paths)} pictures has {min_lr_size * scale} pixels a side"
            )
        self._adopt(scale, torch.cat(hr_parts), torch.cat(lr_parts), torch.tensor(sizes))

    def _adopt(self, scale: int, hr: Tensor, lr: Tensor, sizes: Tensor) -> None:
        self.scale, self.hr, self.lr, self.sizes = scale, hr, lr, sizes
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.long), sizes.prod(1).cumsum(0)[:-1]])

    def save(self, path: Path) -> None:
        """Writes the decoded pictures, for other legs of the run to start from at once."""
        with atomic_path(path) as temporary:
            save_file(
                {"hr": self.hr, "lr": self.lr, "sizes": self.sizes},
                temporary,
                metadata={"scale": str(self.scale)},
            )

    @classmethod
    def load(cls, path: Path) -> "PictureStore":
        """Reads what ``save`` wrote."""
        store = cls.__new__(cls)
        with safe_open(path, framework="pt") as file:
            scale = int(file.metadata()["scale"])
            store._adopt(scale, *(file.get_tensor(name) for name in ("hr", "lr", "sizes")))
        return store

    def to(self, device: torch.device) -> "PictureStore":
        """Moves the pixels to a device."""
        self.hr, self.lr = self.hr.to(device), self.lr.to(device)
        return self

    @property
    def megapixels(self) -> float:
        """HR megapixels held."""
        return len(self.hr) / 1e6

    def batch(self, spec: CropSpec, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random crops: hr (B, 3, S * scale, S * scale) and lr (B, 3, S, S), uint8.

        Pictures are drawn in proportion to their area. ``generator`` is a CPU generator and decides
        everything, so one seed gives one batch on every device.
        """
        weights = self.sizes.prod(1).double()
        index = torch.multinomial(weights, spec.batch, replacement=True, generator=generator)
        size = self.sizes[index]
        room = size - spec.lr_size + 1
        corner = (torch.rand(spec.batch, 2, generator=generator) * room).long().minimum(room - 1)
        symmetry = torch.rand(spec.batch, 3, generator=generator) < 0.5
        geometry = (self.offsets[index], size[:, 1], corner, symmetry)
        lr = _gather(self.lr, *geometry, side=spec.lr_size, factor=1)
        hr = _gather(self.hr, *geometry, side=spec.lr_size, factor=self.scale)
        return hr, lr


def _cropped_pixels(picture: Image.Image, factor: float, scale: int) -> Tensor:
    """(H, W, 3) uint8 of the picture resized by ``factor``, cut to multiples of the scale."""
    if factor != 1.0:
        size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(picture))
    height, width = (side - side % scale for side in pixels.shape[:2])
    return pixels[:height, :width]


def _gather(
    flat: Tensor,
    offset: Tensor,
    width: Tensor,
    corner: Tensor,
    symmetry: Tensor,
    *,
    side: int,
    factor: int,
) -> Tensor:
    """Squares of ``side * factor`` pixels out of a flat store, each under its own symmetry."""
    span = torch.arange(side * factor)
    flipped = span.flip(0)
    rows = torch.where(symmetry[:, :1], flipped, span) + corner[:, :1] * factor
    columns = torch.where(symmetry[:, 1:2], flipped, span) + corner[:, 1:2] * factor
    stride = (width * factor).view(-1, 1, 1)
    upright = rows.unsqueeze(2) * stride + columns.unsqueeze(1)
    index = torch.where(symmetry[:, 2].view(-1, 1, 1), upright.transpose(1, 2), upright)
    index = index + (offset * factor**2).view(-1, 1, 1)
    return flat[index.to(flat.device)].permute(0, 3, 1, 2)
