"""Pictures in and out: the sole owner of Pillow, uint8 and uint16, alpha, EXIF, ICC and saving.

    file --read_picture--> Picture: rgb (1, 3, h, w) float32 in [0, 1], alpha, Metadata
                                              |  the models' work
    file <--Canvas.save--- Canvas:  levels (H, W, C) uint8 or uint16 <--put_rows-- rgb rows
    file <--segments------ PictureFile:  no more than some rows      <--put_rows-- rgb rows

Between the two, colours are premultiplied by alpha, so that nothing invisible leaks into what is
visible when pictures are resized. Values stay in the picture's own colour space: its ICC profile
is carried over, not applied (CMYK and LAB, which no output holds, become sRGB).

    picture.py    the records: Picture and Metadata
    decode.py     what a file is, whether it may be read, and reading it
    libtiff.py    what it complains of, as notes
    convert.py    arrays and Pillow's images -> Picture
    samples.py    every pixel mode of Pillow -> one array of levels, at full depth
    metadata.py   EXIF, XMP, ICC, IPTC, text and resolution: found, cleaned, fitted to the output
    stored.py     what a file says beside its pixels, as it stands there
    exif.py       EXIF blocks, edited in place; directories.py has them as trees
    xmp.py        XMP packets, edited in place
    resources.py  Photoshop's resources, in which IPTC is
    colour.py     colours by code points or chromaticities -> an ICC profile
    bitfields.py  BMP whose colours are any bits
    planes.py     TIFF whose channels lie apart
    png_chunks.py the chunks of a PNG that Pillow does not see
    output_spec.py  size and integers of an output picture
    levels.py     from [0, 1] to whole levels, in cells whose errors cancel
    canvas.py     the output picture, filled row by row
    picture_file.py  the output picture, written while its rows arrive
    encode.py     levels -> a file of each format
    segments.py   what PNG and TIFF have in common: segments that are encoded by themselves
    png.py        PNG, faster than Pillow's and with 16 bits a colour
    tiff.py       TIFF, with 16 bits a colour, which Pillow's lacks
    gif.py        GIF, in one palette, dithered in place
    apng.py       animated PNG
    animated_webp.py  WebP of several frames
    series.py     the pictures of a file of several, read one at a time
    series_file.py  such a file, written while its pictures arrive
    frames.py     what the coders of all formats for that have in common
    extras.py     what the formats of other packages have in common
    heif.py       HEIC and HEIF, by the extra heif
    jpeg_xl.py    JPEG XL, by the extra jxl
    rare_tiff.py  TIFF that Pillow does not read, by the extra tiff
    atomic.py     files that appear whole or not at all
    resumable.py  files that take long, which a later run goes on with
"""

from vdsr_cli.images.atomic import atomic_write, writing_to
from vdsr_cli.images.canvas import Canvas
from vdsr_cli.images.convert import PictureInMemory, to_picture
from vdsr_cli.images.decode import read_picture
from vdsr_cli.images.encode import (
    encode_levels,
    is_segmented,
    refuse_impossible,
    refuse_several,
    save_levels,
)
from vdsr_cli.images.levels import round_levels
from vdsr_cli.images.output_spec import Frame
from vdsr_cli.images.picture import Metadata, Picture
from vdsr_cli.images.picture_file import PictureFile, open_picture_file
from vdsr_cli.images.series import ReadOptions, Series, open_pictures
from vdsr_cli.images.series_file import SeriesFile, open_series_file

__all__ = [
    "Canvas",
    "Frame",
    "Metadata",
    "Picture",
    "PictureFile",
    "PictureInMemory",
    "ReadOptions",
    "Series",
    "SeriesFile",
    "atomic_write",
    "encode_levels",
    "is_segmented",
    "open_picture_file",
    "open_pictures",
    "open_series_file",
    "read_picture",
    "refuse_impossible",
    "refuse_several",
    "round_levels",
    "save_levels",
    "to_picture",
    "writing_to",
]
