"""Videos: frames enlarged, everything else as it was."""

from fractions import Fraction

import numpy as np
import pytest

from vdsr_cli.errors import InputError
from vdsr_cli.images import resumable, video

av = pytest.importorskip("av", reason="the extra video is not installed")

TIMES = [0, 40, 113, 153, 193, 266, 400, 440, 480, 520, 560]
"""Milliseconds at which frames are shown: their rate varies."""


def smooth_planes(index: int, bits: int) -> list[np.ndarray]:
    """A still picture but for a square on its right that moves."""
    y, x = np.mgrid[:32, :64]
    luma = 100 + 40 * np.sin(x / 5) + 20 * np.cos(y / 3)
    luma[4:10, 52 + index % 5 : 58 + index % 5] = 200
    chroma = 128 + 10 * np.sin(x[::2, ::2] / 9)
    scale, dtype = 1 << bits - 8, "u1" if bits == 8 else "<u2"
    return [(plane * scale).astype(dtype) for plane in (luma, chroma, chroma)]


def fill(plane, levels: np.ndarray) -> None:
    padded = np.zeros((plane.height, plane.line_size // levels.itemsize), levels.dtype)
    padded[:, : plane.width] = levels
    plane.update(padded)


def make_clip(path, *, frames=11, sound="aac", rotation=0, planes=None, **tags):
    """A clip of 64x32 pixels; ``tags`` are its ``format``, ``matrix`` and ``color_range``."""
    format, matrix = tags.get("format", "yuv420p"), tags.get("matrix", 1)
    with av.open(str(path), "w") as made:
        stream = made.add_stream("libx264", rate=25, options={"qp": "0", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 32, format
        context = stream.codec_context
        context.time_base = stream.time_base = Fraction(1, 1000)
        context.colorspace, context.color_range = matrix, tags.get("color_range", 1)
        context.color_primaries = context.color_trc = matrix
        context.sample_aspect_ratio = Fraction(4, 3)
        if rotation:
            stream.set_display_rotation(rotation)
        made.metadata["title"] = "Ünicode"
        audio = made.add_stream(sound, rate=44100, layout="mono") if sound else None
        for index in range(frames):
            frame = av.VideoFrame(64, 32, format)
            drawn = smooth_planes(index, 10 if "10" in format else 8)
            for plane, levels in zip(frame.planes, planes or drawn, strict=True):
                fill(plane, levels)
            frame.pts, frame.time_base = TIMES[index], context.time_base
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
        if audio is not None:
            for index in range(20):
                wave = np.sin(np.arange(1024) / 20)[None].astype("f4") / 10
                frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 44100, 1024 * index
                made.mux(audio.encode(frame))
            made.mux(audio.encode(None))
    return path


def frames_of(path):
    with av.open(str(path)) as opened:
        return list(opened.decode(video=0))


def shown_at(frame) -> Fraction:
    return frame.pts * frame.time_base


def levels(frame, plane: int = 0) -> np.ndarray:
    held = frame.planes[plane]
    dtype = "<u2" if "10" in frame.format.name else "u1"
    rows = np.frombuffer(held, dtype).reshape(held.height, -1)
    return rows[:, : held.width].astype(int)


def sound_of(path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as opened:
        return [(p.pts * p.time_base, bytes(p)) for p in opened.demux(audio=0) if p.size]


@pytest.fixture
def enlarge(vdsr, tiny_path):
    def run(source, *words):
        return vdsr("upscale", source, "-m", tiny_path, "--tile", 32, "--overlap", 8, *words)

    return run


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_sound_timing_tags_rotation_and_aspect_are_kept(enlarge, tmp_path, suffix):
    source = make_clip(tmp_path / "clip.mp4", rotation=90)
    output = tmp_path / f"out{suffix}"
    ended = enlarge(source, "-o", output)
    assert ended.code == 0, ended.err
    before, after = frames_of(source), frames_of(output)
    assert len(after) == len(TIMES)
    # Matroska counts in milliseconds, and begins with the sound, which is there before 0.
    shift = shown_at(after[0])
    for old, new in zip(before, after, strict=True):
        assert abs(shown_at(old) + shift - shown_at(new)) <= Fraction(suffix == ".mkv", 1000)
        assert (new.width, new.height, new.format.name) == (256, 128, "yuv420p")
        for tag in ("colorspace", "color_range", "color_primaries", "color_trc", "rotation"):
            assert getattr(new, tag) == getattr(old, tag), tag
    with av.open(str(output)) as made:
        assert made.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
        assert {k.lower(): v for k, v in made.metadata.items()}["title"] == "Ünicode"
    assert [data for _, data in sound_of(output)] == [data for _, data in sound_of(source)]
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []
    lead = sound_of(source)[0][0] - shown_at(before[0])
    assert abs(sound_of(output)[0][0] - shift - lead) <= Fraction(suffix == ".mkv", 1000)


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_what_stays_still_stays_still(enlarge, tmp_path, temperature):
    """Exactly where frames are equal, at any temperature; to a level where the model hardly sees
    what moves elsewhere."""
    source = make_clip(tmp_path / "clip.mp4")
    enlarge(source, "-t", temperature, "--quality", 100, "-o", tmp_path / "out.mkv")
    made = frames_of(tmp_path / "out.mkv")
    for frame in made[1:]:
        difference = np.abs(levels(frame) - levels(made[0]))
        assert difference[:, :128].max() <= 1
        assert (difference[:, 128:].max() > 20) == (made.index(frame) % 5 > 0)
    for index in range(5):
        for plane in range(3):
            assert np.array_equal(levels(made[index], plane), levels(made[index + 5], plane))


@pytest.mark.parametrize("matrix", [1, 6, 9])
@pytest.mark.parametrize("color_range", [1, 2])
def test_flat_colours_are_exact(enlarge, tmp_path, matrix, color_range):
    """What is read and written is the same colour: the mean of a result that degrades to it is."""
    values = (120, 110, 150)
    flat = [np.full((32, 64), values[0], np.uint8)]
    flat += [np.full((16, 32), value, np.uint8) for value in values[1:]]
    tags = {"matrix": matrix, "color_range": color_range}
    source = make_clip(tmp_path / "a.mp4", frames=1, planes=flat, **tags)
    ended = enlarge(source, "-t", 0, "--quality", 100, "--consistency", "-o", tmp_path / "b.mp4")
    assert ended.code == 0, ended.err
    [frame] = frames_of(tmp_path / "b.mp4")
    assert np.allclose([levels(frame, plane).mean() for plane in range(3)], values, atol=0.3)
    assert (frame.colorspace, frame.color_range) == (matrix, color_range)


def test_ten_bits_stay_ten(enlarge, tmp_path):
    source = make_clip(tmp_path / "a.mp4", format="yuv420p10le", frames=2)
    assert enlarge(source, "-o", tmp_path / "b.mp4").code == 0
    assert frames_of(tmp_path / "b.mp4")[0].format.name == "yuv420p10le"
    assert enlarge(source, "--depth", 8, "-o", tmp_path / "c.mp4").code == 0
    assert frames_of(tmp_path / "c.mp4")[0].format.name == "yuv420p"


@pytest.mark.parametrize(
    ("codec", "format", "bits"),
    [
        *(("ffv1", "yuv422p", 8), ("ffv1", "yuv444p10le", 16), ("ffv1", "yuv411p", 8)),
        *(("mjpeg", "yuvj420p", 8), ("rawvideo", "yuyv422", 8), ("libx264", "nv12", 8)),
        *(("png", "rgb24", 8), ("ffv1", "gbrp10le", 16), ("ffv1", "yuv420p12le", 16)),
        *(("ffv1", "gray", 8), ("ffv1", "gray16le", 16), ("ffv1", "gray9le", 16)),
    ],
)
def test_every_layout_of_pixels_is_read(tmp_path, codec, format, bits):
    y, x = np.mgrid[:48, :64]
    rgb = np.stack([x * 3 + 30, y * 4 + 20, 200 - x * 2], 2).astype(np.uint8)
    if format.startswith("gray"):
        rgb = rgb[..., :1].repeat(3, 2)
    path = tmp_path / ("a.mov" if codec == "png" else "a.mkv")
    with av.open(str(path), "w") as made:
        stream = made.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, format
        stream.codec_context.qmin = stream.codec_context.qmax = 1
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=format)
        made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    with video.open_video(path, 10_000) as opened:
        first = opened.first
    assert first.metadata.bit_depth == bits
    read = first.rgb[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(read - rgb)[4:-4, 4:-4].mean() < 2


@pytest.mark.parametrize("codec", ["zmbv", "rawvideo"])
def test_colours_of_a_palette_are_read(tmp_path, codec):
    index = np.arange(24, dtype=np.uint8).repeat(24).reshape(24, 24).T // 8
    palette = np.zeros((256, 4), np.uint8)
    palette[:3] = [[255, 255, 0, 0], [255, 0, 255, 0], [255, 0, 0, 255]]  # alpha, then RGB
    with av.open(str(tmp_path / "a.avi"), "w") as made:
        stream = made.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 24, 24, "pal8"
        made.mux(stream.encode(av.VideoFrame.from_ndarray((index, palette), format="pal8")))
        made.mux(stream.encode(None))
    with video.open_video(tmp_path / "a.avi", 10_000) as opened:
        read = opened.first.rgb[0, :, 12, [4, 12, 20]].numpy() * 255
    np.testing.assert_allclose(read, 255 * np.eye(3), atol=3)


def test_a_matrix_that_is_not_told_is_taken_by_size_and_told(enlarge, tmp_path):
    source = make_clip(tmp_path / "a.mp4", matrix=2, frames=1)
    ended = enlarge(source, "-s", 2.6, "-o", tmp_path / "b.mp4")
    assert "BT.601 is taken" in ended.err
    [frame] = frames_of(tmp_path / "b.mp4")
    assert frame.colorspace == 6 and (frame.width, frame.height) == (166, 82), "even sides"


def test_an_interrupted_run_is_continued_to_the_same_bytes(enlarge, tmp_path, monkeypatch):
    source = make_clip(tmp_path / "clip.mp4")
    monkeypatch.setattr(video, "SEGMENT_FRAMES", 4)
    monkeypatch.setattr(resumable, "JOURNAL_EVERY_S", 0.0)
    assert enlarge(source, "-o", tmp_path / "whole.mp4").code == 0
    put, seen = video.VideoFile.put, []

    def stops(self, rgb, frame):
        seen.append(frame.pts)
        if len(seen) == 7:
            raise OSError("the disk is full")
        put(self, rgb, frame)

    output = tmp_path / "out.mp4"
    with monkeypatch.context() as patch:
        patch.setattr(video.VideoFile, "put", stops)
        assert enlarge(source, "-o", output).code == 6
    assert not output.exists() and (tmp_path / "out.mp4.part").exists()
    drawn = []
    monkeypatch.setattr(
        video.VideoFile, "put", lambda self, *given: drawn.append(1) or put(self, *given)
    )
    ended = enlarge(source, "-o", output)
    assert ended.code == 0 and "continued an earlier run from frame 5" in ended.err
    assert len(drawn) == len(TIMES) - 4
    assert output.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert not (tmp_path / "out.mp4.part").exists()


def test_the_output_is_a_video_beside_its_input(enlarge, vdsr, tmp_path):
    source = make_clip(tmp_path / "clip.mkv", frames=1)
    ended = enlarge(source, "--json")
    assert ended.code == 0 and (tmp_path / "clip_x4.mkv").exists()
    refused = vdsr("sample-diverse", source)
    assert refused.code == 3 and "vdsr upscale enlarges them" in refused.err
    for words, told in [
        (["-o", tmp_path / "a.png"], ".png is no video format"),
        (["-o", tmp_path / "a.webm"], ".webm files do not hold the aac"),
        (["-o", "-"], "a video needs a file of its own"),
    ]:
        ended = enlarge(source, *words)
        assert ended.code in (2, 6) and told in ended.err, ended.err
        assert len(ended.err.splitlines()) <= 2
    folder = vdsr("upscale", tmp_path, "-o", tmp_path / "out", "--dry-run")
    assert folder.code == 3 and "no pictures in this folder" in folder.err


def test_a_container_that_refuses_the_sound_does_so_before_any_work(enlarge, tmp_path, monkeypatch):
    source = make_clip(tmp_path / "clip.mkv", frames=1, sound="flac")
    assert enlarge(source, "-o", tmp_path / "a.mkv").code == 0
    monkeypatch.setattr(video.VideoFile, "put", None)
    ended = enlarge(source, "-o", tmp_path / "a.mov")
    assert ended.code == 6 and "cannot be written" in ended.err and ".mkv" in ended.err


def test_webm_without_sound(enlarge, tmp_path):
    source = make_clip(tmp_path / "clip.mp4", frames=2, sound=None)
    assert enlarge(source, "-o", tmp_path / "a.webm").code == 0
    assert len(frames_of(tmp_path / "a.webm")) == 2


def test_a_damaged_video_is_one_line(enlarge, tmp_path):
    data = make_clip(tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    ended = enlarge(tmp_path / "cut.mp4", "-o", tmp_path / "a.mp4")
    assert ended.code == 3 and len(ended.err.splitlines()) == 1
    assert not (tmp_path / "a.mp4").exists() and not list(tmp_path.glob("*.part*"))


def test_a_codec_that_is_not_known_is_one_line(enlarge, tmp_path):
    data = make_clip(tmp_path / "clip.mp4", sound=None).read_bytes()
    (tmp_path / "odd.mp4").write_bytes(
        data.replace(b"avc1", b"\xff\xfezz").replace(b"avcC", b"zzzz")
    )
    ended = enlarge(tmp_path / "odd.mp4", "-o", tmp_path / "a.mp4")
    assert ended.code == 3 and "its codec is not known" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_tags_that_are_no_text_end_no_run(enlarge, tmp_path):
    data = make_clip(tmp_path / "clip.mp4", frames=2).read_bytes()
    (tmp_path / "odd.mp4").write_bytes(data.replace("Ünicode".encode(), b"\xff\xfenicode"))
    assert enlarge(tmp_path / "odd.mp4", "-o", tmp_path / "a.mp4").code == 0


def test_a_name_is_no_address(enlarge, tmp_path, monkeypatch):
    """FFmpeg would ask a server for the one, and read the other file for the other."""
    monkeypatch.chdir(tmp_path)
    clip = make_clip(tmp_path / "clip.mp4", frames=2)
    for name in ("http:x.mp4", "concat:other.mp4"):
        clip.with_name(name).write_bytes(clip.read_bytes())
        assert enlarge(name, "-o", "a.mp4", "--overwrite").code == 0
        assert len(frames_of(tmp_path / "a.mp4")) == 2


def test_a_list_of_other_files_is_no_video(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", frames=2)
    listed = tmp_path / "list.mp4"
    listed.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{clip}\n#EXT-X-ENDLIST\n")
    with (
        pytest.raises(InputError, match="cannot be read as video"),
        video.open_video(listed, 10**6),
    ):
        pass


def test_without_the_extra_a_line_names_it(enlarge, tmp_path, monkeypatch):
    source = make_clip(tmp_path / "clip.mp4", frames=1)
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    ended = enlarge(source, "-o", tmp_path / "a.mp4")
    assert ended.code == 3
    assert ended.err.splitlines() == [
        f"vdsr: {source}: videos are read by an extra",
        "  hint: pip install 'vdsr-cli[video]'",
    ]
