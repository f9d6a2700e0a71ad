"""benchmarks/survival.py counts what is read, refused and lost."""

import numpy as np
import pytest
from PIL import Image, ImageCms

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def survival(load_script):
    return load_script("benchmarks/survival.py")


def cells(row):
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_a_folder_is_counted(survival, tmp_path):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    image.save(tmp_path / "a.png", icc_profile=SRGB)
    image.save(tmp_path / "b.jpg", icc_profile=SRGB)
    Image.fromarray(rng.integers(0, 65536, (6, 8), np.uint16)).save(tmp_path / "c.png")
    (tmp_path / "d.txt").write_text("no picture")
    row = cells(survival.row(tmp_path, "same", is_listed=False))
    assert row[1:7] == ["4", "3", "1", "0", "3", "2 of 2"]
    assert row[9] == "1 of 1" and row[-1] == "0"


def test_a_loss_without_a_note_is_silent(survival, tmp_path, monkeypatch):
    from vdsr_cli.images.picture import Metadata

    Image.new("RGB", (8, 6)).save(tmp_path / "a.png", icc_profile=SRGB)
    read = survival.read_picture

    def forgetful(*arguments, **options):
        from dataclasses import replace

        return replace(read(*arguments, **options), metadata=Metadata())

    monkeypatch.setattr(survival, "read_picture", forgetful)
    row = cells(survival.row(tmp_path, "same", is_listed=False))
    assert row[6] == "0 of 1" and row[-1] == "1"


def test_what_nobody_expected_is_a_traceback(survival, tmp_path, monkeypatch):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")

    def broken(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr("vdsr_cli.images.decode._decode", broken)
    row = cells(survival.row(tmp_path, "same", is_listed=False))
    assert row[1:6] == ["1", "0", "0", "1", "0"]
