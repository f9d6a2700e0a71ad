"""Streams of a video keep what players choose them by."""

from fractions import Fraction

import numpy as np
import pytest

from vdsr_cli.images import video

av = pytest.importorskip("av", reason="the extra video is not installed")

TRACKS = [("deu", "Ton", 0), ("eng", "Commentary", av.stream.Disposition.default)]


def make_clip(path, *, frames=1, format="yuv420p", codec="libx264", sounds=True, **tags):
    """A clip of 64x32 pixels with two tracks of sound."""
    with av.open(str(path), "w") as made:
        picture = made.add_stream(codec, rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 32, format
        picture.codec_context.time_base = picture.time_base = Fraction(1, 1000)
        picture.metadata.update({"language": "fra"} | tags)
        tracks = []
        for language, title, disposition in TRACKS if sounds else ():
            sound = made.add_stream("flac", rate=8000, layout="mono")
            sound.metadata.update({"language": language, "title": title})
            sound.disposition = disposition
            tracks.append(sound)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((32, 64, 3), 90, np.uint8), format="rgb24")
            frame.pts, frame.time_base = 40 * index, Fraction(1, 1000)
            made.mux(picture.encode(frame.reformat(format=format)))
        made.mux(picture.encode(None))
        for sound in tracks:
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 512), "i2"), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = 8000, 0
            made.mux(sound.encode(frame))
            made.mux(sound.encode(None))
    return path


def copy(source, output, **options):
    """The clip with its frames as they are."""
    with (
        video.open_video(source, 10_000) as opened,
        video.open_video_file(
            output,
            opened,
            (32, 64),
            format=output.suffix[1:],
            quality=90,
            is_deep=False,
            identity=lambda: "one",
            replaces=False,
            **options,
        ) as file,
    ):
        for frame in opened.read():
            file.put(frame.picture().rgb[0], frame)
    return output


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("keeps_tags", [True, False])
def test_streams_keep_language_title_and_disposition(tmp_path, keeps_tags, suffix):
    source = make_clip(tmp_path / f"a{suffix}", title="Bild")
    with av.open(str(copy(source, tmp_path / "b.mkv", keeps_tags=keeps_tags))) as made:
        picture, *sounds = made.streams
        assert picture.language == "fra"
        assert picture.metadata.get("title") == ("Bild" if keeps_tags else None)
        for sound, (language, title, disposition) in zip(sounds, TRACKS, strict=True):
            assert (sound.language, sound.disposition) == (language, disposition)
            assert sound.metadata.get("title") == (title if keeps_tags else None)


def test_the_transparency_of_a_webm_is_told(tmp_path):
    clear = make_clip(
        tmp_path / "a.webm", codec="libvpx-vp9", sounds=False, format="yuva420p", alpha_mode="1"
    )
    with video.open_video(clear, 10_000) as opened:
        assert opened.notes.count("its transparency was left out") == 1
    opaque = make_clip(tmp_path / "b.webm", codec="libvpx-vp9", sounds=False)
    with video.open_video(opaque, 10_000) as opened:
        assert "its transparency was left out" not in opened.notes
