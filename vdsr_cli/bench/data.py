"""Which pictures a benchmark scores, and what is made of each.

Layouts that are found by themselves, for a scale of 4:

    set5/HR/*.png + set5/LRx4/*.png      LR files where the set ships them (or LR_bicubic/X4, ...)
    set5/a_HR.png + set5/a_LR.png        side by side
    DIV2K_valid_HR + DIV2K_valid_LR_bicubic/X4
    photos/*.png                         HR alone: LR is made
    photo.png                            one picture
    bench/                               a folder of such folders

A protocol turns a pair of files into a scene:

    standard, diverse   HR cropped to a multiple of the scale; LR as shipped, else MATLAB's bicubic
    paper               shorter side resized to 256, centre crop, LR by Pillow's bicubic
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from torch import Tensor

from vdsr_cli.config import Edges
from vdsr_cli.consistency import degrade_8bit
from vdsr_cli.errors import InputError, VdsrError
from vdsr_cli.images import read_picture
from vdsr_cli.images.levels import to_levels
from vdsr_cli.images.resize import pillow_resized, resized_crop
from vdsr_cli.metrics import SSIM_WINDOW
from vdsr_cli.paths import INPUT_SUFFIXES

MIN_SIDE_PX = 32
"""The smallest side of an HR picture as it is scored: the deep features need so much."""

_HR_FOLDERS = ("HR", "hr", "GTmod12", "GTmod4", "GT", "original")


class Protocol(StrEnum):
    """How a benchmark makes and compares pictures.

    ``paper`` is that of the VDVAE-SR thesis's table 6.2, ``paper_64`` of its table 6.1; ``article``
    is what table 1 of the VDVAE-SR article was probably made by, which does not say.
    """

    standard = "standard"
    paper = "paper"
    paper_64 = "paper-64"
    article = "article"
    diverse = "diverse"

    @property
    def hr_side(self) -> int | None:
        """Side of the HR pictures that all are resized and cropped to; None for whole ones."""
        return {Protocol.paper: 256, Protocol.paper_64: 64}.get(self)

    @property
    def reduces_by_pillow(self) -> bool:
        """Whether LR pictures and the bicubic row are made by Pillow's bicubic filter."""
        return self in (Protocol.paper, Protocol.paper_64, Protocol.article)

    def shave_px(self, scale: int) -> int:
        """Border that PSNR and SSIM leave out."""
        return scale if self is Protocol.standard else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The files of one picture; ``lr`` is None where it is to be made."""

    name: str
    hr: Path
    lr: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A folder of pictures to score."""

    name: str
    path: Path
    pairs: tuple[Pair, ...]

    @property
    def notes(self) -> list[str]:
        """A line on the pictures that are passed over, as the results beside ``*_HR`` and ``*_LR``
        in some sets."""
        if self.path.is_file():
            return []
        used = {file for pair in self.pairs for file in (pair.hr, pair.lr)}
        beside = {file for pair in self.pairs for file in _pictures(pair.hr.parent)} - used
        if not beside:
            return []
        count = "1 picture" if len(beside) == 1 else f"{len(beside)} pictures"
        return [f"{self.name}: {count} passed over, neither *_HR nor its *_LR"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """One picture as a protocol sees it.

    Attributes:
        hr: ground truth, uint8 (3, H, W).
        lr: input, uint8 (3, H / scale, W / scale).
        source_size: width and height of the HR file.
    """

    name: str
    hr: Tensor
    lr: Tensor
    scale: int
    source_size: tuple[int, int]
    is_grey: bool = False

    @property
    def megapixels(self) -> float:
        """Megapixels of the HR picture."""
        return self.hr.shape[1] * self.hr.shape[2] / 1e6


def discover(paths: Sequence[Path], scale: int) -> list[Dataset]:
    """The datasets in files and folders, in their order; names that repeat get their parent's.

    Raises:
        InputError: a path without pictures.
    """
    datasets = [dataset for path in paths for dataset in _discover_one(path, scale)]
    names = [dataset.name for dataset in datasets]
    return [
        dataset if names.count(dataset.name) == 1 else replace(dataset, name=str(dataset.path))
        for dataset in datasets
    ]


def _discover_one(path: Path, scale: int) -> list[Dataset]:
    path = _as_spelled(path)
    if path.is_file():
        pair = Pair(name=path.stem, hr=path)
        return [Dataset(name=path.stem, path=path, pairs=(pair,))]
    if not path.is_dir():
        raise InputError(f"{path}: there is no such file or folder")
    pairs = _pairs_of(path, scale)
    if pairs:
        return [Dataset(name=_name_of(path), path=path, pairs=pairs)]
    below = [(folder, _pairs_of(folder, scale)) for folder in _folders(path)]
    found = [Dataset(name=_name_of(folder), path=folder, pairs=p) for folder, p in below if p]
    if not found:
        raise InputError(
            f"{path}: no pictures to score",
            hint="give a folder of HR pictures, or one with HR/ and LRx4/ in it",
        )
    return found


def _as_spelled(path: Path) -> Path:
    """The path, or where there is none of that name, the only one that differs in case alone."""
    if path.exists() or not path.parent.is_dir():
        return path
    near = [other for other in path.parent.iterdir() if other.name.lower() == path.name.lower()]
    return near[0] if len(near) == 1 else path


def _name_of(folder: Path) -> str:
    return folder.resolve().name


def _folders(path: Path) -> list[Path]:
    """The folders in one, Set5 before Set14."""

    def numbered(folder: Path) -> list[tuple[str, int]]:
        parts = re.findall(r"(\D*)(\d*)", folder.name)
        return [(text, int(digits or 0)) for text, digits in parts]

    folders = (p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    return sorted(folders, key=numbered)


def _pairs_of(folder: Path, scale: int) -> tuple[Pair, ...]:
    for name in (*_HR_FOLDERS, f"image_SRF_{scale}"):
        if (folder / name).is_dir() and (pictures := _pictures(folder / name)):
            lr_folders = (f"LRx{scale}", f"LR_bicubic/X{scale}", f"LRbicx{scale}", f"x{scale}")
            return _matched(pictures, [folder / lr for lr in lr_folders], scale)
    if (folder / f"LRx{scale}").is_dir():
        return _matched(_pictures(folder), [folder / f"LRx{scale}"], scale)
    siblings = []
    if folder.name.endswith("_HR"):
        siblings = [folder.with_name(f"{folder.name[:-3]}_LR_bicubic") / f"X{scale}"]
    return _matched(_pictures(folder), siblings, scale)


def _pictures(folder: Path) -> list[Path]:
    files = (p for p in folder.iterdir() if p.suffix.lower() in INPUT_SUFFIXES)
    return sorted(p for p in files if p.is_file() and not p.name.startswith("."))


def _matched(pictures: Sequence[Path], lr_folders: Sequence[Path], scale: int) -> tuple[Pair, ...]:
    """Each HR picture with its LR file: of the first LR folder there is, or ``*_LR`` beside it.

    A picture that an LR folder lacks, or has under a name that may be another one's, keeps the name
    of what is missing, so that it is reported.
    """
    if hr := [picture for picture in pictures if picture.stem.endswith("_HR")]:
        bare = [path.with_stem(path.stem.removesuffix("_HR")) for path in hr]
        lr = _lr_files(bare, ("_LR",), pictures)
        return tuple(
            Pair(name=name, hr=path, lr=small)
            for name, path, small in zip(_names(bare), hr, lr, strict=True)
        )
    names = _names(pictures)
    folder = next((folder for folder in lr_folders if folder.is_dir()), None)
    if folder is None:
        return tuple(Pair(name=n, hr=path) for n, path in zip(names, pictures, strict=True))
    lr = _lr_files(pictures, ("", f"x{scale}", f"_x{scale}"), _pictures(folder))
    return tuple(
        Pair(name=name, hr=path, lr=small or folder / path.name)
        for name, path, small in zip(names, pictures, lr, strict=True)
    )


def _names(pictures: Sequence[Path]) -> list[str]:
    """The stem of each picture, or, where another one has it, its whole name."""
    taken = Counter(name for picture in pictures for name in (picture.stem, picture.name))
    return [p.stem if taken[p.stem] == 1 else p.name for p in pictures]


def _lr_files(
    pictures: Sequence[Path], ends: Sequence[str], files: Sequence[Path]
) -> list[Path | None]:
    """The LR file of each HR picture, whose stem ends in the first of the ends that there is, or
    None. Where several files or HR pictures share a stem it is that of the HR picture's suffix,
    which may be missing."""
    by_stem: dict[str, list[Path]] = {}
    for file in files:
        by_stem.setdefault(file.stem, []).append(file)
    taken = Counter(picture.stem for picture in pictures)

    def lr_of(hr: Path) -> Path | None:
        found = next((by_stem[hr.stem + end] for end in ends if hr.stem + end in by_stem), None)
        if found is None:
            return None
        is_clear = taken[hr.stem] == len(found) == 1
        return found[0] if is_clear else found[0].with_suffix(hr.suffix)

    return [lr_of(picture) for picture in pictures]


def load_scene(pair: Pair, protocol: Protocol, scale: int, edges: Edges = Edges.repeat) -> Scene:
    """Reads a pair and prepares it; ``edges`` are those of the reduction, where it is ours.

    Raises:
        InputError: a file that cannot be read, a picture that is too small, or sizes that do not
            belong together.
    """
    hr, is_grey = _read(pair.hr)
    least = max(MIN_SIDE_PX, SSIM_WINDOW + 2 * protocol.shave_px(scale))
    least = -(-least // scale) * scale if protocol.hr_side is None else MIN_SIDE_PX
    if min(hr.shape[1:]) < least:
        raise InputError(
            f"{pair.hr}: {_size(hr)} is too small to score at scale {scale}, a side needs {least} "
            "pixels"
        )
    source_size = (hr.shape[2], hr.shape[1])
    if protocol.reduces_by_pillow:
        side = protocol.hr_side
        hr = _cropped(hr, scale) if side is None else resized_crop(hr, side)
        lr = degraded(hr, protocol, scale, edges)
    else:
        hr = _cropped(hr, scale)
        if pair.lr is None:
            lr = degraded(hr, protocol, scale, edges)
        else:
            lr, is_grey = _read(pair.lr)
        _check_sizes(pair, hr, lr, scale)
    return Scene(
        name=pair.name, hr=hr, lr=lr, scale=scale, source_size=source_size, is_grey=is_grey
    )


def _cropped(hr: Tensor, scale: int) -> Tensor:
    """The largest part from the top left whose sides are multiples of the scale."""
    height, width = (side // scale * scale for side in hr.shape[1:])
    return hr[:, :height, :width].contiguous()


def read_pixels(path: Path) -> Tensor:
    """A file as uint8 (3, H, W); raises InputError."""
    return _read(path)[0]


def _read(path: Path) -> tuple[Tensor, bool]:
    """A file as uint8 (3, H, W), and whether it is grey."""
    picture = read_picture(path)
    return to_levels(picture.rgb[0]), picture.metadata.is_grey


def _check_sizes(pair: Pair, hr: Tensor, lr: Tensor, scale: int) -> None:
    if tuple(lr.shape[1:]) != (hr.shape[1] // scale, hr.shape[2] // scale):
        raise InputError(
            f"{pair.lr}: {_size(lr)} is no 1/{scale} of {_size(hr)} of {pair.hr.name}",
            hint="remove the LR folder to have LR pictures made",
        )


def _size(pixels: Tensor) -> str:
    return f"{pixels.shape[2]}x{pixels.shape[1]}"


def degraded(sr: Tensor, protocol: Protocol, scale: int, edges: Edges) -> Tensor:
    """A picture reduced as the protocol reduces HR pictures, by MATLAB's bicubic with these edges
    unless it is by Pillow's; uint8 in and out."""
    if not protocol.reduces_by_pillow:
        return degrade_8bit(sr.unsqueeze(0), scale, edges)[0]
    height, width = sr.shape[1:]
    return pillow_resized(sr, (height // scale, width // scale), "bicubic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A picture that was not scored, and why; of one method where ``method`` names it."""

    dataset: str
    picture: str
    error: str
    hint: str | None = None
    method: str | None = None
    exit_code: int = 3
    traceback: str | None = None

    @classmethod
    def of(
        cls, error: VdsrError, *, dataset: str, picture: str, method: str | None = None
    ) -> "Failure":
        """The failure of a picture that an error ended."""
        return cls(
            dataset=dataset,
            picture=picture,
            error=str(error),
            hint=error.hint,
            method=method,
            exit_code=error.exit_code,
            traceback=error.details,
        )


def load_scenes(
    dataset: Dataset,
    protocol: Protocol,
    scale: int,
    on_failure: Callable[[Failure], None],
    edges: Edges = Edges.repeat,
) -> Iterator[Scene]:
    """The scenes of a dataset one after the other; those that fail are reported and left out."""
    for pair in dataset.pairs:
        try:
            yield load_scene(pair, protocol, scale, edges)
        except VdsrError as error:
            on_failure(Failure.of(error, dataset=dataset.name, picture=pair.name))
