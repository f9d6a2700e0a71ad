"""Video by the extra ``video`` (PyAV): frames in, frames out, all else copied.

file ─► Video: frames, rgb (1, 3, h, w), one at a time
levels of Y, Cb, Cr ─► segments of some frames, each encoded by itself ─► draft
draft, and sound and subtitles of the input as they are ─► file
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from heapq import merge
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from vdsr_cli.errors import InputError, OutputError
from vdsr_cli.files import atomic_path
from vdsr_cli.images.atomic import writing_to
from vdsr_cli.images.extras import check_size, install_hint
from vdsr_cli.images.picture import Metadata, Picture
from vdsr_cli.images.resumable import DISCARDED, Draft, open_draft
from vdsr_cli.images.yuv import BT601, BT709, UNSPECIFIED, YuvCoding, is_known

SEGMENT_FRAMES: Final = 32
"""Frames that are encoded together: with sound and picture apart, what a resumed run repeats."""
_ALONE: Final = {"protocol_whitelist": "file", "format_whitelist": "mov,matroska,avi"}
"""FFmpeg's options: of a file of these kinds nothing else is opened."""
_MUXERS: Final = {"mp4": "mp4", "mov": "mov", "mkv": "matroska", "webm": "webm"}
_PACKET: Final = struct.Struct("<qqq?I")
_OF_THE_FILE: Final = ("major_brand", "minor_version", "compatible_brands", "encoder")
_LANGUAGE: Final = "language"
_TAGS: Final = {
    _LANGUAGE: _LANGUAGE,
    "title": "title",
    "name": "title",
    "handler_name": "handler_name",
}
"""A stream's language and titles, Matroska's and MP4's, by the names that FFmpeg writes."""
_HD_LINES: Final = 720
_HDR: Final = ("MASTERING", "LIGHT", "DOVI", "DYNAMIC_HDR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """How a video is encoded.

    Attributes:
        is_grey: whether it has no chroma.
        primaries, transfer: codes of H.273.
        time_base: seconds in a unit of time.
        rate: frames a second, on average.
        aspect: width over height of a pixel.
        rotation: degrees that players turn it, anticlockwise.
    """

    yuv: YuvCoding
    primaries: int
    transfer: int
    time_base: Fraction
    rate: Fraction
    aspect: Fraction | None
    rotation: int
    is_grey: bool = False


class VideoFrame:
    """A decoded frame: when it is shown, and its colours once they are asked for."""

    def __init__(self, frame: Any, pts: int, coding: Coding) -> None:
        self.pts, self.duration = pts, frame.duration or 0
        self._frame, self._coding = frame, coding

    def picture(self) -> Picture:
        """Its colours, in the video's own space."""
        if self._frame.format.is_rgb:
            is_deep = self._coding.yuv.bits > 8
            levels = self._frame.to_ndarray(format="rgb48le" if is_deep else "rgb24")
            rgb = torch.from_numpy(levels.astype(np.float32)).permute(2, 0, 1)
            rgb = rgb / (65535 if is_deep else 255)
        else:
            planes = _planes(self._frame, self._coding)
            rgb = self._coding.yuv.rgb_of(planes)
        metadata = Metadata(bit_depth=8 if self._coding.yuv.bits == 8 else 16)
        return Picture(rgb=rgb[None].contiguous(), metadata=metadata)


class Video:
    """A video that is open for reading.

    Attributes:
        frames: how many there are, by its packets.
        notes: what is left out or guessed, one line each.
    """

    def __init__(self, path: Path, container: Any, max_pixels: int) -> None:
        self.path = path
        stream = container.streams.best("video")
        if stream is None:
            raise InputError("it holds no video")
        if stream.codec_context is None:
            raise InputError("its codec is not known")
        stream.thread_type = "AUTO"
        check_size(stream.codec_context.width, stream.codec_context.height, max_pixels)
        self.frames = _count(path)
        frame = next(container.decode(stream), None)
        if frame is None:
            raise InputError("it holds no frame that can be decoded")
        notes: list[str] = []
        self.coding = _coding_of(stream, frame, notes)
        self.first = VideoFrame(frame, 0, self.coding).picture()
        others = [s for s in container.streams if not _is_copied(s)]
        if len(others) > 1:
            notes.append(f"{len(others) - 1} further streams were left out")
        self.notes = tuple(notes)

    def digest(self) -> str:
        """The SHA-256 of the file, in hexadecimal."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def read(self) -> Iterator[VideoFrame]:
        """The frames from the first on, in the order in which they are shown.

        Raises:
            InputError: the file is damaged, or its frames change in size.
        """
        import av

        with _opened(self.path) as container:
            stream = container.streams.best("video")
            stream.thread_type = "AUTO"
            last: int | None = None
            try:
                for index, frame in enumerate(container.decode(stream)):
                    if (frame.height, frame.width) != self.first.rgb.shape[-2:]:
                        raise InputError(f"{self.path}: its frames change in size")
                    step = round(1 / (self.coding.rate * self.coding.time_base))
                    pts = index * step if frame.pts is None else frame.pts
                    last = pts if last is None else max(pts, last + 1)
                    yield VideoFrame(frame, last, self.coding)
            except av.error.FFmpegError as error:
                raise InputError(f"{self.path}: the video is damaged: {error.strerror}") from error


def _opened(path: Path) -> Any:
    """The file itself, open for reading, whatever it is called and says: FFmpeg takes the name
    ``http:x.mp4`` for an address, and playlists lead to other files. Tags that are no text are read
    as far as they are."""
    import av

    return av.open(os.path.abspath(path), options=_ALONE, metadata_errors="replace")


def _count(path: Path) -> int:
    """The packets of the video. The file is opened for it alone: a palette comes with the first
    packet, and not again after a seek."""
    with _opened(path) as container:
        stream = container.streams.best("video")
        return sum(packet.size > 0 for packet in container.demux(stream))


@contextmanager
def open_video(path: Path, max_pixels: int) -> Iterator[Video]:
    """Opens a video for reading.

    Raises:
        InputError: it cannot be read, or the extra is missing.
    """
    if find_spec("av") is None:
        raise InputError(f"{path}: videos are read by an extra", hint=install_hint("video"))
    import av

    try:
        with _opened(path) as container:
            video = Video(path, container, max_pixels)
    except InputError as error:
        raise InputError(f"{path}: {error}", hint=error.hint) from error
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: cannot be read as video: {error.strerror}") from error
    yield video


def _is_grey(form: Any) -> bool:
    return str(form.name).startswith("gray")


def _becomes_rgb(form: Any) -> bool:
    """RGB, and what is made that first: palettes, one bit a pixel, grey beside alpha."""
    return bool(form.is_rgb) or (len(form.components) < 3 and not _is_grey(form))


def _coding_of(stream: Any, frame: Any, notes: list[str]) -> Coding:
    form, matrix = frame.format, int(frame.colorspace)
    is_grey, is_rgb = _is_grey(form), _becomes_rgb(form)
    if matrix == UNSPECIFIED or is_rgb:
        matrix = BT709 if is_rgb or frame.height >= _HD_LINES else BT601
        name = "BT.709" if matrix == BT709 else "BT.601"
        notes.append(f"its colour matrix is not told, or RGB: {name} is taken, and told")
    if not is_known(matrix):
        raise InputError(f"its colour matrix (code {matrix}) cannot be converted")
    # WebM's alpha is a second stream in the first, which the decoder does not look at.
    has_second = any(k.lower() == "alpha_mode" and v == "1" for k, v in stream.metadata.items())
    if has_second or any(getattr(c, "is_alpha", False) for c in form.components):
        notes.append("its transparency was left out")
    if frame.interlaced_frame:
        notes.append("it is interlaced: deinterlace it first")
    if any(word in str(side.type) for side in frame.side_data for word in _HDR):
        notes.append("its mastering display, light levels and dynamic HDR metadata were left out")
    luma, *chroma = form.components
    across = down = 1
    if chroma and not is_rgb:
        across = round(frame.width / chroma[0].width)
        down = round(frame.height / chroma[0].height)
    told = int(frame.color_range)
    is_full = told == 2 or form.name.startswith("yuvj") or (is_grey and told == 0)
    yuv = YuvCoding(
        matrix=matrix,
        is_full=is_full and not is_rgb,
        bits=8 if luma.bits <= 8 else 10 if luma.bits <= 10 or is_rgb else 12,
        down=2 if down == 2 else 1,
        across=2 if across == 2 or down == 2 else 1,
    )
    return Coding(
        yuv=yuv,
        is_grey=is_grey,
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        time_base=stream.time_base,
        rate=stream.average_rate or stream.guessed_rate or Fraction(25),
        aspect=stream.sample_aspect_ratio or None,
        rotation=int(frame.rotation),
    )


def _pixel_format(yuv: YuvCoding) -> str:
    share = {(1, 1): "444", (1, 2): "422", (2, 2): "420"}[yuv.down, yuv.across]
    return f"yuv{share}p" + ("" if yuv.bits == 8 else f"{yuv.bits}le")


def _grey_format(yuv: YuvCoding) -> str:
    return "gray" if yuv.bits == 8 else f"gray{yuv.bits}le"


def _planes(frame: Any, coding: Coding) -> list[NDArray[Any]]:
    """The levels of luma and chroma; interleaved layouts are laid out anew, unconverted."""
    name = _grey_format(coding.yuv) if coding.is_grey else _pixel_format(coding.yuv)
    if frame.format.name not in (name, name.replace("yuv", "yuvj")):
        if not _becomes_rgb(frame.format):
            frame = frame.reformat(format=name)
        else:
            rgb = frame if frame.format.is_rgb else frame.reformat(format="rgb24")
            # By the matrix that is taken for RGB.
            frame = rgb.reformat(format=name, dst_colorspace="ITU709")
    dtype = np.dtype(np.uint8 if coding.yuv.bits == 8 else "<u2")
    parts = frame.planes[:1] if coding.is_grey else frame.planes[:3]
    return [
        np.frombuffer(p, dtype).reshape(p.height, p.line_size // dtype.itemsize)[:, : p.width]
        for p in parts
    ]


class VideoFile:
    """A video on its way into a file; :func:`open_video_file` makes it.

    Attributes:
        done: frames that are encoded, by an earlier run too.
    """

    def __init__(self, draft: Draft, encoder: "_Encoder", notes: tuple[str, ...]) -> None:
        self._draft, self._encoder, self.notes = draft, encoder, notes
        self._start = draft.file.tell()
        self.done = 0
        if draft.is_discarded:
            self.notes += (DISCARDED,)
        if draft.state is not None:
            self.done, self._start = draft.state["frames"], draft.state["start"]
            self.notes += (f"continued an earlier run from frame {self.done + 1}",)
        self._held = 0

    def put(self, rgb: torch.Tensor, frame: VideoFrame) -> None:
        """Takes the next frame: (3, H, W) in [0, 1].

        Raises:
            OSError: the disk fails.
        """
        self._encoder.put(rgb, frame)
        self._held += 1
        if self._held == SEGMENT_FRAMES:
            self.end_segment()

    def end_segment(self) -> None:
        """Writes what has been taken since the last one."""
        self._draft.append(self._encoder.finished())
        self.done, self._held = self.done + self._held, 0
        self._draft.checkpoint(lambda: {"frames": self.done, "start": self._start})

    def packets(self) -> Iterator[tuple[int, int, int, bool, bytes]]:
        """pts, dts, duration, whether it is a key frame, and the bytes of each encoded frame."""
        file = self._draft.file
        file.seek(self._start)
        while header := file.read(_PACKET.size):
            *facts, size = _PACKET.unpack(header)
            yield (*facts, file.read(size))


class _Encoder:
    """Encodes segments, each from a key frame on and by itself."""

    def __init__(self, coding: Coding, size: tuple[int, int], format: str, quality: int) -> None:
        self.coding, self.size = coding, size
        self.codec, self.options = _codec_options(format, quality)
        self._context: Any = None
        self._packets: list[Any] = []
        self._durations: dict[int, int] = {}

    def settle(self, context: Any) -> None:
        """Gives a codec's context what it is to encode."""
        coding = self.coding
        context.height, context.width = self.size
        context.pix_fmt = _pixel_format(coding.yuv)
        context.time_base = coding.time_base
        context.framerate = coding.rate
        context.options = self.options
        context.colorspace = coding.yuv.matrix
        context.color_range = 2 if coding.yuv.is_full else 1
        context.color_primaries, context.color_trc = coding.primaries, coding.transfer
        context.max_b_frames = 0  # so that segments follow each other in time
        if coding.aspect is not None:
            context.sample_aspect_ratio = coding.aspect

    def put(self, rgb: torch.Tensor, frame: VideoFrame) -> None:
        import av

        if self._context is None:
            self._context = av.CodecContext.create(self.codec, "w")
            self.settle(self._context)
            self._context.flags |= av.codec.context.Flags.global_header
        planes = self.coding.yuv.planes_of(rgb)
        made = av.VideoFrame(self.size[1], self.size[0], _pixel_format(self.coding.yuv))
        for plane, levels in zip(made.planes, planes, strict=True):
            row = plane.line_size // levels.itemsize
            padded = np.zeros((plane.height, row), levels.dtype)
            padded[:, : plane.width] = levels
            plane.update(padded)
        made.pts, made.time_base = frame.pts, self.coding.time_base
        made.color_range = 2 if self.coding.yuv.is_full else 1
        self._durations[frame.pts] = frame.duration
        self._packets += self._context.encode(made)

    def finished(self) -> bytes:
        """The packets of the segment."""
        if self._context is None:
            return b""
        self._packets += self._context.encode(None)
        parts = []
        for packet in self._packets:
            data, pts = bytes(packet), packet.pts
            dts = pts if packet.dts is None else packet.dts
            facts = (pts, dts, self._durations.get(pts, 0), packet.is_keyframe, len(data))
            parts += [_PACKET.pack(*facts), data]
        self._context, self._packets, self._durations = None, [], {}
        return b"".join(parts)


def _codec_options(format: str, quality: int) -> tuple[str, dict[str, str]]:
    """The encoder of a format and its options; 100 is lossless but for the colours' own steps."""
    factor = str(min(51, 12 + round(0.6 * (100 - quality))))
    if format == "webm":
        told = {"lossless": "1"} if quality == 100 else {"crf": factor, "b": "0"}
        return "libvpx-vp9", told | {"lag-in-frames": "0"}
    told = {"qp": "0"} if quality == 100 else {"crf": factor}
    return "libx264", told | {"preset": "medium", "rc-lookahead": "10"}


@contextmanager
def open_video_file(
    output: Path,
    video: Video,
    size: tuple[int, int],
    *,
    format: str,
    quality: int,
    is_deep: bool,
    identity: Callable[[], str],
    replaces: bool,
    keeps_tags: bool = True,
) -> Iterator[VideoFile]:
    """Opens a file for the enlarged frames of a video.

    It takes its name at the end of the block, with the sound and subtitles of the input, whole;
    where that ends early, a later run of the same identity goes on behind the last segment.

    Args:
        size: height and width of the frames.
        format: one of mp4, mov, mkv and webm.
        is_deep: whether it is written with 10 bits a sample.
        identity: gives a hash of all that the frames depend on.
        keeps_tags: whether titles and the like are kept.

    Raises:
        OutputError: the file cannot be written, or its format does not hold the sound.
    """
    import av

    is_reduced = is_deep and format == "webm"
    notes = ("WebM is written with 8 bits a sample",) if is_reduced else ()
    yuv = replace(video.coding.yuv, bits=10 if is_deep and not is_reduced else 8)
    if video.coding.is_grey:
        yuv = replace(yuv, down=2, across=2)
    coding = replace(video.coding, yuv=yuv)
    encoder = _Encoder(coding, size, format, quality)
    _refuse_container(video, output, encoder, format)
    with (
        writing_to(str(output)),
        open_draft(output, identity, replace=replaces) as draft,
    ):
        file = VideoFile(draft, encoder, notes)
        yield file
        file.end_segment()
        try:
            with atomic_path(output, replace=replaces) as temporary:
                _mux(temporary, video, file, encoder, format, keeps_tags=keeps_tags)
        except av.error.FFmpegError as error:
            raise OutputError(f"{output}: cannot be written: {error.strerror}") from error
        draft.discard()


def _mux(
    path: Path, video: Video, file: VideoFile, encoder: _Encoder, format: str, *, keeps_tags: bool
) -> None:
    """Brings the encoded frames together with all that is copied."""
    import av

    options = {"movflags": "faststart"} if format in ("mp4", "mov") else {}
    with (
        _opened(video.path) as source,
        av.open(str(path), "w", format=_MUXERS[format], options=options) as made,
    ):
        stream = _stream_of(encoder, made)
        _name_as(source.streams.best("video"), stream, keeps_tags=keeps_tags)
        copied = _copied(source, made, path)
        for index, other in copied.items():
            _name_as(source.streams[index], other, keeps_tags=keeps_tags)
        if keeps_tags:
            tags = source.metadata.items()
            made.metadata.update({k: v for k, v in tags if k.lower() not in _OF_THE_FILE})
            made.set_chapters(source.chapters())
        made.start_encoding()

        def of_video() -> Iterator[tuple[float, int, Any]]:
            for pts, dts, duration, is_key, data in file.packets():
                packet = av.Packet(data)
                packet.pts, packet.dts, packet.duration = pts, dts, duration
                packet.time_base, packet.is_keyframe = encoder.coding.time_base, is_key
                packet.stream = stream
                yield float(pts * encoder.coding.time_base), 0, packet

        def of_others() -> Iterator[tuple[float, int, Any]]:
            if not copied:
                return
            for packet in source.demux([source.streams[index] for index in copied]):
                if packet.size == 0 or packet.dts is None:
                    continue
                at = float(packet.dts * packet.time_base)
                packet.stream = copied[packet.stream_index]
                yield at, 1, packet

        for _, _, packet in merge(of_video(), of_others(), key=lambda each: each[:2]):
            made.mux_one(packet)


def _stream_of(encoder: "_Encoder", made: Any) -> Any:
    """The stream of the frames."""
    stream = made.add_stream(encoder.codec, rate=encoder.coding.rate, options=encoder.options)
    encoder.settle(stream.codec_context)
    stream.time_base = encoder.coding.time_base
    if encoder.coding.rotation:
        stream.set_display_rotation(encoder.coding.rotation)
    return stream


def _is_copied(stream: Any) -> bool:
    """Whether it is sound or subtitles, of a kind that FFmpeg knows."""
    return stream.type in ("audio", "subtitle") and stream.codec_context is not None


def _copied(source: Any, made: Any, path: Path) -> dict[int, Any]:
    """Streams for the sound and subtitles of the input, by their places there.

    Raises:
        OutputError: the format does not hold them.
    """
    copied = {}
    for other in source.streams:
        if _is_copied(other):
            try:
                copied[other.index] = made.add_stream_from_template(other)
            except ValueError as error:
                name = other.codec_context.name
                reason = f"{path.suffix} files do not hold the {name} of the input"
                raise OutputError(reason, hint="try -o with .mkv") from error
    return copied


def _name_as(source: Any, made: Any, *, keeps_tags: bool) -> None:
    """Has a stream be chosen as its source is: by language, by default or by force, by title."""
    made.disposition = source.disposition
    for key, value in source.metadata.items():
        name = _TAGS.get(key.lower())
        if name is not None and (keeps_tags or name == _LANGUAGE):
            made.metadata[name] = value


def _refuse_container(video: Video, output: Path, encoder: "_Encoder", format: str) -> None:
    """Raises OutputError where the format does not hold what is to be copied, or the encoder makes
    no frames so large."""
    import av

    try:
        with (
            _opened(video.path) as source,
            av.open(BytesIO(), "w", format=_MUXERS[format]) as made,
        ):
            _stream_of(encoder, made)
            _copied(source, made, output)
            made.start_encoding()
    except av.error.FFmpegError as error:
        height, width = encoder.size
        raise OutputError(
            f"{output}: {format} with frames of {width}x{height} and the sound of the input cannot"
            f" be written: {error.strerror}",
            hint="try -o with .mkv, or a smaller size",
        ) from error
