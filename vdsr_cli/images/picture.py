"""The records that a picture travels in."""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Facts that a picture carries beside its pixels, ready to be written into an output.

    Attributes:
        bit_depth: bits a sample; 16 also for 12-bit and floating-point sources.
        is_grey: whether the source has one colour channel.
        source_format: the format it was read from, as Pillow spells it in lower case, or None.
        icc_profile: the profile that the pixels are in, or None for sRGB.
        cicp: code points of ITU-T H.273 that say the same, for formats that take them.
        exif: an EXIF block from ``Exif\\0\\0`` on, upright, without thumbnail, or None.
        xmp: an XMP packet, upright, or None.
        dpi: horizontal and vertical resolution in pixels an inch, or None.
        photoshop: Photoshop's image resources with IPTC records, or None.
        comment: of a JPEG or GIF.
        png_chunks: type and body of a PNG's texts, and of its figures for HDR.
        size: width and height of the source in pixels, upright; None where it is not known.
        is_panorama: whether the source says that it goes all around: its left edge continues its
            right one.
    """

    bit_depth: Literal[8, 16] = 8
    is_grey: bool = False
    source_format: str | None = None
    icc_profile: bytes | None = field(default=None, repr=False)
    cicp: tuple[int, int, int, int] | None = None
    exif: bytes | None = field(default=None, repr=False)
    xmp: bytes | None = field(default=None, repr=False)
    dpi: tuple[float, float] | None = None
    photoshop: bytes | None = field(default=None, repr=False)
    comment: bytes | None = field(default=None, repr=False)
    png_chunks: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    size: tuple[int, int] | None = None
    is_panorama: bool = False

    def stripped(self) -> "Metadata":
        """No more than what the pixels need: depth, greyness, colours and edges."""
        return Metadata(
            bit_depth=self.bit_depth,
            is_grey=self.is_grey,
            source_format=self.source_format,
            icc_profile=self.icc_profile,
            cicp=self.cicp,
            is_panorama=self.is_panorama,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """A picture as the models take it.

    Attributes:
        rgb: (1, 3, h, w) float32 in [0, 1]; grey pictures three times the same channel;
            multiplied by alpha where there is one.
        alpha: (1, 1, h, w) float32 in [0, 1], or None when the picture is opaque.
        metadata: what is carried over to the output.
        notes: what was not read exactly as stored, one line each; for the user to see.
        jpeg_table: of a JPEG file, the 64 quantisation steps of its luma, row by row.
    """

    rgb: Tensor
    alpha: Tensor | None = None
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()
    jpeg_table: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        height, width = self.rgb.shape[-2:]
        if self.rgb.shape != (1, 3, height, width):
            raise ValueError(f"rgb must be (1, 3, h, w), not {tuple(self.rgb.shape)}")
        if self.alpha is not None and self.alpha.shape != (1, 1, height, width):
            raise ValueError(f"alpha must be (1, 1, {height}, {width})")

    @property
    def height(self) -> int:
        """Rows, in pixels."""
        return int(self.rgb.shape[-2])

    @property
    def width(self) -> int:
        """Columns, in pixels."""
        return int(self.rgb.shape[-1])
