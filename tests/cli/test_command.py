"""What all commands share: -h, and retired spellings of options."""

import pytest


@pytest.mark.parametrize("path", [[], ["upscale"], ["weights", "list"], ["train", "vdvae"]])
def test_h_is_help(vdsr, path):
    short, long = vdsr(*path, "-h"), vdsr(*path, "--help")
    assert short.code == 0 and short.out == long.out and b"Usage" in short.out


def test_output_is_what_pixels_were_called(vdsr, tiny_path, save_picture, tmp_path):
    lr = save_picture(tmp_path / "lr.png")
    asked = ("upscale", lr, "-m", tiny_path, "-q", "-o")
    old = vdsr(*asked, tmp_path / "old.png", "--output=sample")
    new = vdsr(*asked, tmp_path / "new.png", "--pixels", "sample")
    assert (old.code, new.code) == (0, 0)
    assert old.lines == [
        "vdsr: --output is called --pixels now; --output will go with the next release"
    ]
    assert (tmp_path / "old.png").read_bytes() == (tmp_path / "new.png").read_bytes()


def test_output_is_what_a_files_option_was_called(vdsr, tmp_path):
    ended = vdsr("weights", "convert", tmp_path / "absent.th", "--output", "a.png")
    assert ended.lines[0].startswith("vdsr: --output is called --out now")
    assert ended.code == 2 and "a.png does not end in .safetensors" in ended.err


def test_words_after_two_dashes_are_left_alone(vdsr):
    ended = vdsr("upscale", "--dry-run", "--", "--output")
    assert ended.out.decode().startswith("--output -> ")
