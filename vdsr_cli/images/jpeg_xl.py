"""JPEG XL (ISO/IEC 18181) by pillow-jxl-plugin.

The plugin decodes a file before it tells its size, colours to 8 bits, and the first frame of
several without a word; so what it is about is read from the head first.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vdsr_cli.errors import InputError
from vdsr_cli.images.extras import Decoded, bare_image, check_size
from vdsr_cli.images.picture import Metadata
from vdsr_cli.images.samples import Samples, read_samples, unit_samples

_CODESTREAM: Final = b"\xff\x0a"
_RATIOS: Final = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_MODES: Final = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_CHANNELS: Final = {"LA": 2, "RGB": 3, "RGBA": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class JxlHeader:
    """The header of a codestream.

    Attributes:
        width, height: pixels, as stored.
        bits: bits a sample; 16 and more may be floating point.
    """

    width: int
    height: int
    bits: int
    is_animated: bool


def read_jxl(stream: BinaryIO, max_pixels: int) -> Decoded:
    """Decodes the first frame of a file.

    Raises:
        InputError: it is too large, its head is damaged, or its floating-point samples are more
            than white.
        RuntimeError, ValueError and others of the decoder's: the file is damaged.
    """
    from pillow_jxl import Decoder

    data = stream.read()
    header = read_header(data)
    check_size(header.width, header.height, max_pixels)
    is_jpeg, info, pixels, icc, boxes = Decoder(num_threads=1)(data)
    if is_jpeg:
        jpeg = Image.open(BytesIO(pixels), formats=("JPEG",))
        samples = read_samples(jpeg, lambda: jpeg)
        jpeg.format = "JPEG XL"  # as the stream is
        return Decoded(image=jpeg, samples=samples)
    samples = _samples(pixels, info)
    notes = []
    if header.is_animated:
        notes.append("it is animated: the first frame was read")
    if samples.full == 255 and header.bits > 8:
        notes.append("JPEG XL colours of more than 8 bits were read at 8 bits")
    blocks = {box.box_type: bytes(box.data) for box in boxes}
    image = bare_image(
        "JPEG XL", exif=_exif(blocks), xmp=blocks.get(b"xml "), icc_profile=icc or None
    )
    return Decoded(image=image, samples=samples, is_upright=True, notes=tuple(notes))


def write_jxl(
    stream: BinaryIO, levels: NDArray[np.uint8], metadata: Metadata, quality: int
) -> None:
    """Encodes levels (H, W, c) as sRGB or grey of 8 bits; quality 100 is without loss.

    Raises:
        RuntimeError, ValueError: the encoder fails.
    """
    import pillow_jxl

    height, width, channels = levels.shape
    make: Any = pillow_jxl.Encoder  # its stub lacks arguments
    encoder = make(mode=_MODES[channels], lossless=quality == 100, quality=quality, num_threads=1)
    exif = None if metadata.exif is None else metadata.exif.removeprefix(b"Exif\0\0")
    blocks = {"exif": exif, "jumb": None, "xmp": metadata.xmp, "compress": False}
    stream.write(encoder(levels.tobytes(), width, height, jpeg_encode=False, **blocks))


def read_header(data: bytes) -> JxlHeader:
    """The sizes at the head of a file (ISO/IEC 18181-1, annex D).

    Raises:
        InputError: there is none.
    """
    bits = _Bits(_codestream(data))
    height, width = bits.size()
    is_animated, depth = False, 8
    if not bits.take(1):  # all as usual: 8 bits, one frame
        if bits.take(1):
            bits.take(3)  # orientation
            if bits.take(1):
                bits.size()
            if bits.take(1):
                bits.preview()
            is_animated = bool(bits.take(1))
            if is_animated:
                bits.animation()
        is_float = bits.take(1)
        depth = (
            bits.choice((32, 0), (16, 0), (24, 0), (1, 6))
            if is_float
            else bits.choice((8, 0), (10, 0), (12, 0), (1, 6))
        )
    return JxlHeader(width=width, height=height, bits=depth, is_animated=is_animated)


def _codestream(data: bytes) -> bytes:
    """The start of the codestream, which lies bare or in a container's boxes (18181-2)."""
    if data.startswith(_CODESTREAM):
        return data[2:]
    at = 0
    while at + 16 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1:
            (size,), start = struct.unpack_from(">Q", data, start), at + 16
        if kind in (b"jxlc", b"jxlp"):
            start += 4 * (kind == b"jxlp")
            return data[start + 2 : start + 64]
        if size < 8:
            break
        at += size
    raise InputError("the JPEG XL file is damaged: it holds no picture")


class _Bits:
    """A codestream's fields, least significant bit first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data[:64], "little")

    def take(self, count: int) -> int:
        """The next bits as a number."""
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        return value

    def choice(self, *ways: tuple[int, int]) -> int:
        """A number that two bits give the way of: what is added to so many bits."""
        least, count = ways[self.take(2)]
        return least + self.take(count)

    def size(self) -> tuple[int, int]:
        """SizeHeader: height and width."""
        is_small = self.take(1)

        def side() -> int:
            if is_small:
                return 8 * (1 + self.take(5))
            return self.choice((1, 9), (1, 13), (1, 18), (1, 30))

        return self._sides(side)

    def preview(self) -> tuple[int, int]:
        """PreviewHeader: height and width."""
        is_small = self.take(1)

        def side() -> int:
            if is_small:
                return 8 * self.choice((16, 0), (32, 0), (1, 5), (33, 9))
            return self.choice((1, 6), (65, 8), (321, 10), (1345, 12))

        return self._sides(side)

    def animation(self) -> None:
        """AnimationHeader, which nothing here asks for."""
        self.choice((100, 0), (1000, 0), (1, 10), (1, 30))
        self.choice((1, 0), (1001, 0), (1, 8), (1, 10))
        self.choice((0, 0), (0, 3), (0, 16), (0, 32))
        self.take(1)

    def _sides(self, side: Callable[[], int]) -> tuple[int, int]:
        height = side()
        ratio = self.take(3)
        if ratio == 0:
            return height, side()
        across, down = _RATIOS[ratio - 1]
        return height, height * across // down


def _samples(pixels: bytes, info: Any) -> Samples:
    channels = _CHANNELS.get(info.mode, 1)
    sample_bytes = len(pixels) // (info.width * info.height * channels)
    dtype = f"f{sample_bytes}" if info.mode.startswith("F") else f"u{sample_bytes}"
    levels = np.frombuffer(pixels, dtype).reshape(info.height, info.width, channels)
    if levels.dtype.kind == "f":
        return unit_samples(levels.astype(np.float32))
    return Samples(levels=levels, full=int(np.iinfo(levels.dtype).max))


def _exif(blocks: dict[bytes, bytes]) -> bytes | None:
    """The EXIF block from its TIFF header on, which four bytes of an offset may stand before."""
    block = blocks.get(b"Exif")
    if block is None or block[:2] in (b"II", b"MM"):
        return block
    return block[4:]
