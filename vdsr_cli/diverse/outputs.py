"""The outputs of ``vdsr sample-diverse``: pictures, maps, the contact sheet, the report."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsr_cli.diverse.records import (
    DiverseRequest,
    DiverseResult,
    PictureResult,
    SetFiles,
    SetResult,
)
from vdsr_cli.errors import OutputError
from vdsr_cli.figures.contact_sheet import Entry, contact_sheet, enlarged
from vdsr_cli.figures.html_report import Figures, Report
from vdsr_cli.figures.viridis import viridis
from vdsr_cli.images import Canvas, Picture, read_picture, save_levels
from vdsr_cli.metrics import LPIPS, average_pairwise
from vdsr_cli.metrics.streaming import LrFidelity, mean_of_pairs
from vdsr_cli.outputs import Existing
from vdsr_cli.sampling.engine import SamplingSettings
from vdsr_cli.sampling.pipeline import UpscalePlan
from vdsr_cli.sampling.sample_set import SampleSet

_LPIPS_FILE = "lpips_alex.safetensors"
_LPIPS_SMALLEST_PX = 64
_MEASURED_ROWS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DoneSet:
    """One temperature's samples, their names, and what was written of them."""

    result: SetResult
    drawn: SampleSet
    names: Sequence[str]

    @property
    def label(self) -> str:
        """Name of the set on sheets."""
        return f"t {self.result.temperature:g}"


def write_set(
    drawn: SampleSet,
    files: SetFiles,
    plan: UpscalePlan,
    picture: Picture,
    request: DiverseRequest,
    *,
    seconds: float,
) -> tuple[SetResult, tuple[str, ...]]:
    """Writes the pictures and maps of one temperature, that of the plan, and measures the files.

    Returns:
        What was written, and notes for the user.
    """
    notes: list[str] = []
    count = len(drawn.canvases)
    several = count > 1
    samples = request.pick.samples(drawn.distances) if request.pick else (*range(count), None)
    full = colour_full(drawn.std)
    # Encoding PNG takes as long as projecting, and leaves the interpreter to others meanwhile.
    with ThreadPoolExecutor() as pool:
        maps = pool.submit(_write_maps, files, drawn.std, full, request.existing)
        write = partial(_write_picture, drawn, picture, plan.settings, request)
        done = list(pool.map(write, files.pictures, files.pictures.values(), samples))
        maps.result()
    for _, picture_notes in done:
        notes += picture_notes
    lpips = _apd_lpips(drawn, request.metric_weights, notes) if several else None
    result = SetResult(
        temperature=plan.settings.temperature,
        samples=count,
        pictures=tuple(picture for picture, _ in done),
        apd_mse=mean_of_pairs(drawn.distances) if several else None,
        apd_lpips=lpips,
        std_mean=round(255 * drawn.std.mean().item(), 4) if several else None,
        std_colour_full=round(255 * full, 4) if several else None,
        std_file=None if files.std_colours is None else str(files.std_colours),
        std_values_file=None if files.std_values is None else str(files.std_values),
        seconds=round(seconds, 3),
    )
    return result, tuple(dict.fromkeys(notes))


def _write_picture(
    drawn: SampleSet,
    picture: Picture,
    settings: SamplingSettings,
    request: DiverseRequest,
    name: str,
    path: Path,
    sample: int | None,
) -> tuple[PictureResult, tuple[str, ...]]:
    """Writes one picture and measures its file; also notes for the user."""
    canvas = drawn.mean if sample is None else drawn.canvases[sample]
    notes: tuple[str, ...] = ()
    with request.existing.kept():
        notes = canvas.save(path, quality=request.quality, replace=request.existing.is_replaced)
    psnr, same = measure_file(path, picture, settings)
    before = drawn.mean_lr_psnr if sample is None else drawn.lr_psnr[sample]
    result = PictureResult(
        name=name, sample=sample, file=str(path), lr_psnr=psnr, lr_psnr_float=before, lr_same=same
    )
    return result, notes


def _write_maps(files: SetFiles, std: Tensor, full: float, existing: Existing) -> None:
    """Writes the deviation, in colours that end at ``full`` and as values."""
    if files.std_colours is not None and files.std_values is not None:
        colours = viridis(std.numpy(), largest=full)
        for path, levels in ((files.std_colours, colours), (files.std_values, _as_values(std))):
            with existing.kept():
                save_levels(path, levels, replace=existing.is_replaced)


def measure_file(path: Path, picture: Picture, settings: SamplingSettings) -> tuple[float, float]:
    """LR-PSNR in dB and the share of LR samples given back, of a file as it is on the disk that
    these settings made of a picture: on white, where it has no alpha.

    Raises:
        OutputError: a file that was kept cannot be of this picture.
    """
    made = read_picture(path, max_pixels=1 << 40)
    lr = on_white(picture) if made.alpha is None else picture.rgb[0]
    rgb = made.rgb
    scale = rgb.shape[2] // lr.shape[1]
    if rgb.shape[2:] != (scale * lr.shape[1], scale * lr.shape[2]):
        raise OutputError(
            f"{path} exists and is of another size", hint="--overwrite, or another folder for -o"
        )
    fidelity = LrFidelity(lr, 1, scale, settings.edges, settings.periodic)
    for top in range(0, rgb.shape[2], _MEASURED_ROWS * scale):
        fidelity.add(rgb[:, :, top : top + _MEASURED_ROWS * scale])
    return fidelity.psnr()[0], fidelity.same()[0]


def colour_full(std: Tensor) -> float:
    """The deviation that the brightest colour stands for: the one that one pixel in 200 exceeds."""
    step = max(1, std.numel() // 1_000_000)
    values = std.flatten()[::step]
    rank = max(1, round(0.995 * len(values)))
    return max(values.kthvalue(rank).values.item(), 0.5 / 255)


def _as_values(std: Tensor) -> NDArray[np.uint16]:
    """(H, W) where 1 is white -> (H, W, 1) uint16 where 65535 is white."""
    levels = (std * 65535).round().clamp(0, 65535).to(torch.int32)
    return levels.numpy().astype(np.uint16)[:, :, None]


def _apd_lpips(drawn: SampleSet, folder: Path | None, notes: list[str]) -> float | None:
    """Average pairwise LPIPS, or None and a note on why not."""
    if folder is None:
        return None
    weights = folder / _LPIPS_FILE
    if not weights.is_file():
        notes.append(f"{folder} holds no {_LPIPS_FILE}: APD-LPIPS was not computed")
        return None
    if min(drawn.std.shape) < _LPIPS_SMALLEST_PX:
        notes.append(f"APD-LPIPS needs {_LPIPS_SMALLEST_PX} pixels a side")
        return None
    network = LPIPS(weights)
    features = [network.features(canvas.planes8()) for canvas in drawn.canvases]
    return average_pairwise(features, network.distance)


def on_white(picture: Picture) -> Tensor:
    """A picture laid on white, as formats without alpha keep it: (3, h, w) in [0, 1]."""
    rgb = picture.rgb[0]
    return rgb if picture.alpha is None else rgb + (1 - picture.alpha[0])


def make_sheet(sets: Sequence[DoneSet], picture: Picture, title: str) -> NDArray[np.uint8]:
    """The contact sheet: the input, then a row of samples (and mean, deviation) a temperature."""
    height, width = sets[0].drawn.std.shape
    first = Entry(label="input", rgb=enlarged(Canvas.of(picture).rgb8(), height, width))
    if len(sets) > 1:
        return contact_sheet([[first], *(list(_entries(s, s.label)) for s in sets)], title=title)
    entries = [first, *_entries(sets[0], "")]
    columns = max(2, min(6, round(len(entries) ** 0.5 * 1.4)))
    rows = [entries[i : i + columns] for i in range(0, len(entries), columns)]
    return contact_sheet(rows, title=title)


def _entries(done: DoneSet, prefix: str) -> Iterator[Entry]:
    result, drawn = done.result, done.drawn
    start = f"{prefix}, " if prefix else ""
    for name, canvas in zip(done.names, drawn.canvases, strict=True):
        yield Entry(label=f"{start}{name}", rgb=canvas.rgb8())
    if result.std_colour_full is not None and result.std_file is not None:
        yield Entry(label=f"{start}mean", rgb=drawn.mean.rgb8())
        colours = viridis(drawn.std.numpy(), largest=result.std_colour_full / 255)
        yield Entry(label=f"{start}std 0 to {result.std_colour_full:.1f}/255", rgb=colours)


def make_report(result: DiverseResult, sets: Sequence[DoneSet], picture: Picture) -> Report:
    """The contents of the HTML page."""
    several = len(sets) > 1
    layers, maps = [], []
    for done in sets:
        prefix = f"{done.label}, " if several else ""
        drawn = done.drawn
        layers += [
            Entry(label=f"{prefix}{name}", rgb=canvas.rgb8())
            for name, canvas in zip(done.names, drawn.canvases, strict=True)
        ]
        if len(drawn.canvases) > 1:
            layers.append(Entry(label=f"{prefix}mean", rgb=drawn.mean.rgb8()))
            full = colour_full(drawn.std)
            label = f"{prefix}up to {255 * full:.1f} of 255"
            maps.append(Entry(label=label, rgb=viridis(drawn.std.numpy(), largest=full)))
    return Report(
        title=Path(result.input).name,
        facts=_facts(result),
        input=Entry(label="input", rgb=Canvas.of(picture).rgb8()),
        results=tuple(layers),
        deviations=tuple(maps),
        figures=_figures(sets),
    )


def seed_text(result: DiverseResult) -> str:
    """The seed as sheets and reports show it."""
    return "unknown" if result.seed is None else str(result.seed)


def _facts(result: DiverseResult) -> tuple[tuple[str, str], ...]:
    facts = [
        ("model", str(result.model)),
        ("scale", f"x{result.scale}"),
        ("size", f"{result.width} x {result.height}"),
        ("temperature", ", ".join(f"{s.temperature:g}" for s in result.sets)),
        ("seed", seed_text(result)),
        (
            "faithful to the input",
            f"projected, edges {result.edges}" if result.edges else "not projected",
        ),
    ]
    if result.wrap:
        facts.append(("periodic", result.wrap))
    return tuple(facts)


def _figures(sets: Sequence[DoneSet]) -> tuple[Figures, ...]:
    tables = []
    for done in sets:
        result = done.result
        rows = [
            (p.name, f"{p.lr_psnr:.1f}", f"{p.lr_psnr_float:.1f}", f"{100 * p.lr_same:.2f} %")
            for p in result.pictures
        ]
        notes = [("seconds", f"{result.seconds:.2f}")]
        if result.apd_mse is not None:
            notes.insert(0, ("APD, mean squared", f"{result.apd_mse:.3e}"))
            notes.insert(1, ("mean deviation", f"{result.std_mean:.2f} of 255"))
        if result.apd_lpips is not None:
            notes.insert(1, ("APD, LPIPS", f"{result.apd_lpips:.4f}"))
        tables.append(
            Figures(
                title=f"Temperature {result.temperature:g}, {result.samples} samples",
                head=("picture", "LR-PSNR of the file, dB", "before rounding, dB", "LR kept"),
                rows=tuple(rows),
                notes=tuple(notes),
            )
        )
    return tuple(tables)
