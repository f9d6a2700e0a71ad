"""Sheets for the eye: crops of pictures of many kinds, upscaled by several models side by side.

    python tools/sheet.py sheet.png --models vdvae-sr-x4,mine.safetensors val Set14 phone
        [--temperatures 0,0.8] [--zooms 1,3] [--crops tools/crops.toml] [--rows face,text]

The sets are folders as ``vdsr bench`` takes them: HR pictures alone, or with LR ones beside them,
such as tools/degraded_set.py makes. Each row shows the truth, the LR picture with its pixels
visible, bicubic, and each model at each temperature; below it the middle of the same at the next
zoom. A crop is upscaled with its surroundings. Crops of sets that are not given are left out.
"""

import argparse
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vdsr_cli.bench.data import Dataset, Protocol, Scene, discover, load_scene
from vdsr_cli.consistency import degrade_8bit
from vdsr_cli.figures.contact_sheet import Entry, contact_sheet, enlarged
from vdsr_cli.images import Picture, save_levels
from vdsr_cli.images.levels import from_pillow, to_pillow
from vdsr_cli.images.resize import bicubic
from vdsr_cli.loading import LoadedModel, load
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.runtime import Runtime, choose_runtime
from vdsr_cli.sampling.engine import SamplingSettings
from vdsr_cli.services.upscale import UpscaleRequest, upscale_picture

CROPS = Path(__file__).with_name("crops.toml")
SIDE = 240
"""Side of a picture on the sheet, pixels; a multiple of the scales and the zooms."""
MARGIN = 24
"""LR pixels of a crop's surroundings that the models see too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """A row: a place in a picture of a set, or a drawing."""

    name: str
    set: str | None = None
    file: str | None = None
    centre: tuple[int, int] | None = None
    drawing: str | None = None


def screenshot() -> Image.Image:
    """A window with a title, a list, buttons and lines of a pixel."""
    picture = Image.new("RGB", (480, 480), (236, 239, 244))
    draw, ink = ImageDraw.Draw(picture), (46, 52, 64)
    draw.rectangle((60, 60, 420, 92), fill=(94, 129, 172))
    draw.text((72, 67), "Preferences", fill="white", font=ImageFont.load_default(18))
    draw.rectangle((60, 92, 420, 420), fill="white", outline=ink)
    for row, size in enumerate((12, 14, 16, 18, 20, 24)):
        top = 104 + 34 * row
        draw.text(
            (76, top), "The quick brown fox 0123", fill=ink, font=ImageFont.load_default(size)
        )
        draw.rectangle((356, top, 370, top + 14), outline=ink)
        draw.line((60, top + 28, 420, top + 28), fill=(216, 222, 233))
    draw.rounded_rectangle((76, 330, 200, 364), 8, fill=(163, 190, 140), outline=ink)
    draw.text((112, 338), "Cancel", fill=ink, font=ImageFont.load_default(16))
    draw.rounded_rectangle((230, 330, 360, 364), 8, fill=(191, 97, 106))
    draw.text((276, 338), "Apply", fill="white", font=ImageFont.load_default(16))
    return picture


def lines() -> Image.Image:
    """Ink on paper: circles, a fan, a grid and hatching, drawn at four times the size."""
    picture = Image.new("L", (1920, 1920), 250)
    draw = ImageDraw.Draw(picture)
    for radius in range(60, 420, 88):
        box = (880 - radius, 880 - radius, 880 + radius, 880 + radius)
        draw.ellipse(box, outline=20, width=9)
    for step in range(12):
        draw.line((1400, 1300, 1000 + 45 * step, 500), fill=20, width=8)
    for step in range(7):
        draw.line((500, 960 + 72 * step, 932, 960 + 72 * step), fill=20, width=7)
        draw.line((500 + 72 * step, 960, 500 + 72 * step, 1392), fill=20, width=7)
    for step in range(10):
        draw.line((950 + 44 * step, 1420, 1010 + 44 * step, 1180), fill=60, width=7)
    return picture.resize((480, 480), Image.Resampling.BOX).convert("RGB")


DRAWINGS: dict[str, Callable[[], Image.Image]] = {"screenshot": screenshot, "lines": lines}


def scene_of(crop: Crop, datasets: Sequence[Dataset], scale: int) -> Scene | None:
    """The picture of a crop with its LR picture; None where no set has it."""
    if crop.drawing is not None:
        hr = from_pillow(DRAWINGS[crop.drawing]())
        lr = degrade_8bit(hr.unsqueeze(0), scale)[0]
        return Scene(name=crop.name, hr=hr, lr=lr, scale=scale, source_size=(480, 480))
    for dataset in datasets:
        for pair in dataset.pairs:
            if (dataset.name, pair.name) == (crop.set, crop.file):
                return load_scene(pair, Protocol.standard, scale)
    return None


def window(length: int, centre: int, side: int) -> range:
    """``side`` pixels around the centre that lie within ``length``, or all there are."""
    first = max(0, min(centre - side // 2, length - side))
    return range(first, min(first + side, length))


def cut(planes: Tensor, rows: range, columns: range) -> Tensor:
    """A part of (C, H, W)."""
    return planes[:, rows.start : rows.stop, columns.start : columns.stop]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A model at a temperature."""

    loaded: LoadedModel
    temperature: float

    @property
    def label(self) -> str:
        """The text below its pictures."""
        return f"{Path(self.loaded.name).stem} t={self.temperature:g}"

    def enlarge(self, lr: Tensor, runtime: Runtime) -> Tensor:
        """uint8 (3, h, w) -> (3, H, W)."""
        scale = self.loaded.model.scale
        settings = SamplingSettings(temperature=self.temperature)
        request = UpscaleRequest(scale=scale, settings=settings)
        picture = Picture(rgb=lr.unsqueeze(0).float() / 255)
        canvas = upscale_picture(picture, self.loaded, request, runtime)
        return torch.from_numpy(canvas.rgb8().copy()).permute(2, 0, 1)


def versions(
    scene: Scene, centre: tuple[int, int] | None, columns: Sequence[Column], runtime: Runtime
) -> list[tuple[str, NDArray[np.uint8]]]:
    """A crop in all ways, each with its label: (SIDE, SIDE, 3), or smaller where the picture is."""
    scale, (height, width) = scene.scale, scene.lr.shape[1:]
    x, y = centre or (width * scale // 2, height * scale // 2)
    seen = [
        window(length, middle // scale, SIDE // scale + 2 * MARGIN)
        for length, middle in ((height, y), (width, x))
    ]
    shown = [
        window(len(part), middle // scale - part.start, SIDE // scale)
        for part, middle in zip(seen, (y, x), strict=True)
    ]
    lr = cut(scene.lr, seen[0], seen[1])
    large = [range(part.start * scale, part.stop * scale) for part in shown]
    hr = cut(scene.hr, *(range(part.start * scale, part.stop * scale) for part in seen))
    visible = lr.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    made = [("HR", hr), ("LR", visible), ("bicubic", bicubic(lr, scale))]
    made += [(column.label, column.enlarge(lr, runtime)) for column in columns]
    return [(label, np.asarray(to_pillow(cut(sr, large[0], large[1])))) for label, sr in made]


def rows_of(
    name: str, pictures: Sequence[tuple[str, NDArray[np.uint8]]], zooms: Sequence[int]
) -> list[list[Entry]]:
    """A line of the sheet for each zoom: the middle of the pictures, enlarged so many times."""
    lines = []
    for zoom in zooms:
        line = []
        for label, rgb in pictures:
            rows, columns = (window(side, side // 2, side // zoom) for side in rgb.shape[:2])
            part = rgb[rows.start : rows.stop, columns.start : columns.stop]
            shown = enlarged(part, len(rows) * zoom, len(columns) * zoom)
            told = f"{name} {100 * zoom} %, {label}" if label == "HR" else label
            line.append(Entry(label=told, rgb=shown))
        lines.append(line)
    return lines


def main() -> None:
    """Parses, upscales, draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", type=Path, nargs="*", help="folders")
    parser.add_argument("--models", default="vdvae-sr-x4", help="names or files")
    parser.add_argument("--temperatures", default="0,0.8")
    parser.add_argument("--zooms", default="1,3")
    parser.add_argument("--crops", type=Path, default=CROPS)
    parser.add_argument("--rows", help="names of the crops to show; all by default")
    options = parser.parse_intermixed_args()
    runtime = choose_runtime()
    models = [load(name, runtime, expects=Sampler) for name in options.models.split(",")]
    scale = models[0].model.scale
    if any(loaded.model.scale != scale for loaded in models):
        sys.exit("the models must have one scale")
    temperatures = [float(t) for t in options.temperatures.split(",")]
    columns = [Column(loaded=m, temperature=t) for m in models for t in temperatures]
    datasets = discover(options.sets, scale)
    crops = [Crop(**row) for row in tomllib.loads(options.crops.read_text("utf-8"))["crops"]]
    wanted = options.rows.split(",") if options.rows else [crop.name for crop in crops]
    sheet: list[list[Entry]] = []
    for crop in (crop for crop in crops if crop.name in wanted):
        scene = scene_of(crop, datasets, scale)
        if scene is None:
            print(f"left out: {crop.name}, no {crop.file} in {crop.set}", file=sys.stderr)
            continue
        pictures = versions(scene, crop.centre, columns, runtime)
        sheet += rows_of(crop.name, pictures, [int(zoom) for zoom in options.zooms.split(",")])
    if not sheet:
        sys.exit("no crop to show")
    save_levels(options.out, contact_sheet(sheet, title=f"x{scale}"))


if __name__ == "__main__":
    main()
