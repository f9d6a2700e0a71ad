"""Survival of the trip: every picture of some folders read, enlarged and written, then compared.

    python benchmarks/survival.py FOLDER... [--format same|png|jpg|webp|tiff] [--list]

Pictures are enlarged twofold by bicubic interpolation in place of a model, on which nothing here
depends, and written in their own format where that can be written, else as PNG. ExifTool compares
the tags before and after (apt-get install libimage-exiftool-perl); Pillow the profile, the text and
the sizes. A loss is silent where something is gone and no note of the picture tells of it.
"""

import json
import subprocess
from base64 import b64decode
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any

import torch.nn.functional as F
from common import argument_parser
from PIL import Image, PngImagePlugin

from vdsr_cli.errors import InputError, UnexpectedError, VdsrError
from vdsr_cli.images import Canvas, Picture, Series, open_pictures, open_series_file
from vdsr_cli.paths import OUTPUT_SUFFIXES

COUNTED = ("profile", "tags", "text", "depth", "orientation", "timing")
GROUPS = ("EXIF", "MakerNotes", "IPTC", "XMP")
CHANGED = (
    # What describes the stored pixels, or where something lies in the file.
    *("ImageWidth", "ImageHeight", "ExifImageWidth", "ExifImageHeight", "Orientation"),
    *("RelatedImageWidth", "RelatedImageHeight", "PixelXDimension", "PixelYDimension"),
    *("XResolution", "YResolution", "ResolutionUnit", "ImageLength", "XMPToolkit"),
    *("BitsPerSample", "SamplesPerPixel", "Compression", "PhotometricInterpretation"),
    *("StripOffsets", "StripByteCounts", "RowsPerStrip", "PlanarConfiguration", "Predictor"),
    *("SubfileType", "OldSubfileType", "FillOrder", "ExtraSamples", "SampleFormat", "ColorMap"),
    *("TileWidth", "TileLength", "TileOffsets", "TileByteCounts", "PixelScale", "ModelTiePoint"),
    *("YCbCrSubSampling", "YCbCrPositioning", "YCbCrCoefficients", "ReferenceBlackWhite"),
    *("MinSampleValue", "MaxSampleValue", "T4Options", "T6Options", "TransferFunction"),
    *("JPEGTables", "PageNumber", "InkSet", "WhitePoint", "PrimaryChromaticities", "HalftoneHints"),
    *("SMinSampleValue", "SMaxSampleValue", "Thresholding", "GrayResponseUnit", "ModelTransform"),
    *("GrayResponseCurve", "CleanFaxData", "ConsecutiveBadFaxLines", "BadFaxLines", "NumberofInks"),
    *("DotRange", "InkNames", "TargetPrinter", "PreviewImageStart", "JPEGProc", "XPosition"),
    *("JPEGQTables", "JPEGDCTables", "JPEGACTables", "JPEGRestartInterval", "OtherImageStart"),
    *(
        "OtherImageLength",
        "PreviewImageLength",
        "PreviewImage",
        "OtherImage",
        "JPEGLosslessPredictors",
    ),
    "JPEGPointTransforms",
)


@dataclass
class Trip:
    """One picture, before and after."""

    source: Path
    output: Path
    picture: Picture
    notes: tuple[str, ...]
    lost: list[str] = field(default_factory=list)

    @property
    def is_told(self) -> bool:
        """Whether any note says that something was left out or changed."""
        return bool(self.notes)


def main() -> None:
    """Parses the command line, makes the trips and prints the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--format", default="same", help="same, or one of png, jpg, webp, tiff")
    parser.add_argument("--list", action="store_true", help="name refusals and losses")
    options = parser.parse_args()
    PngImagePlugin.MAX_TEXT_CHUNK = 1 << 28  # of the files that are compared
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    with suppress(ImportError):
        import pillow_jxl  # noqa: F401  (registers itself)
    columns = ["folder", "files", "read", "refused", "tracebacks", "written"]
    columns += [*COUNTED, "silent losses"]
    print("| " + " | ".join(columns) + " |")
    print("|---|" + "---|" * (len(columns) - 1))
    for folder in options.folders:
        print(row(folder, options.format, is_listed=options.list), flush=True)


def row(folder: Path, format: str, *, is_listed: bool) -> str:
    """The line of the table on one folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    counts: Counter[str] = Counter()
    with TemporaryDirectory() as out:
        trips = []
        for number, path in enumerate(files):
            try:
                trips.append(travel(path, Path(out), number, format))
            except UnexpectedError as error:
                counts["tracebacks"] += 1
                print(f"TRACEBACK {error}\n{error.details}")
            except VdsrError as error:
                counts["refused" if isinstance(error, InputError) else "unwritten"] += 1
                if is_listed:
                    print(f"refused: {error}")
        befores = tags_of([trip.source for trip in trips])
        afters = tags_of([trip.output for trip in trips])
        kept = Counter[str]()
        for trip, before, after in zip(trips, befores, afters, strict=True):
            compare(trip, before, after, kept)
            if trip.lost and is_listed:
                told = "told" if trip.is_told else "SILENT"
                print(f"{told}: {trip.source}: {', '.join(trip.lost[:6])} {trip.notes}")
        silent = sum(bool(trip.lost) and not trip.is_told for trip in trips)
    read = len(trips) + counts["unwritten"]
    cells = [folder, len(files), read, counts["refused"], counts["tracebacks"], len(trips)]
    cells += [f"{kept[k]} of {kept['all ' + k]}" for k in COUNTED]
    cells.append(silent)
    return "| " + " | ".join(map(str, cells)) + " |"


def travel(path: Path, out: Path, number: int, format: str) -> Trip:
    """Reads the pictures of a file, enlarges them and writes them."""
    with open_pictures(path, max_pixels=4_000_000) as opened:
        series = opened if isinstance(opened, Series) else None
        picture = opened[0] if isinstance(opened, Series) else opened
        chosen = suffix_of(path, series, format)
        output = out / f"{number}{chosen}"
        if series is None:
            notes = picture.notes + canvas_of(picture).save(output)
        else:
            notes = series.notes + save_series(series, picture, output)
    return Trip(source=path, output=output, picture=picture, notes=notes)


def suffix_of(path: Path, series: Series | None, format: str) -> str:
    """The extension of an output; what holds several pictures keeps its own where it is written."""
    own = path.suffix.lower() if format == "same" else f".{format}"
    if series is not None and OUTPUT_SUFFIXES.get(own) != series.format:
        return f".{series.format or ('tiff' if series.plays is None else 'png')}"
    return own if own in OUTPUT_SUFFIXES else ".png"


def canvas_of(picture: Picture) -> Canvas:
    """The picture at twice its size."""
    height, width = 2 * picture.height, 2 * picture.width
    has_alpha = picture.alpha is not None
    canvas = Canvas(height, width, like=picture.metadata, has_alpha=has_alpha)
    alpha = None if picture.alpha is None else enlarged(picture.alpha)
    canvas.put_rows(0, enlarged(picture.rgb), alpha)
    return canvas


def save_series(series: Series, first: Picture, output: Path) -> tuple[str, ...]:
    """Writes all pictures of a file; returns the notes on it."""
    frames = [canvas_of(shape.stand_in(first)).frame for shape in series.shapes]
    format = OUTPUT_SUFFIXES[output.suffix]
    with open_series_file(
        output, series, frames, format=format, quality=95, identity=lambda: ""
    ) as file:
        for picture in series:
            canvas = canvas_of(picture)
            file.put(canvas.levels(), canvas.frame)
    return file.notes


def enlarged(values: Any) -> Any:
    """(1, c, h, w) -> (c, 2h, 2w)."""
    return F.interpolate(values, scale_factor=2, mode="bicubic")[0].clamp(0, 1)


def tags_of(paths: list[Path]) -> list[dict[str, Any]]:
    """The tags that ExifTool reads of each file; nothing where it is not installed."""
    if which("exiftool") is None or not paths:
        return [{} for _ in paths]
    listed = "\n".join(map(str, paths))
    command = ["exiftool", "-j", "-a", "-G0:1", "-u", "-n", "-b", "-q", "-q", "-@", "-"]
    answer = subprocess.run(command, input=listed.encode(), capture_output=True, check=False)
    found = {entry["SourceFile"]: entry for entry in json.loads(answer.stdout or b"[]")}
    return [found.get(str(path), {}) for path in paths]


def compare(trip: Trip, before: dict[str, Any], after: dict[str, Any], kept: Counter[str]) -> None:
    """Counts what is kept, and notes what is not."""

    def count(what: str, is_kept: bool, name: str | None = None) -> None:
        kept[f"all {what}"] += 1
        kept[what] += is_kept
        if not is_kept:
            trip.lost.append(name or what)

    for tag, value in before.items():
        group, name = tag.partition(":")[0], tag.rpartition(":")[2]
        is_thumbnail = "IFD1" in tag or "Thumbnail" in name or "SubIFD" in tag
        if group in GROUPS and name not in CHANGED and not is_thumbnail:
            count("tags", after.get(tag) in (value, in_utf8(value)), tag)
    with Image.open(trip.output) as made:
        try:
            stored = Image.open(trip.source)
        except (OSError, ValueError, SyntaxError):
            return
        with stored:
            profile = stored.info.get("icc_profile")
            if isinstance(profile, bytes) and profile:
                count("profile", made.info.get("icc_profile") == profile)
            timing = timing_of(stored)
            if len(timing) > 1:
                count("timing", timing_of(made) == timing)
            texts = getattr(stored, "text", {})
            made.load()
            for key, text in texts.items():
                if not key.startswith(("Raw profile", "XML:com.adobe")):
                    count("text", getattr(made, "text", {}).get(key) == text, f"text {key}")
            orientation = before.get("EXIF:IFD0:Orientation", 1)
            sizes = (stored.size, stored.size[::-1])
            is_turned = orientation in (5, 6, 7, 8) and stored.format != "TIFF"
            if isinstance(orientation, int) and orientation > 1:
                width, height = sizes[is_turned]
                count("orientation", made.size == (2 * width, 2 * height))
            if trip.picture.metadata.bit_depth == 16:
                is_deep = made.mode.startswith("I;16") or depth_of(after) == 16
                count("depth", is_deep)


def in_utf8(value: Any) -> Any:
    """Text that is no UTF-8, which ExifTool gives as bytes, as one that writes it anew has it."""
    if isinstance(value, str) and value.startswith("base64:"):
        return b64decode(value.removeprefix("base64:")).decode("latin-1")
    return value


def timing_of(image: Image.Image) -> list[Any]:
    """How long each frame is shown, in milliseconds; 0 for a page."""
    durations = []
    with suppress(OSError, ValueError, SyntaxError):  # of a damaged file: those that are read
        for frame in range(getattr(image, "n_frames", 1)):
            image.seek(frame)
            image.load()
            if getattr(image, "tag_v2", {}).get(254, 0) & 1:
                continue  # an overview, no page
            if frame or not getattr(image, "default_image", False):  # which is no frame
                durations.append(image.info.get("duration") or 0)
    image.seek(0)
    return durations


def depth_of(tags: dict[str, Any]) -> int | None:
    """Bits a sample, by ExifTool."""
    value = (
        tags.get("PNG:BitDepth")
        or tags.get("PNG:PNG:BitDepth")
        or tags.get("EXIF:IFD0:BitsPerSample")
    )
    return int(str(value).split()[0]) if value else None


if __name__ == "__main__":
    main()
