"""The use case of ``vdsr generate``: pictures out of nothing, in a grid or one file each.

prior ─► batches of samples, each with the noise field of its own index ─► uint8 pictures ─► files
"""

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsr_cli.config import DEFAULT_BATCH, DEFAULT_TEMPERATURE, Temperature
from vdsr_cli.errors import DeviceError, UsageError
from vdsr_cli.images import encode_levels, refuse_impossible, save_levels
from vdsr_cli.images.levels import to_levels
from vdsr_cli.loading import LoadedPrior
from vdsr_cli.models.dmol import LOW_BIT_NOTE, to_image
from vdsr_cli.models.protocol import Prior, refuse_unknown_levels
from vdsr_cli.outputs import Existing, check_outputs, is_taken
from vdsr_cli.paths import Naming, output_format
from vdsr_cli.runtime import Batches, Runtime
from vdsr_cli.sampling.noise import NoiseField, noise_of, pixel_noise

DEFAULT_SIDE_PX = 256
GAP_PX = 2
"""White between the pictures of a grid."""

_WIDEST_AT_ONCE = {"cpu": 2**26, "cuda": 2**30}
"""Numbers of the widest feature map, all pictures of a batch together: 2 of ffhq256 on a CPU,
whose system kills what asks for too much instead of saying so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """How many pictures to draw, and how.

    Attributes:
        count: samples 0 to count - 1.
        size: height and width; None for the prior's own, or 256x256.
        batch_size: most pictures at once; None for what the memory is likely to hold.
        columns: of the grid; None for about as many as rows.
    """

    count: int = 16
    size: tuple[int, int] | None = None
    temperature: Temperature = DEFAULT_TEMPERATURE
    seed: int = 0
    output: Literal["mean", "sample"] = "mean"
    batch_size: int | None = None
    columns: int | None = None
    existing: Existing = Existing.refuse
    quality: int = 95


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateResult:
    """The result of a run; ``width`` and ``height`` are those of one picture."""

    model: str
    status: Literal["done", "skipped"]
    outputs: tuple[str, ...]
    count: int
    width: int
    height: int
    temperature: Temperature
    seed: int
    seconds: float
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The object of ``--json``."""
        return asdict(self)


def generate(
    loaded: LoadedPrior,
    naming: Naming,
    request: GenerateRequest,
    runtime: Runtime,
    *,
    stdout: BinaryIO,
    on_start: Callable[[int], None] = lambda pictures: None,
    on_picture: Callable[[int], None] = lambda pictures: None,
) -> GenerateResult:
    """Draws samples of a prior and writes them.

    Args:
        naming: a file or standard output for one grid, a folder for one file each.
    """
    started = time.perf_counter()
    refuse_unknown_levels(request.temperature, loaded.model)
    height, width = size = size_of(loaded, request)
    outputs = output_paths(naming, loaded.name, request.count)
    todo = _todo(outputs, request)
    done = GenerateResult(
        model=loaded.name,
        status="done" if todo else "skipped",
        outputs=tuple("-" if path is None else str(path) for path in outputs),
        count=request.count,
        width=width,
        height=height,
        temperature=request.temperature,
        seed=request.seed,
        seconds=0.0,
        notes=(LOW_BIT_NOTE,) if loaded.model.is_low_bit else (),
    )
    if not todo:
        return done
    is_grid = naming.folder is None
    indices = range(request.count) if is_grid else todo
    shape = grid_size(request, size) if is_grid else size
    for index in todo:
        path = outputs[index]
        refuse_impossible(_format(path, naming), *shape, name=str(path or "standard output"))
    on_start(len(indices))
    pictures = _told(draw_pictures(loaded.model, indices, size, request, runtime), on_picture)
    if is_grid:
        pictures = iter([picture_grid(list(pictures), columns_of(request))])
    notes = done.notes
    for index, picture in zip(todo, pictures, strict=True):
        notes += _write(outputs[index], picture, naming, request, stdout)
    seconds = round(time.perf_counter() - started, 3)
    return replace(done, notes=tuple(dict.fromkeys(notes)), seconds=seconds)


def size_of(loaded: LoadedPrior, request: GenerateRequest) -> tuple[int, int]:
    """Height and width of the pictures; raises UsageError for one the prior cannot make."""
    side = loaded.model.side_px
    if side is None:
        return request.size or (DEFAULT_SIDE_PX, DEFAULT_SIDE_PX)
    if request.size not in (None, (side, side)):
        raise UsageError(
            f"{loaded.name} makes pictures of {side}x{side} and of no other size",
            hint="leave --size out; vdvae-x4-prior makes any size",
        )
    return side, side


def output_paths(naming: Naming, name: str, count: int) -> list[Path | None]:
    """The files to write: one grid, or in a folder one file a sample. None is standard output."""
    stem = _last_part(name).removesuffix(".safetensors")
    if naming.is_stdout:
        return [None]
    if naming.folder is not None:
        return [naming.folder / f"{stem}_s{index}{naming.suffix}" for index in range(count)]
    return [naming.file or Path(f"{stem}_{naming.tag}{naming.suffix}")]


def _last_part(name: str) -> str:
    """The name of a model, file or run folder, without what stands before it and the hash behind
    an address: of ``.`` that of the folder it is."""
    last = re.split(r"[/\\]", name.partition("#sha256=")[0].rstrip("/\\"))[-1]
    return Path(name).resolve().name if last in (".", "..") else last


def _todo(outputs: Sequence[Path | None], request: GenerateRequest) -> list[int]:
    """The outputs to write; refuses what may not be written, such as what exists unasked."""
    check_outputs(outputs, request.existing)
    is_kept = request.existing is Existing.skip
    return [
        index
        for index, path in enumerate(outputs)
        if path is None or not (is_kept and is_taken(path))
    ]


def _format(path: Path | None, naming: Naming) -> str:
    return output_format(path or Path(f"x{naming.suffix}"))


def _write(
    path: Path | None,
    picture: NDArray[np.uint8],
    naming: Naming,
    request: GenerateRequest,
    stdout: BinaryIO,
) -> tuple[str, ...]:
    if path is None:
        format = _format(path, naming)
        return encode_levels(stdout, picture, format=format, quality=request.quality)
    notes: tuple[str, ...] = ()
    with request.existing.kept():
        notes = save_levels(
            path, picture, quality=request.quality, replace=request.existing.is_replaced
        )
    return notes


def _told(
    pictures: Iterator[NDArray[np.uint8]], on_picture: Callable[[int], None]
) -> Iterator[NDArray[np.uint8]]:
    for picture in pictures:
        on_picture(1)
        yield picture


@torch.inference_mode()
def draw_pictures(
    prior: Prior,
    indices: Sequence[int],
    size: tuple[int, int],
    request: GenerateRequest,
    runtime: Runtime,
) -> Iterator[NDArray[np.uint8]]:
    """The samples of these indices, (H, W, 3) uint8, each the same whatever others are drawn.

    A prior of whole cells draws a little more than is asked for; the surplus is cut off below and
    on the right.

    Raises:
        DeviceError: one picture does not fit into memory, or is not finite.
    """
    height, width = (-(-side // prior.cell_px) * prior.cell_px for side in size)
    whole = (height, width)

    def draw(chosen: range) -> Tensor:
        return _draw(prior, indices[chosen.start : chosen.stop], whole, request, runtime)

    def too_large() -> DeviceError:
        return DeviceError(
            f"a picture of {size[1]}x{size[0]} does not fit into memory",
            hint="try a smaller --size, or --device cpu",
        )

    batches = Batches(request.batch_size or likely_batch(prior, whole, runtime))
    for pictures in batches.run(range(len(indices)), draw, too_large):
        cut = pictures[:, :, : size[0], : size[1]]
        yield from cut.permute(0, 2, 3, 1).cpu().numpy()


def likely_batch(prior: Prior, size: tuple[int, int], runtime: Runtime) -> int:
    """How many pictures at once are likely to fit into memory."""
    most = _WIDEST_AT_ONCE.get(runtime.device.type, _WIDEST_AT_ONCE["cpu"])
    return max(1, min(DEFAULT_BATCH, most // prior.widest_map(*size)))


def _draw(
    prior: Prior,
    chosen: Sequence[int],
    size: tuple[int, int],
    request: GenerateRequest,
    runtime: Runtime,
) -> Tensor:
    """Some samples at once: (B, 3, H, W) uint8."""
    fields = [NoiseField(seed=request.seed, sample=index) for index in chosen]
    is_random, is_drawn = bool(request.temperature), request.output == "sample"
    noise = noise_of(fields, size, runtime.device) if is_random else None
    channels = prior.pixel_noise_channels
    logistic = pixel_noise(fields, channels, size, runtime.device) if is_drawn else None
    parameters = prior.sample(len(chosen), size, noise, request.temperature)
    if not torch.isfinite(parameters.sum()):
        raise DeviceError("a picture is not finite", hint="try --dtype float32")
    return to_levels(to_image(prior.pixels(parameters, logistic)))


def columns_of(request: GenerateRequest) -> int:
    """Columns of the grid, no more than there are pictures."""
    return min(request.count, request.columns or math.ceil(math.sqrt(request.count)))


def grid_size(request: GenerateRequest, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the grid of pictures of that size."""
    columns = columns_of(request)
    cells = (-(-request.count // columns), columns)
    height, width = (
        number * (side + GAP_PX) - GAP_PX for number, side in zip(cells, size, strict=True)
    )
    return height, width


def picture_grid(pictures: Sequence[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """Pictures (H, W, 3) of one size, row by row, white between them and in what is left over."""
    height, width, channels = pictures[0].shape
    rows = -(-len(pictures) // columns)
    step_y, step_x = height + GAP_PX, width + GAP_PX
    grid = np.full((rows * step_y - GAP_PX, columns * step_x - GAP_PX, channels), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * step_y, index % columns * step_x
        grid[top : top + height, left : left + width] = picture
    return grid
