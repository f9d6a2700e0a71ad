"""Metadata as it stands in a file: found, not yet cleaned."""

from dataclasses import dataclass, field
from typing import Any, Final

from vdsr_cli.images.colour import Primaries

NOT_SQUARE: Final = "its pixels are not square, which the output does not say"
"""The note on pixels whose shape is known and not carried over."""


@dataclass(slots=True, kw_only=True)
class Stored:
    """The blocks and figures of one file.

    Attributes:
        exif: an EXIF block, with or without ``Exif\\0\\0``.
        cicp: primaries, transfer function, matrix and range (ITU-T H.273).
        gamma, primaries: of a PNG's gAMA and cHRM.
        is_srgb: whether a PNG says that it is sRGB.
        dpi: pixels an inch, not yet looked at.
        photoshop: Photoshop's image resources, IPTC among them.
        png_chunks: type and body of text chunks, and of others that a PNG keeps.
        notes: what was not read, one line each.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    icc_profile: bytes | None = None
    cicp: tuple[int, int, int, int] | None = None
    gamma: float | None = None
    primaries: Primaries | None = None
    is_srgb: bool = False
    dpi: Any = None
    photoshop: bytes | None = None
    comment: bytes | None = None
    png_chunks: list[tuple[bytes, bytes]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
