"""The library: what ``import vdsr_cli as vdsr`` gives.

    load ─► Model ─┬─ upscale ─► Result            one picture, as vdsr upscale makes it
    read ─► Picture┼─ sample ──► Samples           several, as vdsr sample-diverse draws them
                   ├─ model(lr) ─► hr              tensors in, tensors out
                   └─ elbo(hr, lr) ─► Likelihood   bits per dimension, as vdsr bench scores them

The command line draws its pictures by the same functions: the same model, picture, temperature and
seed give the same bytes.
"""

import operator
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO, TextIOBase
from numbers import Real
from os import PathLike
from pathlib import Path
from statistics import fmean
from typing import Any, BinaryIO, Literal, cast, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from vdsr_cli import consistency, loading, metrics
from vdsr_cli.bench.data import Scene
from vdsr_cli.bench.likelihood import bound_bits
from vdsr_cli.config import (
    AUTO_MODEL,
    DEFAULT_MODEL,
    DEFAULT_TEMPERATURE,
    Edges,
    Temperature,
    Wrap,
    check_scale,
    parse_temperature,
)
from vdsr_cli.errors import InputError, UsageError
from vdsr_cli.images import (
    Canvas,
    Picture,
    PictureInMemory,
    open_pictures,
    read_picture,
    to_picture,
)
from vdsr_cli.images.decode import reading
from vdsr_cli.images.levels import to_levels
from vdsr_cli.loading import LoadedModel
from vdsr_cli.metrics.streaming import LrFidelity
from vdsr_cli.models.protocol import LikelihoodModel, Sampler
from vdsr_cli.outputs import Existing, refuse_taken
from vdsr_cli.runtime import Runtime, choose_runtime
from vdsr_cli.sampling.engine import SamplingSettings
from vdsr_cli.sampling.pipeline import UpscalePlan, draw_canvases, draw_rows, plan_upscale
from vdsr_cli.sampling.sample_set import draw_set
from vdsr_cli.services.auto import auto_sampler, auto_upscaler

_OVERSHOOT = 0.5
"""By how much values of float pictures may lie outside of [0, 1], which clips them."""

PictureLike = Picture | PictureInMemory | str | PathLike[str]
"""Everything that is taken as a picture; see :func:`read`."""


def read(source: PictureLike | BinaryIO) -> Picture:
    """A picture as models take it: upright, at its full depth, with its metadata.

    Args:
        source: a path or an open binary file; an image of Pillow's; an array uint8 or uint16,
            (h, w) or (h, w, c); or a picture, which is returned.

    Raises:
        VdsrError: it cannot be read.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, str | PathLike):
        return read_picture(_path(source))
    if hasattr(source, "read"):
        return read_picture(_binary(source))
    return to_picture(source)


def frames(source: str | PathLike[str] | BinaryIO) -> Iterator[Picture]:
    """The frames of an animation, the pages of a TIFF, or the one picture of another file, as
    :func:`read` gives it: each when it is asked for, from a file that stays open until the last.

    Raises:
        VdsrError: it cannot be read.
    """
    named = _path(source) if isinstance(source, str | PathLike) else _binary(source)
    with open_pictures(named) as pictures:
        yield from [pictures] if isinstance(pictures, Picture) else pictures


def load(
    name: str | PathLike[str] = DEFAULT_MODEL, *, device: str = "auto", dtype: str = "auto"
) -> "Model":
    """A model, ready to sample.

    Args:
        name: a row of ``vdsr weights list``, a weights file, a run folder, or ``auto``, which
            looks at each picture as the command line does.
        device: auto, cpu, cuda, cuda:1 or mps.
        dtype: auto, float32, bfloat16 or float16.

    Raises:
        VdsrError: the model or the device cannot be used.
    """
    if not isinstance(name, str | PathLike):
        raise UsageError(f"a model is named by a string or a path, not by {name!r}")
    return Model(os.fspath(name), choose_runtime(device, dtype))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """A larger picture, in the depth and channels of its source, with its metadata.

    ``np.asarray`` gives its levels; a notebook shows it.

    Attributes:
        index: which sample it is; None for a mean.
        model: the name of the model that drew it.
        lr_psnr: dB of these levels, degraded again, against the input; None where nothing of their
            size degrades to it.
    """

    index: int | None
    model: str
    lr_psnr: float | None
    _canvas: Canvas

    @property
    def height(self) -> int:
        """Rows, in pixels."""
        return self._canvas.height

    @property
    def width(self) -> int:
        """Columns, in pixels."""
        return self._canvas.width

    @property
    def levels(self) -> NDArray[Any]:
        """(H, W, c) uint8 or uint16: c = 1 grey, 2 with alpha, 3 RGB, 4 with alpha; a view."""
        return self._canvas.levels()

    def save(self, path: str | PathLike[str], *, quality: int = 95, overwrite: bool = True) -> None:
        """Writes the file, whole or not at all, in the format of its extension.

        Args:
            path: of the file; its folder is made where there is none.
            quality: of JPEG, WebP and AVIF, 1 to 100.
            overwrite: whether a file of that name is replaced.

        Raises:
            VdsrError: it cannot be written, or is there and not to be replaced.
        """
        if not 1 <= (quality := _whole("quality", quality)) <= 100:
            raise UsageError(f"quality is 1 to 100, not {quality}")
        existing, file = Existing.overwrite if overwrite else Existing.refuse, _path(path)
        refuse_taken([file], existing)
        self._canvas.save(file, quality=quality, replace=existing.is_replaced)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.levels, dtype=dtype)

    def _repr_png_(self) -> bytes:
        return self._canvas.png()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples(Sequence[Result]):
    """Samples of what a picture may come from, in the order of their index.

    Attributes:
        mean: of all, which degrades to the input as they do.
        std: (H, W) float32, their standard deviation where 1 is white; zeros for one sample.
    """

    mean: Result
    std: NDArray[np.float32]
    _results: tuple[Result, ...]

    def __len__(self) -> int:
        return len(self._results)

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Result]: ...
    def __getitem__(self, index: int | slice) -> Result | Sequence[Result]:
        return self._results[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """The negative ELBO of pictures, in bits per dimension (Chira 2022, eq. 5).

    Attributes:
        bits_per_dim: distortion and rate together.
        distortion_bits: -log p(hr | z, lr).
        rate_bits: KL(q(z | hr, lr) | p(z | lr)).
    """

    bits_per_dim: float
    distortion_bits: float
    rate_bits: float


class Model:
    """A super-resolution model in its place; :func:`load` makes it."""

    def __init__(self, name: str, runtime: Runtime) -> None:
        self._name, self._runtime = name, runtime
        self._load = cache(partial(loading.load, runtime=runtime, expects=Sampler))
        self._loaded: LoadedModel | None = None if name == AUTO_MODEL else self._load(name)

    def __repr__(self) -> str:
        return f"vdsr.load({self._name!r}, device={str(self._runtime.device)!r})"

    @property
    def name(self) -> str:
        """As it was asked for."""
        return self._name

    @property
    def scale(self) -> int:
        """The integer factor of one pass; raises VdsrError for ``auto``."""
        return self._one.scale

    @property
    def network(self) -> Sampler:
        """The module itself, in evaluation mode; raises VdsrError for ``auto``."""
        return self._one.model

    def upscale(
        self,
        picture: PictureLike,
        *,
        scale: float = 4.0,
        temperature: float | str = DEFAULT_TEMPERATURE,
        seed: int = 0,
        consistency: bool | None = None,
        edges: Literal["repeat", "mirror"] = "repeat",
        wrap: Wrap | None = None,
        pixels: Literal["mean", "sample"] = "mean",
        tile: int | None = None,
        overlap: int | None = None,
        batch_size: int | None = None,
        progress: bool = False,
    ) -> Result:
        """The larger picture, as ``vdsr upscale`` writes it; the options are those of its help.

        Args:
            picture: as :func:`read` takes it.
            scale: output size over input size, 1 to 16.
            temperature: factor on every latent's standard deviation, 0 to 2; by level as the
                command line takes it, such as ``"16:0.2,8:0.5"``.
            seed: of the noise.
            consistency: whether the result is projected to degrade to the input; None for where
                the model was trained on that degradation.
            edges: of the reduction that it is projected on and measured by.
            wrap: the axes along which the picture goes on at its opposite edge; None for x of a
                panorama that says that it goes all around.
            pixels: the likelihood's mean, or a draw from it.
            tile, overlap: LR pixels; None for the model's own choice.
            batch_size: most tiles at once; None for what fits.
            progress: whether a bar on stderr shows the tiles.

        Raises:
            VdsrError: the picture cannot be read or made.
        """
        scale = _number("scale", scale)
        check_scale(scale)
        settings = SamplingSettings(
            temperature=_temperature(temperature),
            edges=_edges(edges),
            wrap=_wrap(wrap),
            seed=_whole("seed", seed),
            output=pixels,
            tile=None if tile is None else _whole("tile", tile),
            overlap=None if overlap is None else _whole("overlap", overlap),
            batch_size=None if batch_size is None else _whole("batch_size", batch_size),
        )
        source = read(picture)
        models = self._loaded or auto_upscaler(scale, self._load)
        loaded = models.choose(source).loaded
        plan = self._plan(source, loaded, settings, scale, consistency)
        with _bar(plan, progress) as on_tiles:
            [canvas] = draw_canvases(source, plan, self._runtime, on_tiles=on_tiles)
        return _result(canvas, source, loaded, 0, plan.settings)

    def sample(
        self,
        picture: PictureLike,
        n: int = 5,
        *,
        temperature: float | str = DEFAULT_TEMPERATURE,
        seed: int = 0,
        consistency: bool | None = None,
        edges: Literal["repeat", "mirror"] = "repeat",
        wrap: Wrap | None = None,
        progress: bool = False,
    ) -> Samples:
        """``n`` samples at the model's own scale, as ``vdsr sample-diverse`` draws them, in one
        pass; sample 0 is what :meth:`upscale` makes by the same model, which ``auto`` chooses for
        samples as that command does. Arguments as there.

        Raises:
            VdsrError: the picture cannot be read or made.
        """
        if (n := _whole("n", n)) < 1:
            raise UsageError(f"n must be 1 or more, not {n}")
        source = read(picture)
        models = self._loaded or auto_sampler(4, self._load)
        loaded = models.choose(source).loaded
        settings = SamplingSettings(
            temperature=_temperature(temperature),
            edges=_edges(edges),
            wrap=_wrap(wrap),
            seed=_whole("seed", seed),
            samples=tuple(range(n)),
        )
        plan = self._plan(source, loaded, settings, loaded.scale, consistency)
        with _bar(plan, progress) as on_tiles:
            drawn = draw_set(source, plan, self._runtime, on_tiles=on_tiles)
        results = [
            _result(c, source, loaded, i, plan.settings) for i, c in enumerate(drawn.canvases)
        ]
        mean = _result(drawn.mean, source, loaded, None, plan.settings)
        return Samples(mean=mean, std=drawn.std.numpy(), _results=tuple(results))

    def __call__(
        self, lr: Tensor, *, temperature: float | str = DEFAULT_TEMPERATURE, seed: int = 0
    ) -> Tensor:
        """(B, 3, h, w) in [0, 1] -> (B, 3, H, W) in [0, 1] at the model's scale, on the device of
        ``lr``: what :meth:`upscale` makes of each picture, not rounded. Without gradients.

        Raises:
            VdsrError: no such pictures, or ``auto``.
        """
        _check_tensor(lr)
        if lr.ndim != 4 or lr.shape[1] != 3 or not lr.is_floating_point() or not lr.numel():
            raise UsageError(f"lr must be float (B, 3, h, w), not {lr.dtype} {tuple(lr.shape)}")
        _check_range(lr)
        settings = SamplingSettings(
            temperature=_temperature(temperature), seed=_whole("seed", seed)
        )
        loaded, results = self._one, []
        for each in lr.detach().float().clamp(0, 1):
            source = Picture(rgb=each.unsqueeze(0))
            plan = self._plan(source, loaded, settings, loaded.scale, None)
            rows = [rows.rgb for rows in draw_rows(source, plan, self._runtime)]
            results.append(torch.cat(rows, dim=2).clamp(0, 1))
        return torch.cat(results).to(lr)

    def elbo(self, hr: Tensor, lr: Tensor, *, seed: int = 0) -> Likelihood:
        """The ELBO of pictures given their LR pictures, as ``vdsr bench`` scores it.

        Args:
            hr: (B, 3, H, W) or (3, H, W), uint8 or in [0, 1], which counts by its 256 levels.
            lr: the same, at 1 / scale of the size.
            seed: of the posterior's one draw.

        Raises:
            VdsrError: sizes that do not belong together, or a model without a likelihood.
        """
        loaded = self._one
        model: object = loaded.model
        if not isinstance(model, LikelihoodModel):
            raise UsageError(f"{self._name} has no likelihood")
        pairs = _pairs(hr, lr)
        for one, small in pairs:
            if tuple(one.shape[1:]) != tuple(loaded.scale * side for side in small.shape[1:]):
                raise UsageError(
                    f"hr {tuple(one.shape)} is not x{loaded.scale} {tuple(small.shape)}"
                )
        scenes = [
            Scene(name="", hr=one, lr=small, scale=loaded.scale, source_size=(0, 0))
            for one, small in pairs
        ]
        seed = _whole("seed", seed)
        scores = [bound_bits(model, scene, seed=seed, runtime=self._runtime) for scene in scenes]
        if not all(scores):
            raise UsageError("hr is smaller than the coarsest cell of the model")
        means = {key: sum(s[key] for s in scores) / len(scores) for key in scores[0]}
        return Likelihood(
            bits_per_dim=means["bits_per_dim"],
            distortion_bits=means["distortion_bits"],
            rate_bits=means["rate_bits"],
        )

    @property
    def _one(self) -> LoadedModel:
        if self._loaded is None:
            raise UsageError("auto chooses by the picture: load a model by its name")
        return self._loaded

    def _plan(
        self,
        picture: Picture,
        loaded: LoadedModel,
        settings: SamplingSettings,
        scale: float,
        consistency: bool | None,
    ) -> UpscalePlan:
        return plan_upscale(
            picture, loaded, settings, self._runtime, scale=scale, consistency=consistency
        )


def _whole(name: str, value: object) -> int:
    """A whole number of any library's; raises UsageError."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(f"{name} must be a whole number, not {value!r}") from None


def _number(name: str, value: object) -> float:
    """A number of any library's; raises UsageError."""
    if not isinstance(value, Real):
        raise UsageError(f"{name} must be a number, not {value!r}")
    return float(value)


def _temperature(value: float | str) -> Temperature:
    return parse_temperature(value if isinstance(value, str) else _number("temperature", value))


def _path(path: str | PathLike[str]) -> Path:
    """A path that a system may know; raises InputError."""
    if not isinstance(path, str | PathLike):
        raise InputError(f"a {type(path).__name__} is no path")
    if "\0" in str(Path(path)):
        raise InputError(f"{str(path)!r} is no path: it holds a zero")
    return Path(path)


def _binary(source: object) -> BinaryIO:
    """An open binary file; raises InputError for one of text, and for what is no file."""
    if not hasattr(source, "read") or isinstance(source, TextIOBase):
        raise InputError(f"a {type(source).__name__} is no path, and no binary file")
    if getattr(source, "closed", False):
        raise InputError("the file is closed")
    if hasattr(source, "seekable"):
        return cast(BinaryIO, source)
    with reading("the file"):
        content = source.read()
        if not isinstance(content, bytes):
            raise InputError("it does not give bytes")
    return BytesIO(content)


def _edges(name: str) -> Edges:
    if name not in list(Edges):
        raise UsageError(f"edges are {' or '.join(Edges)}, not {name!r}")
    return Edges(name)


def _wrap(axes: str | None) -> Wrap | None:
    known = get_args(Wrap)
    if axes is not None and axes not in known:
        raise UsageError(f"wrap is {', '.join(known)} or None, not {axes!r}")
    return cast(Wrap | None, axes)


def _result(
    canvas: Canvas,
    source: Picture,
    loaded: LoadedModel,
    index: int | None,
    settings: SamplingSettings,
) -> Result:
    scale = canvas.height // source.height
    is_whole = (canvas.height, canvas.width) == (scale * source.height, scale * source.width)
    psnr = _lr_psnr(canvas, source.rgb[0], scale, settings) if is_whole else None
    return Result(index=index, model=loaded.name, lr_psnr=psnr, _canvas=canvas)


def _lr_psnr(canvas: Canvas, lr: Tensor, scale: int, settings: SamplingSettings) -> float:
    frame = canvas.frame
    values = torch.from_numpy(canvas.levels().astype(np.float32)).div_(frame.full)
    planes = values.permute(2, 0, 1)
    colours, cover = (planes[:-1], planes[-1:]) if frame.has_alpha else (planes, None)
    rgb = (colours if cover is None else colours * cover).expand(3, -1, -1)
    fidelity = LrFidelity(lr, 1, scale, settings.edges, settings.periodic)
    fidelity.add(rgb.unsqueeze(0))
    return fidelity.psnr()[0]


@contextmanager
def _bar(plan: UpscalePlan, is_shown: bool) -> Iterator[Callable[[int], None]]:

    with tqdm(total=plan.tiles, unit="tile", disable=not is_shown) as bar:
        yield bar.update


def _check_tensor(value: object) -> None:
    """Raises UsageError for what is no tensor, or has no numbers."""
    if not isinstance(value, Tensor) or value.is_meta:
        raise UsageError(f"a {type(value).__name__} is no tensor of pictures")


def _check_range(pictures: Tensor) -> None:
    """Raises UsageError for float pictures that are not finite, or plainly of another range."""
    low, high = (value.item() for value in pictures.detach().aminmax())
    if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):
        raise UsageError(f"pictures must be in [0, 1], not from {low:g} to {high:g}")


def _batch(pictures: Tensor) -> list[Tensor]:
    """(B, 3, H, W) or (3, H, W), uint8 or in [0, 1] -> B times uint8 (3, H, W)."""
    _check_tensor(pictures)
    if pictures.ndim not in (3, 4) or pictures.shape[-3] != 3:
        raise UsageError(f"pictures must be (B, 3, H, W) or (3, H, W), not {tuple(pictures.shape)}")
    whole = pictures.detach().cpu()
    if whole.dtype != torch.uint8:
        if not whole.is_floating_point():
            raise UsageError(f"pictures must be uint8 or float, not {whole.dtype}")
        if whole.numel():
            _check_range(whole)
        whole = to_levels(whole)
    return list(whole.view(-1, *whole.shape[-3:]))


def _pairs(first: Tensor, second: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The pictures of two batches that belong together, uint8. Raises UsageError."""
    batches = _batch(first), _batch(second)
    if len(batches[0]) != len(batches[1]) or not first.numel() or not second.numel():
        raise UsageError(f"{tuple(first.shape)} and {tuple(second.shape)} are no pairs of pictures")
    return list(zip(*batches, strict=True))


def _scores(
    score: Callable[[Tensor, Tensor], float], sr: Tensor, hr: Tensor, *, shave: int, window: int = 1
) -> list[float]:
    """The score of each pair, of one size, of which ``window`` pixels across are left."""
    pairs, shave = _pairs(sr, hr), _whole("shave", shave)
    if sr.shape[-2:] != hr.shape[-2:]:
        raise UsageError(f"sr {tuple(sr.shape)} and hr {tuple(hr.shape)} are not of one size")
    if shave < 0 or min(sr.shape[-2:]) - 2 * shave < window:
        raise UsageError(f"shave {shave} leaves less than {window} of {tuple(sr.shape)}")
    return [score(a, b) for a, b in pairs]


def psnr_y(sr: Tensor, hr: Tensor, *, shave: int) -> float:
    """PSNR of the luma in dB, as ``vdsr bench`` scores it; the mean over a batch, without
    those pictures that are met exactly.

    Args:
        sr, hr: (B, 3, H, W) or (3, H, W), uint8 or in [0, 1], which is rounded to 8 bits first.
        shave: pixels left out at each border; the scale, by convention.

    Raises:
        VdsrError: pictures that are no pairs, or too small.
    """
    score = partial(metrics.psnr_y, shave=shave)
    return metrics.mean_psnr(_scores(score, sr, hr, shave=shave))


def ssim_y(sr: Tensor, hr: Tensor, *, shave: int) -> float:
    """SSIM of the luma, as ``vdsr bench`` scores it; arguments as :func:`psnr_y`."""
    score = partial(metrics.ssim_y, shave=shave)
    return fmean(_scores(score, sr, hr, shave=shave, window=metrics.SSIM_WINDOW))


def lr_psnr(
    sr: Tensor,
    lr: Tensor,
    *,
    scale: int,
    edges: Literal["repeat", "mirror"] = "repeat",
    wrap: Wrap = "none",
) -> float:
    """PSNR in dB of pictures that are degraded again to 8 bits against their inputs, of a batch's
    mean squared error; ``edges`` and ``wrap`` as the pictures were made by, arguments otherwise as
    :func:`psnr_y`."""
    pairs, scale = _pairs(sr, lr), _whole("scale", scale)
    if scale < 1 or tuple(sr.shape[-2:]) != tuple(scale * side for side in lr.shape[-2:]):
        raise UsageError(f"sr {tuple(sr.shape)} is not x{scale} {tuple(lr.shape)}")
    periodic = SamplingSettings(wrap=_wrap(wrap)).periodic
    score = partial(metrics.lr_psnr, scale=scale, edges=_edges(edges), periodic=periodic)
    return metrics.pooled_psnr([score(a, b) for a, b in pairs])


def degrade(hr: Tensor, scale: int, edges: Literal["repeat", "mirror"] = "repeat") -> Tensor:
    """A: (..., H, W) of any float dtype and range -> (..., H / scale, W / scale), not rounded:
    the bicubic reduction that results are faithful to. Gradients go through it.

    Raises:
        VdsrError: whole numbers, or sides that are no multiples of the scale.
    """
    scale = _whole("scale", scale)
    _check_tensor(hr)
    if not hr.is_floating_point() or hr.ndim < 2:
        raise UsageError(f"hr must be float (..., H, W), not {hr.dtype} {tuple(hr.shape)}")
    if scale < 1 or not hr.numel() or any(side % scale for side in hr.shape[-2:]):
        raise UsageError(f"hr {tuple(hr.shape)} is not to be reduced by {scale}")
    return consistency.degrade(hr, scale, _edges(edges))
