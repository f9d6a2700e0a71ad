"""``vdsr compare``: the page has both pictures; what cannot be compared is refused."""

import base64
import json
import os
import re
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page)[1])


def test_the_page_has_both_pictures_and_their_distance(vdsr, tmp_path):
    Image.new("RGB", (40, 24), (100, 100, 100)).save(tmp_path / "a.png")
    Image.new("L", (40, 24), 110).save(tmp_path / "b.png")
    ended = vdsr("compare", tmp_path / "a.png", tmp_path / "b.png")
    assert ended.out.decode().split() == [str(tmp_path / "a_b.html")]
    shown = data_of((tmp_path / "a_b.html").read_text())
    assert ["PSNR", "28.13 dB"] in shown["facts"]
    assert [layer["label"] for layer in shown["results"]] == ["a.png", "b.png"]
    assert shown["input"] is None and shown["deviations"] == shown["figures"] == []
    for layer, level in zip(shown["results"], (100, 110), strict=True):
        stored = base64.b64decode(layer["src"].partition(",")[2])
        with Image.open(BytesIO(stored)) as picture:
            assert picture.size == (40, 24)
            assert np.abs(np.asarray(picture, int) - level).max() <= 2


@pytest.mark.parametrize(
    ("size", "name", "code", "told"),
    [
        ((8, 9), "page.html", 3, "is 8x8"),
        ((8, 8), "b.png", 2, "b.png"),
        (None, "page.html", 3, "b"),
    ],
)
def test_what_cannot_be_compared(vdsr, tmp_path, size, name, code, told):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    if size:
        Image.new("RGB", size).save(tmp_path / "b.png")
    ended = vdsr("compare", tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / name)
    assert ended.code == code and told in ended.err
    assert not (tmp_path / "page.html").exists()


def test_a_page_that_is_there_is_kept(vdsr, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "page.html").write_text("mine")
    asked = ("compare", tmp_path / "a.png", tmp_path / "a.png", "-o", tmp_path / "page.html")
    assert vdsr(*asked).code == 6 and (tmp_path / "page.html").read_text() == "mine"
    assert vdsr(*asked, "--overwrite").code == 0


def test_the_page_of_what_has_no_name(vdsr, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = vdsr("compare", ".", "b.png")
    assert ended.code == 3 and ended.lines == ["vdsr: .: cannot be read: it is a folder"]


HUNGRY = """
import resource, sys
from pathlib import Path
from PIL import Image
from vdsr_cli.services.compare import compare_pictures

def peak_bytes(side):
    path = Path(f"{side}.png")
    Image.new("RGB", (side, side), (9, 99, 199)).save(path)
    compare_pictures(path, path, Path("page.html"), replace=True)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

print(peak_bytes(64), peak_bytes(3000))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX measures it")
def test_memory_is_that_of_one_picture_and_some_rows(tmp_path):
    """12 bytes a pixel of one picture as floats, 3 of each as levels, 3 of what is read."""
    done = subprocess.run(
        [sys.executable, "-c", HUNGRY],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        capture_output=True,
    )
    small, large = map(int, done.stdout.split())
    assert large - small < 40 * 3000**2
