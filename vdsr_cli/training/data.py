"""Training pictures: decoded once into one flat uint8 tensor, cropped in batches on its device.

A picture and its LR are stored as rows of (pixels, 3), one after the other; a batch is one gather.
The LR of the whole picture is made by the product's own degradation, so every crop's LR has its
true surroundings. Crops may be flipped and transposed, which the degradation commutes with.
"""

import hashlib
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vdsr_cli.consistency import degrade_8bit
from vdsr_cli.errors import InputError, OutputError
from vdsr_cli.files import atomic_path
from vdsr_cli.images import read_picture
from vdsr_cli.images.levels import to_levels
from vdsr_cli.images.resize import pillow_resized, resized_crop
from vdsr_cli.paths import INPUT_SUFFIXES, files_below
from vdsr_cli.training.world import World

PICTURE_SUFFIXES = INPUT_SUFFIXES - {".gif", ".apng"}
"""Extensions of the files of a folder that are trained on; animations are not."""


SYMMETRIES: Mapping[str, tuple[bool, bool, bool]] = MappingProxyType(
    {"all": (True, True, True), "mirror": (False, True, False), "none": (False, False, False)}
)
"""Which of turning upside down, mirroring and transposing a crop may undergo."""
_FITS = ("crop", "whole")
"""How ``--fit`` calls pictures that are kept whole, and squares of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CropSpec:
    """A batch: ``batch`` squares of ``lr_size`` LR pixels at ``scale``, each under one of the
    ``symmetries`` of :data:`SYMMETRIES`."""

    batch: int
    lr_size: int
    scale: int
    symmetries: str = "all"


def find_pictures(sources: Sequence[Path]) -> list[Path]:
    """The picture files among files and folders (searched recursively), sorted."""
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            below = files_below(source, hidden=True)
            found += (path for path in below if path.suffix.lower() in PICTURE_SUFFIXES)
        else:
            found.append(source)
    return sorted(found)


def read_levels(path: Path) -> Tensor:
    """A file as uint8 (3, H, W), upright as everywhere; InputError where it cannot be read, or
    holds what is no number."""
    rgb = read_picture(path).rgb[0]
    if not rgb.isfinite().all():
        raise InputError(f"{path}: some of its pixels are not finite")
    return to_levels(rgb)


class PictureStore:
    """Pictures of any size in two flat uint8 tensors, HR (N, 3) and LR (n, 3).

    Args:
        rescales: each picture is kept once at each of these sizes (1 = as it is); smaller copies
            have sharper pixels and cleaner chroma.
        min_lr_size: pictures with a shorter side of LR are left out.
        is_fitted: whether each picture is kept as one square of ``min_lr_size`` LR pixels: its
            shorter side resized by Pillow's bilinear filter, its centre cropped.
        workers: threads that decode; None for one a processor.
        on_read: told how many pictures are decoded, and of how many.
        on_left_out: told why a picture is damaged, and left out, and how many are too small;
            without it a damaged one is an error.

    Attributes:
        origin: how the store was made, and of which files; see :func:`origin_of`.

    Raises:
        InputError: a picture cannot be read, or none is large enough.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        scale: int,
        rescales: Sequence[float] = (1.0,),
        min_lr_size: int,
        is_fitted: bool = False,
        workers: int | None = None,
        on_read: Callable[[int, int], None] = lambda done, pictures: None,
        on_left_out: Callable[[str], None] | None = None,
    ) -> None:
        if not paths:
            raise InputError("no pictures were found", hint="links to folders are not followed")
        hr_parts, lr_parts, sizes = [], [], []
        small, damaged = 0, None
        side = min_lr_size * scale if is_fitted else None
        with closing(_decoded_pairs(paths, rescales, scale, side, workers)) as decoded:
            for done, pairs in enumerate(decoded, start=1):
                on_read(done, len(paths))
                if isinstance(pairs, InputError):
                    damaged = pairs
                    if on_left_out is None or not _is_of_the_file(pairs):
                        raise pairs
                    on_left_out(str(pairs))
                    continue
                large = [(hr, lr) for hr, lr in pairs if min(lr.shape[:2]) >= max(min_lr_size, 1)]
                small += not large
                hr_parts += [hr.reshape(-1, 3) for hr, _ in large]
                lr_parts += [lr.reshape(-1, 3) for _, lr in large]
                sizes += [lr.shape[:2] for _, lr in large]
        least = f"{min_lr_size * scale} pixels a side"
        if not sizes:
            raise damaged or InputError(
                f"none of {len(paths)} pictures has {least}",
                hint="take larger pictures, or a smaller --lr-size",
            )
        if small and on_left_out is not None:
            on_left_out(f"{small} of {len(paths)} pictures have not {least}")
        self.origin = origin_of(paths, rescales, is_fitted=is_fitted)
        self._adopt(scale, torch.cat(hr_parts), torch.cat(lr_parts), torch.tensor(sizes))

    def _adopt(self, scale: int, hr: Tensor, lr: Tensor, sizes: Tensor) -> None:
        self.scale, self.hr, self.lr, self.sizes = scale, hr, lr, sizes
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.long), sizes.prod(1).cumsum(0)[:-1]])

    def save(self, path: Path) -> None:
        """Writes the decoded pictures, for other legs of the run to start from at once.

        Raises:
            OutputError: the file cannot be written, or is there already.
        """
        tensors = {"hr": self.hr, "lr": self.lr, "sizes": self.sizes}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path, replace=False) as temporary:
                save_file(tensors, temporary, metadata={"scale": str(self.scale), **self.origin})
        except (OSError, SafetensorError) as error:
            raise OutputError(f"cannot write {path}: {error}") from error

    @classmethod
    def load(cls, path: Path) -> "PictureStore":
        """Reads what ``save`` wrote; InputError where it is something else."""
        store = cls.__new__(cls)
        try:
            with safe_open(path, framework="pt") as file:
                origin = dict(file.metadata())
                scale = int(origin.pop("scale"))
                hr, lr, sizes = (file.get_tensor(name) for name in ("hr", "lr", "sizes"))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise _no_store(path) from error
        if not _are_pairs(hr, lr, sizes, scale):
            raise _no_store(path)
        store.origin = origin
        store._adopt(scale, hr, lr, sizes)
        return store

    def to(self, device: torch.device) -> "PictureStore":
        """Moves the pixels to a device."""
        self.hr, self.lr = self.hr.to(device), self.lr.to(device)
        return self

    @property
    def megapixels(self) -> float:
        """HR megapixels held."""
        return len(self.hr) / 1e6

    @property
    def facts(self) -> dict[str, float]:
        """Facts that tell this store from another: pictures with their copies, and pixels."""
        return {"copies": len(self.sizes), "pixels": len(self.hr)}

    def batch(
        self, spec: CropSpec, generator: torch.Generator, world: World | None = None
    ) -> tuple[Tensor, Tensor]:
        """Random crops: hr (B, 3, S * scale, S * scale) and lr (B, 3, S, S), uint8.

        Pictures are drawn in proportion to their area. ``generator`` is a CPU generator and decides
        everything, so one seed gives one batch on every device. Of several processes each gets
        its own rows of their common batch.

        Raises:
            ValueError: crops larger than the smallest picture, or of another scale.
        """
        world = world or World()
        self._check(spec)
        weights, batch = self.sizes.prod(1).double(), spec.batch * world.size
        index = torch.multinomial(weights, batch, replacement=True, generator=generator)
        size = self.sizes[index]
        room = size - spec.lr_size + 1
        corner = (torch.rand(batch, 2, generator=generator) * room).long().minimum(room - 1)
        symmetry = torch.rand(batch, 3, generator=generator) < 0.5
        symmetry &= torch.tensor(SYMMETRIES[spec.symmetries])
        columns = [self.offsets[index, None], size[:, 1:], corner, symmetry.long()]
        geometry = world.share(torch.cat(columns, dim=1))
        if self.hr.is_cuda:  # a pinned copy, which the processor need not wait for
            geometry = geometry.pin_memory()
        geometry = geometry.to(self.hr.device, non_blocking=True)
        lr = _gather(self.lr, geometry, side=spec.lr_size, factor=1)
        hr = _gather(self.hr, geometry, side=spec.lr_size, factor=self.scale)
        return hr, lr

    def _check(self, spec: CropSpec) -> None:
        if spec.scale != self.scale:
            raise ValueError(f"the pairs are of scale {self.scale}, not {spec.scale}")
        if spec.lr_size > int(self.sizes.min()):
            raise ValueError(f"a picture is smaller than a crop of {spec.lr_size} LR pixels")


def origin_of(
    paths: Sequence[Path], rescales: Sequence[float], *, is_fitted: bool
) -> dict[str, str]:
    """How a store is made, and of which files, by their names and sizes; without ``pictures`` where
    they are not here."""
    origin = {"rescales": " ".join(f"{r:g}" for r in rescales), "fit": _FITS[is_fitted]}
    if not paths:
        return origin
    with suppress(OSError):
        listed = "\n".join(sorted(f"{path.name} {path.stat().st_size}" for path in paths))
        origin["pictures"] = hashlib.sha256(os.fsencode(listed)).hexdigest()
    return origin


def _is_of_the_file(error: InputError) -> bool:
    """Whether a picture is damaged or of no use, and not merely out of reach: missing, on a disk
    that fails, or more than the memory takes."""
    cause = error.__cause__
    is_of_the_system = isinstance(cause, OSError) and cause.errno is not None
    return not (is_of_the_system or isinstance(cause, MemoryError))


def _no_store(path: Path) -> InputError:
    return InputError(
        f"{path}: not a store of decoded pictures",
        hint="give --store another name, or delete it to have it made",
    )


def _are_pairs(hr: Tensor, lr: Tensor, sizes: Tensor, scale: int) -> bool:
    """Whether hr (N, 3) and lr (n, 3) are the pixels of LR pictures of these sizes (P, 2)."""
    if sizes.dtype != torch.int64 or sizes.dim() != 2 or sizes.shape[1] != 2 or not len(sizes):
        return False
    are_rows = all(flat.dtype == torch.uint8 and flat.shape[1:] == (3,) for flat in (hr, lr))
    if not are_rows or int(sizes.min()) < 1 or int(sizes.max()) > len(lr) or scale < 1:
        return False
    pixels = int(sizes.prod(1).sum())
    return len(lr) == pixels and len(hr) == pixels * scale**2


def _decoded_pairs(
    paths: Sequence[Path],
    rescales: Sequence[float],
    scale: int,
    side: int | None,
    workers: int | None,
) -> Generator[list[tuple[Tensor, Tensor]] | InputError, None, None]:
    """hr (H, W, 3) and lr (h, w, 3) uint8 at every size, picture by picture, in order, or why it
    cannot be read; with ``side`` of the squares of pictures that are large enough."""

    def pairs(path: Path) -> list[tuple[Tensor, Tensor]] | InputError:
        try:
            picture = read_levels(path)
        except InputError as error:
            return error
        if side is not None and min(picture.shape[1:]) >= side:
            picture = resized_crop(picture, side)
        found = (_cropped_pixels(picture, factor, scale) for factor in rescales)
        return [(hr, _reduced(hr, scale)) for hr in found if hr.numel()]

    threads = workers or os.cpu_count() or 1
    before = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:
        try:
            yield from pool.map(pairs, paths)
        finally:
            torch.set_num_threads(before)


def _reduced(hr: Tensor, scale: int) -> Tensor:
    """(H, W, 3) uint8 -> (h, w, 3) uint8 by the product's degradation."""
    return degrade_8bit(hr.permute(2, 0, 1).unsqueeze(0), scale)[0].permute(1, 2, 0)


def _cropped_pixels(picture: Tensor, factor: float, scale: int) -> Tensor:
    """(H, W, 3) uint8 of the picture resized by ``factor``, cut to multiples of the scale."""
    height, width = picture.shape[1:]
    if factor != 1.0:
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        picture = pillow_resized(picture, size, "lanczos")
    height, width = (side - side % scale for side in picture.shape[1:])
    return picture[:, :height, :width].permute(1, 2, 0)


def _gather(flat: Tensor, geometry: Tensor, *, side: int, factor: int) -> Tensor:
    """Squares of ``side * factor`` pixels out of a flat store, each under its own symmetry.

    Args:
        flat: (N, 3) uint8.
        geometry: (B, 7) on its device: the picture's first LR pixel and LR width, the crop's LR
            row and column, and whether it is flipped vertically, horizontally, transposed.
    """
    offset, width, top, left, *symmetry = geometry.unsqueeze(2).unbind(1)
    vertical, horizontal, transposed = (flag.bool() for flag in symmetry)
    span = torch.arange(side * factor, device=geometry.device)
    flipped = span.flip(0)
    rows = torch.where(vertical, flipped, span) + top * factor
    columns = torch.where(horizontal, flipped, span) + left * factor
    upright = rows.unsqueeze(2) * (width * factor).unsqueeze(2) + columns.unsqueeze(1)
    index = torch.where(transposed.unsqueeze(2), upright.transpose(1, 2), upright)
    return flat[index + (offset * factor**2).unsqueeze(2)].permute(0, 3, 1, 2)
