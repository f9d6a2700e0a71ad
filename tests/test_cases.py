"""Small files that failed once, as ``vdsr upscale`` takes them now.

They lie beside the repository; the tests of ``tests/images`` make the like of them by themselves.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vdsr_cli.images import read_picture
from vdsr_cli.images.exif import ExifBlock
from vdsr_cli.images.extras import has_extra

CASES = Path(__file__).parents[2] / "shared" / "cases"
pytestmark = pytest.mark.skipif(
    not CASES.is_dir(), reason="needs the folder of cases beside the repository"
)


@pytest.fixture
def upscaled(vdsr, tmp_path, tiny_path):
    """``upscaled("a.png", "jpg")``: how the run ended, and where its output is."""

    def run(name, suffix="png", *options):
        if not (CASES / name).exists():
            pytest.skip(f"the folder of cases has no {name}")
        output = tmp_path / f"out.{suffix}"
        model = [] if "-m" in options else ["-m", tiny_path, "-t", 0]
        return vdsr("upscale", CASES / name, "-o", output, *model, *options), output

    return run


def metadata(path):
    return read_picture(path).metadata


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_absurd_resolution(upscaled, suffix):
    ended, output = upscaled("dpi_exif_max.jpg", suffix)
    assert ended.code == 0 and "resolution" in ended.err
    assert metadata(output).dpi is None


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_text_of_any_encoding(upscaled, suffix):
    ended, output = upscaled("nonascii_exif.jpg", suffix)
    assert ended.code == 0
    with Image.open(CASES / "nonascii_exif.jpg") as image:
        runs = re.findall(rb"[\x20-\xff]*[\xc3-\xf4][\x80-\xbf]+[\x20-\xff]*", image.info["exif"])
    assert len(runs) >= 3
    made = output.read_bytes()
    assert all(run in made for run in runs)


def test_an_ill_typed_tag(upscaled):
    ended, output = upscaled("exif_badtype.jpg", "jpg")
    assert ended.code == 0 and "EXIF" not in ended.err
    before = ExifBlock(metadata(CASES / "exif_badtype.jpg").exif)
    after = ExifBlock(metadata(output).exif)
    assert [tag for tag, _ in before.fields()] == [tag for tag, _ in after.fields()]


def test_bad_pictures_take_no_others_down(vdsr, tmp_path, tiny_path):
    names = ["noplte.png", "gamma_text.png", "dpi_exif_max.jpg"]
    inputs = [CASES / name for name in names]
    ended = vdsr("upscale", *inputs, "-o", tmp_path / "out", "-m", tiny_path, "-t", 0)
    assert ended.code == 3 and "Traceback" not in ended.err
    made = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert made == ["dpi_exif_max_x4.png", "gamma_text_x4.png"]
    assert b"tEXtgamma" in (tmp_path / "out" / "gamma_text_x4.png").read_bytes()


@pytest.mark.parametrize("name", ["cicp_p3.png", "p12_13_6.avif"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_colours_by_code_points(upscaled, name, suffix):
    ended, output = upscaled(name, suffix)
    assert ended.code == 0
    assert b"D\0i\0s\0p\0l\0a\0y\0 \0P\0003" in metadata(output).icc_profile
    if suffix == "png":
        assert b"cICP" + bytes([12, 13, 0, 1]) in output.read_bytes()


def test_planes_of_grey_and_alpha(upscaled):
    ended, output = upscaled("ga8_planar_unassoc_packbits.tif")
    assert ended.code == 0
    picture = read_picture(CASES / "ga8_planar_unassoc_packbits.tif")
    assert picture.alpha is not None
    assert bool((picture.alpha[..., 4:] == 1).all())  # its first four columns are transparent
    with Image.open(output) as image:
        assert np.asarray(image.convert("L")).std() > 10


def test_pages(upscaled):
    ended, output = upscaled("pages2.tif", "tif")
    assert ended.code == 0
    with Image.open(CASES / "pages2.tif") as source, Image.open(output) as made:
        assert (source.n_frames, made.n_frames) == (2, 2)
        for index in range(2):
            source.seek(index)
            made.seek(index)
            assert made.size == (4 * source.width, 4 * source.height)


@pytest.mark.skipif(not has_extra("tiff"), reason="needs the extra tiff")
def test_16_bit_grey_with_alpha_stays_that(upscaled):
    ended, output = upscaled("ga16.tif", "tif")
    assert ended.code == 0
    like, made = read_picture(CASES / "ga16.tif"), read_picture(output)
    assert (made.metadata.is_grey, made.metadata.bit_depth) == (True, 16)
    assert (made.alpha is None) == (like.alpha is None)
    assert b"\x15\x01\x03\0\x01\0\0\0\x02\0" in output.read_bytes()  # samples a pixel: 2


def test_flat_colour_is_flat_to_its_corners(upscaled):
    ended, output = upscaled("flatred.png", "png", "-m", "cvdvae-x4", "-t", 0.8)
    assert ended.code == 0
    with Image.open(CASES / "flatred.png") as image:
        red = np.asarray(image)[0, 0].astype(int)
    with Image.open(output) as image:
        off = np.abs(np.asarray(image).astype(int) - red)
    middle = off[64:192, 64:192].max()
    for rows in (slice(0, 16), slice(-16, None)):
        for columns in (slice(0, 16), slice(-16, None)):
            assert off[rows, columns].max() <= max(middle, 10)


def test_empty_stays_empty(upscaled):
    ended, output = upscaled("sprite.png", "png", "-m", "cvdvae-x4", "-t", 0.8)
    assert ended.code == 0
    with Image.open(CASES / "sprite.png") as image:
        rows, columns = np.nonzero(np.asarray(image)[..., 3])
    with Image.open(output) as image:
        alpha = np.asarray(image)[..., 3].copy()
    reach = 2
    top, bottom = 4 * (rows.min() - reach), 4 * (rows.max() + 1 + reach)
    left, right = 4 * (columns.min() - reach), 4 * (columns.max() + 1 + reach)
    assert alpha[top:bottom, left:right].max() == 255
    alpha[top:bottom, left:right] = 0
    assert alpha.size > 0 and alpha.max() == 0


def test_a_map(upscaled):
    ended, output = upscaled("geo.tif", "tif")
    assert ended.code == 0
    with Image.open(output) as image:
        assert image.tag_v2[33550][:2] == (0.125, 0.125)


def test_bitfields(upscaled):
    assert upscaled("bmp_RGB565.bmp")[0].code == 0


def test_a_long_profile(upscaled, vdsr, tmp_path, tiny_path):
    ended, output = upscaled("bigicc.png")
    assert ended.code == 0 and len(metadata(output).icc_profile) == 1_500_000
    again = vdsr("upscale", output, "-o", tmp_path / "2.png", "-m", tiny_path, "-t", 0, "-s", 1)
    assert again.code == 0
    assert metadata(tmp_path / "2.png").icc_profile == metadata(output).icc_profile


def test_texts_of_an_image_generator(upscaled):
    ended, output = upscaled("text.png")
    assert ended.code == 0
    before = metadata(CASES / "text.png").png_chunks
    assert before and metadata(output).png_chunks == before


@pytest.mark.parametrize(("name", "part"), [("ultrahdr.jpg", "gain map"), ("motion.jpg", "video")])
def test_what_is_left_out_is_told(upscaled, name, part):
    ended, output = upscaled(name, "jpg")
    assert ended.code == 0 and part in ended.err
    data = output.read_bytes()
    for claim in (b"hdrgm:", b"MotionPhoto=", b"Container:Directory"):
        assert claim not in data


def test_a_missing_end_marker(upscaled):
    ended, _ = upscaled("cut_eoi.jpg")
    assert ended.code == 3 and "--truncated keep" in ended.err
    ended, output = upscaled("cut_eoi.jpg", "png", "--truncated", "keep")
    assert ended.code == 0 and output.exists() and "truncated" in ended.err


@pytest.mark.parametrize("name", ["ga16.tif", "rgb_f32.tif", "rgb8_webp.tif", "x.heic"])
def test_what_an_extra_reads_is_read_or_names_it(upscaled, name):
    ended, output = upscaled(name)
    if ended.code:
        assert ended.code == 3 and "pip install 'vdsr-cli[" in ended.err
    else:
        assert read_picture(output).metadata.bit_depth == (
            16 if "16" in name or "f32" in name else 8
        )
    assert len(ended.lines) <= 3


def test_a_folder_takes_what_can_be_read(vdsr, tmp_path, tiny_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, called in (("two.mpo", "two.mpo"), ("text.png", "text.dat"), ("sprite.png", "a.png")):
        (folder / called).write_bytes((CASES / name).read_bytes())
    (folder / "notes.txt").write_text("no picture")
    out = tmp_path / "out"
    ended = vdsr("upscale", folder, "-o", out, "-m", tiny_path, "-t", 0)
    assert ended.code == 0
    made = sorted(path.name for path in out.glob("*.png"))
    assert made == ["a_x4.png", "text_dat_x4.png", "two_x4.png"]
    assert "1 skipped" in ended.err
    lines = map(json.loads, (out / "vdsr-manifest.jsonl").read_text().splitlines())
    assert {Path(line["input"]).name: line["status"] for line in lines} == {
        "a.png": "done", "text.dat": "done", "two.mpo": "done", "notes.txt": "skipped",
    }  # fmt: skip


def test_no_metadata_but_the_profile(upscaled):
    ended, output = upscaled("nonascii_exif.jpg", "jpg", "--strip-metadata")
    assert ended.code == 0
    like = metadata(output)
    blocks = (like.exif, like.xmp, like.comment, like.photoshop, like.dpi)
    assert blocks == (None,) * 5 and like.png_chunks == ()
    ended, output = upscaled("bigicc.png", "png", "--strip-metadata")
    assert metadata(output).icc_profile


def test_a_pipe(vdsr, tmp_path, tiny_path):
    ended = vdsr(
        *("upscale", "-", "-o", tmp_path / "a.png", "-m", tiny_path, "-t", 0),
        stdin=(CASES / "text.png").read_bytes(),
    )
    assert ended.code == 0 and b"parameters" in (tmp_path / "a.png").read_bytes()
