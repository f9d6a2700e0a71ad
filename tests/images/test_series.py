"""Files of several pictures: read as they are shown, and written with their timing."""

import io
import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from picture_files import (
    EXIF_IFD,
    LENS,
    MAKE,
    SRGB,
    encode,
    exif_block,
    needs_avif,
    ours,
    random_levels,
)
from PIL import Image
from PIL.GifImagePlugin import getdata

from vdsr_cli.config import Truncated
from vdsr_cli.errors import InputError, OutputError
from vdsr_cli.formats import content_of
from vdsr_cli.images import Frame, Metadata, Picture, Series, open_pictures, open_series_file
from vdsr_cli.images.encode import refuse_several
from vdsr_cli.images.frames import whole_units
from vdsr_cli.images.gif import palette_of
from vdsr_cli.images.series import Shape


def moving(count=3, mode="RGB", size=(12, 10)):
    """Frames with a square that moves, on noise, or on nothing where there is alpha."""
    frames = []
    for index in range(count):
        noise = Image.fromarray(random_levels(3, shape=size[::-1])).convert("RGB")
        frame = Image.new("RGBA", size) if mode == "RGBA" else noise
        frame.paste((250, 10, 20, 255)[: len(frame.getbands())], (2 * index, 2, 2 * index + 4, 6))
        frames.append(frame)
    return frames


def animated(format, frames, **options):
    return encode(frames[0], format, save_all=True, append_images=frames[1:], **options)


def shown(data):
    """Every frame of a file as Pillow shows it, with its duration."""
    with Image.open(io.BytesIO(data)) as image:
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            yield np.asarray(image.convert("RGBA")).copy(), image.info.get("duration")


@pytest.fixture
def opened():
    def read(data, **options):
        with open_pictures(io.BytesIO(data), **options) as found:
            if isinstance(found, Picture):
                return found
            return found, list(found)

    return read


def png_chunk(kind, data):
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def animated_png(colour_type, depth, frames, *extra):
    """Pillow writes none of palettes, nor of 16 bits with a colour that is clear."""
    height, width = frames[0].shape
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = [png_chunk(b"IHDR", header), png_chunk(b"acTL", struct.pack(">II", len(frames), 0))]
    parts += [png_chunk(*each) for each in extra]
    for index, frame in enumerate(frames):
        number = 2 * index - 1 if index else 0
        place = struct.pack(">IIIIIHHBB", number, width, height, 0, 0, 1, 10, 0, 0)
        rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in frame))
        kind, data = (b"fdAT", struct.pack(">I", number + 1) + rows) if index else (b"IDAT", rows)
        parts += [png_chunk(b"fcTL", place), png_chunk(kind, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, png_chunk(b"IEND", b"")])


@pytest.mark.parametrize("clear", [None, b"\0", bytes([255] * 7 + [128])])
def test_an_animated_png_keeps_its_palette(clear):
    palette = np.random.default_rng(1).integers(0, 256, (8, 3), np.uint8)
    frames = [np.random.default_rng(seed).integers(0, 8, (12, 16), np.uint8) for seed in range(3)]
    extra = [(b"PLTE", palette.tobytes())] + ([(b"tRNS", clear)] if clear else [])
    alpha = np.frombuffer((clear or b"").ljust(8, b"\xff"), np.uint8) / 255
    with open_pictures(io.BytesIO(animated_png(3, 8, frames, *extra))) as found:
        for index in (0, 1, 2, 1, 0, 2, 0):  # backwards, too
            rgb = found[index].rgb[0].permute(1, 2, 0).numpy()
            expected = palette[frames[index]] / 255 * alpha[frames[index]][..., None]
            np.testing.assert_allclose(rgb, expected, atol=1e-6)


def test_a_clear_level_of_an_animated_png_of_16_bits(opened):
    frames = [(np.arange(12).reshape(3, 4) * 5000 + more).astype(">u2") for more in range(2)]
    _, [first, second] = opened(animated_png(0, 16, frames, (b"tRNS", struct.pack(">H", 5000))))
    assert (first.alpha == 0).nonzero().tolist() == [[0, 0, 0, 1]]
    assert second.alpha.min() == 1 and first.rgb[0, :, 0, 1].max() == 0


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", pytest.param("AVIF", marks=needs_avif)])
def test_frames_are_read_as_they_are_shown(opened, format, mode):
    frames = moving(mode=mode)
    options = {"lossless": True} if format == "WEBP" else {}
    options |= {"disposal": 2} if format == "GIF" and mode == "RGBA" else {}
    data = animated(format, frames, duration=[40, 70, 120], loop=0, **options)
    series, pictures = opened(data)
    assert (len(series), series.plays) == (3, 0)
    assert series.durations == (40, 70, 120)
    assert all((picture.alpha is None) == (mode == "RGB") for picture in pictures)
    # Pillow shows a WebP of frames that are smaller than the whole, and opaque, without alpha.
    is_exact = mode == "RGBA" and format != "AVIF"
    wanted = map(np.asarray, frames) if is_exact else (levels for levels, _ in shown(data))
    for picture, levels in zip(pictures, wanted, strict=True):
        rgb = picture.rgb[0].permute(1, 2, 0).numpy() * 255
        visible = levels[..., 3:] > 0
        assert np.abs(np.where(visible, rgb - levels[..., :3], 0)).max() < 0.01
        if picture.alpha is not None:
            np.testing.assert_allclose(picture.alpha[0, 0] * 255, levels[..., 3], atol=0.01)


@pytest.mark.parametrize(
    ("format", "loop", "plays"),
    [("GIF", None, 1), ("GIF", 0, 0), ("GIF", 4, 5), ("WEBP", 3, 3), ("PNG", 2, 2), ("PNG", 0, 0)],
)
def test_how_often_it_is_played(opened, format, loop, plays):
    options = {} if loop is None else {"loop": loop}
    series, _ = opened(animated(format, moving(), duration=50, **options))
    assert series.plays == plays


def test_the_still_of_an_animated_png_may_be_no_frame(opened):
    first, *frames = moving(4)
    options = {"default_image": True, "duration": [20, 30, 40]}
    data = encode(first, "PNG", save_all=True, append_images=frames, **options)
    series, pictures = opened(data)
    assert series.durations == (20, 30, 40)
    assert any("none of its frames" in note for note in series.notes)
    np.testing.assert_allclose(
        pictures[0].rgb[0].permute(1, 2, 0) * 255, np.asarray(frames[0]), atol=0.01
    )
    one = encode(first, "PNG", save_all=True, append_images=frames[:1], default_image=True)
    assert len(opened(one)[0]) == 1


def test_grey_stays_grey_where_all_frames_are(opened):
    frames = [Image.new("L", (6, 6), 40 * index) for index in range(3)]
    _, pictures = opened(animated("PNG", frames, duration=50))
    assert all(picture.metadata.is_grey for picture in pictures)
    _, pictures = opened(animated("GIF", moving(), duration=50))
    assert not any(picture.metadata.is_grey for picture in pictures)


def test_what_is_cut_off_is_refused_or_left_out(opened):
    frames = [Image.fromarray(random_levels(3, shape=(40, 40), seed=i)) for i in range(4)]
    data = animated("PNG", frames, duration=50)
    with pytest.raises(InputError, match="truncated"):
        opened(data[: len(data) * 5 // 8])
    series, pictures = opened(data[: len(data) * 5 // 8], truncated=Truncated.keep)
    assert 1 <= len(pictures) < 4 and any("truncated" in note for note in series.notes)


def test_a_gif_that_is_cut_between_two_frames_is_truncated(opened):
    data = gif_of((8, 6), *((0, 0, (8, 6), index) for index in (1, 2, 1)))
    cut = data[: data.rindex(b"!\xf9")]
    with pytest.raises(InputError, match="truncated"):
        opened(cut)
    series, _ = opened(cut, truncated=Truncated.keep)
    assert len(series) == 2 and any("truncated" in note for note in series.notes)


def gif_of(screen, *frames):
    """A GIF of frames (left, top, size, colour), which need not respect its screen."""
    palette = Image.new("P", (1, 1))
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] + [9] * (3 * 253))
    data = b"GIF89a" + struct.pack("<HHBBB", *screen, 0xF7, 0, 0) + bytes(palette.getpalette())
    for left, top, size, index in frames:
        image = Image.new("P", size, index)
        image.putpalette(palette.getpalette())
        data += b"".join(getdata(image, (left, top), duration=50))
    return data + b";"


def test_a_frame_ends_at_the_screen(opened):
    _, pictures = opened(gif_of((8, 6), (0, 0, (8, 6), 1), (4, 4, (9, 9), 2)))
    assert [tuple(picture.rgb.shape) for picture in pictures] == [(1, 3, 6, 8)] * 2
    assert pictures[1].rgb[0, :, 5, 5].tolist() == [0, 1, 0]
    assert pictures[1].rgb[0, :, 0, 0].tolist() == [1, 0, 0]


def test_a_bomb_in_a_later_frame_is_refused(opened):
    data = gif_of((8, 6), (0, 0, (8, 6), 1), (60_000, 60_000, (1, 1), 2))
    with pytest.raises(InputError, match="pixels") as caught:
        opened(data)
    assert "--max-pixels" in caught.value.hint


def test_what_stands_between_blocks_is_passed_by(tmp_path):
    data = gif_of((8, 6), (0, 0, (8, 6), 1), (0, 0, (4, 4), 2))
    place = data.rindex(b"!\xf9")
    (tmp_path / "a.gif").write_bytes(data[:place] + b"\0\0" + data[place:])
    assert content_of(tmp_path / "a.gif").is_several


# Writing.


def series_of(levels, plays=0, durations=None, metadata=None):
    """Pictures as a series; of pages where ``plays`` is None."""
    like = metadata or [Metadata(is_grey=each.shape[2] < 3) for each in levels]
    durations = durations or (50,) * len(levels)

    def read(index):
        planes = torch.from_numpy(levels[index].astype(np.float32) / 255).permute(2, 0, 1)
        colours, alpha = (planes[:-1], planes[-1:]) if len(planes) in (2, 4) else (planes, None)
        rgb = colours.expand(3, -1, -1) if alpha is None else colours.expand(3, -1, -1) * alpha
        alpha = alpha if alpha is None else alpha.unsqueeze(0)
        return Picture(rgb=rgb.unsqueeze(0), alpha=alpha, metadata=like[index])

    return Series(
        format=None,
        shapes=tuple(Shape(*each.shape[:2], each.shape[2] in (2, 4)) for each in levels),
        plays=plays,
        durations=() if plays is None else tuple(map(Fraction, durations)),
        read=read,
        digest=lambda: "",
    )


def frames_of(series):
    return [
        Frame(height=p.height, width=p.width, like=p.metadata, has_alpha=p.alpha is not None)
        for p in series
    ]


def written(output, levels, *, format, quality=95, **options):
    series = series_of(levels, **options)
    frames = frames_of(series)
    with open_series_file(
        output, series, frames, format=format, quality=quality, identity=lambda: ""
    ) as file:
        for each, frame in zip(levels, frames, strict=True):
            file.put(each, frame)
    return file.notes


def still_but_for(channels, changes, shape=(20, 24)):
    """Frames of noise, in each of which another rectangle is drawn anew; None repeats."""
    levels = [random_levels(channels, shape=shape)]
    for seed, change in enumerate(changes, 1):
        frame = levels[-1].copy()
        if change is not None:
            frame[change] = random_levels(channels, shape=shape, seed=seed)[change]
        levels.append(frame)
    return levels


CHANGES = (np.s_[3:9, 5:8], None, np.s_[19:, 23:], np.s_[:, :])


@pytest.mark.parametrize(
    ("format", "channels"),
    [("png", 1), ("png", 2), ("png", 3), ("png", 4), ("webp", 3), ("webp", 4)],
)
def test_frames_come_back_without_loss(tmp_path, format, channels):
    levels = still_but_for(channels, CHANGES)
    path = tmp_path / f"a.{format}"
    durations = (40, 1000, 55, 20, 7)
    written(path, levels, format=format, quality=100, plays=3, durations=durations)
    back = list(shown(path.read_bytes()))
    assert [duration for _, duration in back] == pytest.approx(list(durations))
    for (found, _), each in zip(back, levels, strict=True):
        colours = each[..., :1].repeat(3, axis=2) if channels < 3 else each[..., :3]
        visible = each[..., -1:] > 0 if channels in (2, 4) else True
        np.testing.assert_array_equal(found[..., :3] * visible, colours * visible)
        if channels in (2, 4):
            np.testing.assert_array_equal(found[..., 3], each[..., -1])
    assert content_of(path).is_several
    with Image.open(path) as image:
        assert image.info["loop"] == 3


def test_16_bits_of_an_animated_png(tmp_path):
    levels = [random_levels(3, np.uint16, (8, 8), seed) for seed in range(2)]
    like = [Metadata(bit_depth=16)] * 2
    written(tmp_path / "a.png", levels, format="png", metadata=like)
    data = (tmp_path / "a.png").read_bytes()
    assert data[24] == 16 and len(list(shown(data))) == 2


def few_colours(has_alpha, count=4):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (40, 3), np.uint8)
    levels = []
    for _ in range(count):
        frame = colours[rng.integers(0, 40, (20, 24))]
        alpha = 255 * rng.integers(0, 2, (20, 24, 1), np.uint8)
        levels.append(np.concatenate([frame, alpha], axis=2) if has_alpha else frame)
    return levels


@pytest.mark.parametrize("has_alpha", [False, True])
def test_a_gif_of_few_colours_is_exact(tmp_path, has_alpha):
    levels = few_colours(has_alpha)
    levels.insert(1, levels[0])
    durations = (40, 70, 70, 120, 500)
    notes = written(tmp_path / "a.gif", levels, format="gif", durations=durations, plays=4)
    back = list(shown((tmp_path / "a.gif").read_bytes()))
    assert [duration for _, duration in back] == list(durations)
    for (found, _), each in zip(back, levels, strict=True):
        alpha = each[..., 3:] if has_alpha else 255
        np.testing.assert_array_equal(found[..., 3:], np.broadcast_to(alpha, found[..., 3:].shape))
        np.testing.assert_array_equal(found[..., :3] * (alpha > 0), each[..., :3] * (alpha > 0))
    assert notes == ("GIF holds 255 colours: --format webp or png keeps all",)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["loop"] == 3  # again, after the first


def test_a_gif_of_what_is_all_but_transparent(tmp_path):
    """A watermark has no pixel that a GIF, which knows no half of a colour, would show."""
    faint = [np.full((20, 24, 4), (200, 100, 50, alpha), np.uint8) for alpha in (0, 100)]
    notes = written(tmp_path / "a.gif", faint, format="gif", durations=(40, 700_000))
    assert "GIF shows a frame for at most 655.35 s: longer ones are cut" in notes
    back = list(shown((tmp_path / "a.gif").read_bytes()))
    assert [duration for _, duration in back] == [40, 655_350], "a GIF has no longer"
    assert all((levels[..., 3] == 0).all() for levels, _ in back)
    ours(faint[1], "gif")


@pytest.mark.parametrize("format", ["gif", "webp", "png"])
def test_what_is_still_stays_as_it_was(tmp_path, format):
    """Bit for bit, also of lossy formats and of a palette that is too small."""
    change = np.s_[4:12, 6:14]
    levels = still_but_for(3, [change, None, change], shape=(40, 48))
    path = tmp_path / f"a.{format}"
    written(path, levels, format=format, quality=60)
    first, *others = [found for found, _ in shown(path.read_bytes())]
    still = np.ones((40, 48), bool)
    still[change] = False
    for other in others:
        np.testing.assert_array_equal(other[still], first[still])
    np.testing.assert_array_equal(others[1], others[0])
    assert (others[0][change] != first[change]).any()


def test_a_palette_of_a_picture_is_near_it(tmp_path):
    ramp = np.add.outer(np.arange(64), np.arange(64))
    levels = np.stack([ramp, 255 - ramp, 128 + ramp // 2], axis=2).astype(np.uint8)
    written(tmp_path / "a.gif", [levels, levels[::-1].copy()], format="gif")
    for (found, _), each in zip(
        shown((tmp_path / "a.gif").read_bytes()), (levels, levels[::-1]), strict=True
    ):
        off = found[..., :3].astype(float) - each
        assert np.abs(off).max() <= 6
        # The pattern of two colours has the mean of the picture.
        assert np.abs(off.reshape(8, 8, 8, 8, 3).mean((1, 3))).max() < 1.2
    assert len(palette_of(random_levels(3, shape=(64, 64)).reshape(-1, 3))) <= 255


def test_the_metadata_of_an_animation(tmp_path):
    like = [Metadata(icc_profile=SRGB, xmp=b"<x:xmpmeta/>", comment=b"hello")] * 2
    levels = still_but_for(3, CHANGES[:1])
    for format, keys in (("png", {"icc_profile"}), ("webp", {"icc_profile"}), ("gif", {"comment"})):
        path = tmp_path / f"a.{format}"
        notes = written(path, levels, format=format, metadata=like)
        with Image.open(path) as image:
            assert keys <= set(image.info)
        with open_pictures(path) as series:
            assert series[0].metadata.xmp == b"<x:xmpmeta/>"
        assert any("profile" in note for note in notes) == (format == "gif")


def test_durations_in_units_never_stray():
    durations = [Fraction(1000, 24)] * 240
    units = whole_units(durations, 10)
    assert sum(units) == 1000
    ends = np.cumsum(units) * 10
    assert np.abs(ends - np.arange(1, 241) * 1000 / 24).max() <= 5


def test_pages_keep_their_sizes_depths_and_metadata(tmp_path, opened):
    like = [
        Metadata(dpi=(100.0, 100.0), icc_profile=SRGB),
        Metadata(is_grey=True, bit_depth=16, dpi=(300.0, 300.0)),
        Metadata(xmp=b"<x:xmpmeta/>"),
    ]
    levels = [
        random_levels(3, shape=(20, 30)),
        random_levels(1, np.uint16, (9, 7)),
        random_levels(4, shape=(11, 5)),
    ]
    path = tmp_path / "a.tif"
    written(path, levels, format="tiff", plays=None, metadata=like)
    series, pictures = opened(path.read_bytes())
    assert series.plays is None and series.durations == ()
    for picture, each, metadata in zip(pictures, levels, like, strict=True):
        assert (picture.height, picture.width) == each.shape[:2]
        found = picture.metadata
        assert (found.bit_depth, found.is_grey) == (metadata.bit_depth, metadata.is_grey)
        assert (found.dpi, found.icc_profile, found.xmp) == (
            metadata.dpi, metadata.icc_profile, metadata.xmp,
        )  # fmt: skip
        assert (picture.alpha is None) == (each.shape[2] != 4)
    grey = pictures[1].rgb[0, 0].numpy() * 65535
    np.testing.assert_allclose(grey, levels[1][..., 0], atol=0.01)
    with Image.open(path) as image:
        assert image.n_frames == 3


def test_pages_of_a_bigtiff_and_their_tags(tmp_path, monkeypatch, opened):
    monkeypatch.setattr("vdsr_cli.images.tiff._LONGEST_FILE_BYTES", 3000)
    levels = [random_levels(3, shape=(20, 30), seed=seed) for seed in range(3)]
    like = [Metadata(exif=exif_block().tobytes())] * 3
    path = tmp_path / "a.tif"
    written(path, levels, format="tiff", plays=None, metadata=like)
    assert path.read_bytes()[:4] == b"II+\0"
    _, pictures = opened(path.read_bytes())
    for picture, each in zip(pictures, levels, strict=True):
        np.testing.assert_allclose(picture.rgb[0].permute(1, 2, 0) * 255, each, atol=0.01)
        block = Image.Exif()
        block.load(picture.metadata.exif)
        assert (block[MAKE], block.get_ifd(EXIF_IFD)[LENS]) == ("Maker", "Lens 50")


def test_reduced_copies_are_no_pages(opened):
    first, second, copy = (Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(3))
    copy.encoderinfo = {"tiffinfo": {254: 1}}
    assert isinstance(opened(animated("TIFF", [first, copy])), Picture)
    series, _ = opened(animated("TIFF", [first, copy, second]))
    assert len(series) == 2


def test_a_damaged_page_is_named(opened):
    data = animated("TIFF", moving(), compression="tiff_deflate")
    with Image.open(io.BytesIO(data)) as image:
        image.seek(1)
        (start,) = image.tag_v2[273]
    with pytest.raises(InputError, match="standard input: page 2: "):
        opened(data[:start] + bytes(8) + data[start + 8 :])


def test_a_format_of_one_picture_is_refused():
    for format in ("jpg", "bmp", "avif", "tiff"):
        with pytest.raises(OutputError, match="holds no animation") as caught:
            refuse_several(format, is_animation=True, name="a")
        assert "webp" in caught.value.hint
    with pytest.raises(OutputError, match="PNG holds one page alone"):
        refuse_several("png", is_animation=False, name="a")


@pytest.mark.parametrize("format", ["gif", "webp", "png", "tiff"])
def test_an_interrupted_file_is_gone_on_with_to_the_same_bytes(tmp_path, format):
    plays = None if format == "tiff" else 0
    levels = still_but_for(3, CHANGES)
    series = series_of(levels, plays=plays)
    frames = frames_of(series)
    whole, path = tmp_path / f"whole.{format}", tmp_path / f"a.{format}"
    written(whole, levels, format=format, plays=plays)
    options = {"format": format, "quality": 95, "identity": lambda: "x", "every_s": 0}

    def go_on(end):
        with open_series_file(path, series, frames, **options) as file:
            for index in range(file.first, len(levels)):
                if index == end:
                    raise KeyboardInterrupt
                file.put(levels[index], frames[index])
        return file

    for end in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            go_on(end)
        assert not path.exists()
    file = go_on(None)
    assert file.first == (3 if format == "tiff" else 2)
    assert any("continued" in note for note in file.notes)
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(found.name for found in tmp_path.iterdir()) == sorted([whole.name, path.name])


def test_a_stream_gets_the_same_bytes(tmp_path):
    levels = still_but_for(3, CHANGES)
    stream = io.BytesIO()
    written(stream, levels, format="webp")
    written(tmp_path / "a.webp", levels, format="webp")
    assert stream.getvalue() == (tmp_path / "a.webp").read_bytes()


@pytest.mark.parametrize(
    "seconds",
    [
        *(Fraction(1, 3), Fraction(0), Fraction(65_534), Fraction(65_535)),
        *(Fraction(700_123, 1000), Fraction(40_000_001, 1000), Fraction(100_003, 100)),
    ],
)
def test_an_animated_png_tells_the_nearest_delay_there_is(tmp_path, seconds):
    written(tmp_path / "a.png", still_but_for(3, [None]), format="png",
            durations=(1000 * seconds, 40))  # fmt: skip
    data = (tmp_path / "a.png").read_bytes()
    delay = Fraction(*struct.unpack_from(">HH", data, data.index(b"fcTL") + 24))
    # Farey: a fraction of so small parts is nearer than the inverse of its denominator.
    assert abs(delay - seconds) <= Fraction(max(1, seconds), 65_535)


@pytest.mark.parametrize(("format", "longest_s"), [("png", 65_535), ("webp", 16_777)])
def test_a_frame_that_is_cut_in_time_is_told(tmp_path, format, longest_s):
    for seconds, is_cut in ((longest_s, False), (longest_s + 1, True)):
        notes = written(tmp_path / f"{is_cut}.{format}", still_but_for(3, [None]), format=format,
                        durations=(1000 * seconds, 40))  # fmt: skip
        assert any("longer ones are cut" in note for note in notes) == is_cut
