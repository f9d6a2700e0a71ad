"""TIFF whose channels lie in planes of their own, with alpha or with 16 bits a sample.

Pillow reads such files wrongly, or not at all. A plane by itself is a grey picture, whose directory
has its share of the strips or tiles; so the file is read once for each, with such a directory
behind it.
"""

import struct
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any, BinaryIO, Final

import numpy as np
from PIL import ImageFile

from vdsr_cli.images.directories import (
    ByteOrder,
    Directory,
    Value,
    pack_directory,
    read_directory,
)
from vdsr_cli.images.samples import Samples, colour_channels, read_samples

_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA, _FORMAT = 258, 262, 277, 284, 338, 339
_PER_PLANE: Final = (273, 279, 324, 325)
"""Where the strips or tiles are, and how long."""
_PER_SAMPLE: Final = (_BITS, _FORMAT)
_COLOURS: Final = {0: 1, 1: 1, 2: 3}
"""Channels by photometric interpretation: white is zero, black is zero, RGB."""
_APART = 2
_SHORT: Final = 3
_LAYOUT: Final = frozenset({*range(254, 340), 512, 513, 514, 530, 531, 532, 347})


def has_planes(image: ImageFile.ImageFile) -> bool:
    """Whether an opened image is one of those that this module reads."""
    tags: Any = getattr(image, "tag_v2", {})
    return (
        tags.get(_PLANAR) == _APART
        and tags.get(_PHOTOMETRIC) in _COLOURS
        and (_EXTRA in tags or max(tags.get(_BITS, (8,))) > 8)
    )


def read_planes(
    image: ImageFile.ImageFile,
    stream: BinaryIO,
    open_file: Callable[[BinaryIO], ImageFile.ImageFile],
) -> Samples:
    """Decodes every plane of a file, upright.

    Args:
        image: the file, opened and not loaded.

    Raises:
        OSError, ValueError and others of Pillow's: the file is damaged.
    """
    tags: Any = getattr(image, "tag_v2", {})
    colours = _COLOURS[tags[_PHOTOMETRIC]]
    count = tags.get(_SAMPLES, 1)
    channels, is_premultiplied, notes = colour_channels(count, colours, tags.get(_EXTRA, ()))
    stream.seek(0)
    data = stream.read()
    order, directory = read_directory(BytesIO(data))
    planes = []
    for index in channels:
        # Alpha is never stored with white as zero.
        whites = tags[_PHOTOMETRIC] if index < colours else 1
        file = BytesIO(_alone(data, order, directory, index, count, min(whites, 1)))
        planes.append(read_samples(open_file(file), lambda file=file: open_file(file)))  # type: ignore[misc]
    levels = np.concatenate([plane.levels[:, :, :1] for plane in planes], axis=2)
    return replace(planes[0], levels=levels, is_premultiplied=is_premultiplied, notes=notes)


def _alone(
    data: bytes, order: ByteOrder, directory: Directory, index: int, count: int, whites: int
) -> bytes:
    """The file with a directory of one plane."""
    kept: Directory = {tag: value for tag, value in directory.items() if tag in _LAYOUT}
    for tag in (_EXTRA, _PLANAR):
        kept.pop(tag, None)
    for tag in (*_PER_SAMPLE, *_PER_PLANE):
        value = kept.get(tag)
        if isinstance(value, Value) and value.count >= count:
            share = value.count // count
            size = len(value.data) // value.count
            start = index * share * size
            kept[tag] = Value(value.kind, share, value.data[start : start + share * size])
    kept[_SAMPLES] = Value(_SHORT, 1, struct.pack(order + "H", 1))
    kept[_PHOTOMETRIC] = Value(_SHORT, 1, struct.pack(order + "H", whites))
    is_big = data[2:4] in (b"+\0", b"\0+")
    padded = data + bytes(-len(data) % 16)
    place = struct.pack(order + ("Q" if is_big else "I"), len(padded))
    at = 8 if is_big else 4
    body = pack_directory(order, kept, len(padded), is_big=is_big)
    return padded[:at] + place + padded[at + len(place) :] + body
