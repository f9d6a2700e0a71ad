"""benchmarks/survival.py counts what is read, refused and lost."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageCms

from vdsr_cli.images import Metadata

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


def test_timing_is_counted(survival, tmp_path):
    frames = [Image.new("RGB", (8, 6), (50 * i, 0, 0)) for i in range(3)]
    for name in ("a.gif", "b.webp", "c.png"):
        frames[0].save(
            tmp_path / name, save_all=True, append_images=frames[1:], duration=[40, 70, 100]
        )
    row = cells(survival.row(tmp_path, "same", is_listed=False))
    assert row[1:6] == ["3", "3", "0", "0", "3"] and row[11:] == ["3 of 3", "0"]


def test_a_loss_without_a_note_is_silent(survival, tmp_path, monkeypatch):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png", icc_profile=SRGB)
    opened = survival.open_pictures

    @contextmanager
    def forgetful(*arguments, **options):
        with opened(*arguments, **options) as picture:
            yield replace(picture, metadata=Metadata())

    monkeypatch.setattr(survival, "open_pictures", forgetful)
    row = cells(survival.row(tmp_path, "same", is_listed=False))
    assert row[6] == "0 of 1" and row[-1] == "1"


def test_what_nobody_expected_is_a_traceback(survival, tmp_path, monkeypatch):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")

    def broken(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr("vdsr_cli.images.decode._decode", broken)
    row = cells(survival.row(tmp_path, "same", is_listed=False))
    assert row[1:6] == ["1", "0", "0", "1", "0"]
