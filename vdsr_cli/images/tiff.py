"""TIFF of 8 and 16 bits a sample, compressed without loss (TIFF 6.0; Adobe's Deflate).

Pillow writes 16 bits for grey alone, and a full disk without its reason.

    levels -> strips of whole rows -> differences to the left neighbour -> zlib
    header | directory (tags, EXIF) | strips
"""

import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from vdsr_cli.errors import OutputError
from vdsr_cli.images.picture import Metadata

_HEADER: Final = b"II*\0\x08\0\0\0"
_STRIP_BYTES: Final = 1 << 20
_COMPRESSION_LEVEL: Final = 4
_OFFSETS: Final = 273
_COUNTS: Final = 279
_XMP: Final = 700
_ICC: Final = 34675
_LONG, _BYTE, _UNDEFINED = 4, 1, 7
_LONGEST_FILE_BYTES: Final = 2**32 - 2**20


def write_tiff(stream: BinaryIO, levels: NDArray[Any], metadata: Metadata) -> None:
    """Write a little-endian TIFF; the stream need not seek.

    Args:
        stream: open for writing.
        levels: (H, W, c) uint8 or uint16, not premultiplied; c = 1 grey, 2 with alpha, 3 RGB,
            4 with alpha.
        metadata: its ICC profile, EXIF, XMP and resolution are written.

    Raises:
        OutputError: more than the 4 GiB that a TIFF holds.
    """
    row_bytes = levels[0].nbytes
    rows = min(levels.shape[0], max(1, _STRIP_BYTES // row_bytes))
    strips = list(_strips(levels, rows))
    if sum(map(len, strips)) > _LONGEST_FILE_BYTES:
        raise OutputError("the picture is too large for a TIFF file", hint="--format png")
    directory = _directory(levels, metadata)
    directory[278] = rows
    directory.tagtype[_OFFSETS] = directory.tagtype[_COUNTS] = _LONG
    sizes = [len(strip) for strip in strips]
    # Pillow adds where the strips begin, right behind the directory, when it packs the tags.
    directory[_OFFSETS] = tuple(np.cumsum([0, *sizes[:-1]]).tolist())
    directory[_COUNTS] = tuple(sizes)
    stream.write(_HEADER + directory.tobytes(len(_HEADER)))
    stream.writelines(strips)


def _strips(levels: NDArray[Any], rows: int) -> Iterator[bytes]:
    for top in range(0, levels.shape[0], rows):
        strip = levels[top : top + rows]
        differences = strip.copy()
        differences[:, 1:] -= strip[:, :-1]
        little = differences.astype(differences.dtype.newbyteorder("<"), copy=False)
        yield zlib.compress(little.tobytes(), _COMPRESSION_LEVEL)


def _directory(levels: NDArray[Any], metadata: Metadata) -> ImageFileDirectory_v2:
    """The tags of the picture, without where its strips lie."""
    height, width, channels = levels.shape
    directory = ImageFileDirectory_v2(_HEADER)
    if metadata.exif is not None:
        _add_exif(directory, metadata.exif)
    directory[256], directory[257] = width, height
    directory[258] = (8 * levels.itemsize,) * channels
    directory[259] = 8  # Deflate
    directory[262] = 1 if channels < 3 else 2  # black is zero, RGB
    directory[277] = channels
    directory[284] = 1  # interleaved
    directory[317] = 2  # horizontal differences
    if channels in (2, 4):
        directory[338] = 2  # alpha that is not premultiplied
    if metadata.dpi is not None:
        directory[282], directory[283], directory[296] = *metadata.dpi, 2
    if metadata.xmp is not None:
        directory.tagtype[_XMP] = _BYTE
        directory[_XMP] = metadata.xmp
    if metadata.icc_profile is not None:
        directory.tagtype[_ICC] = _UNDEFINED
        directory[_ICC] = metadata.icc_profile
    return directory


def _add_exif(directory: ImageFileDirectory_v2, exif: bytes) -> None:
    block = Image.Exif()
    block.load(exif)
    for tag in list(block):
        is_nested = tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
        directory[tag] = block.get_ifd(tag) if is_nested else block[tag]
    details = block.get_ifd(ExifTags.IFD.Exif)
    if ExifTags.IFD.Interop in details:
        details[ExifTags.IFD.Interop] = block.get_ifd(ExifTags.IFD.Interop)
