"""tools/sheet.py: where crops lie, and that every drawing and crop of the list makes a row."""

import tomllib

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("tools/sheet.py")


@pytest.mark.parametrize(
    "length, centre, side, expected",
    [(100, 50, 20, (40, 60)), (100, 5, 20, (0, 20)), (100, 98, 20, (80, 100)), (9, 4, 20, (0, 9))],
)
def test_a_window_stays_within_the_picture(script, length, centre, side, expected):
    part = script.window(length, centre, side)
    assert (part.start, part.stop) == expected


def test_the_middle_is_enlarged_pixel_by_pixel(script):
    rgb = np.arange(6 * 6 * 3, dtype=np.uint8).reshape(6, 6, 3)
    (whole,), (middle,) = script.rows_of("face", [("HR", rgb)], [1, 3])
    assert np.array_equal(whole.rgb, rgb)
    assert np.array_equal(middle.rgb, rgb[2:4, 2:4].repeat(3, 0).repeat(3, 1))
    assert middle.label == "face 300 %, HR"


def test_the_list_of_crops_is_read_and_names_drawings_there_are(script):
    rows = tomllib.loads(script.CROPS.read_text("utf-8"))["crops"]
    crops = [script.Crop(**row) for row in rows]
    assert len({crop.name for crop in crops}) == len(crops)
    for crop in crops:
        assert (crop.drawing is None) == (crop.file is not None and crop.set is not None)
        assert crop.drawing is None or script.scene_of(crop, [], 4).lr.shape == (3, 120, 120)


def test_a_crop_makes_rows_and_one_of_an_absent_set_none(
    script, tmp_path, tiny_path, save_picture, monkeypatch
):
    (tmp_path / "set").mkdir()
    save_picture(tmp_path / "set" / "one.png", 64, 48)
    crops = tmp_path / "crops.toml"
    crops.write_text(
        '[[crops]]\nname = "a"\nset = "set"\nfile = "one"\ncentre = [20, 20]\n'
        '[[crops]]\nname = "b"\nset = "absent"\nfile = "one"\ncentre = [20, 20]\n'
    )
    words = ["sheet", tmp_path / "out.png", "--models", tiny_path, tmp_path / "set"]
    monkeypatch.setattr("sys.argv", [*map(str, words), "--crops", str(crops)])
    script.main()
    with Image.open(tmp_path / "out.png") as sheet:
        assert sheet.width > 5 * 96 and sheet.height > 2 * 48
