"""tools/drawn_pictures.py: every kind is drawn, and one seed draws the same."""

import random

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def script(monkeypatch, load_script):
    monkeypatch.syspath_prepend("tools")
    return load_script("tools/drawn_pictures.py")


def test_plain_pictures_are_white_black_one_colour_or_a_straight_gradient(script):
    rng = random.Random(0)
    pictures = [np.asarray(script.plain(rng, 64)).astype(int) for _ in range(60)]
    flat = [p for p in pictures if not np.ptp(p, axis=(0, 1)).any()]
    assert {(255,) * 3, (0,) * 3} <= {tuple(p[0, 0]) for p in flat}
    assert 0 < len(flat) < len(pictures)
    for picture in pictures:
        for axis in (0, 1):
            steps = np.diff(picture, axis=axis)
            assert (steps.max((0, 1)) - steps.min((0, 1)) <= 1).all()


def test_drawings_and_pages_have_edges_and_are_the_same_again(script):
    for make in (script.drawing, lambda rng: script.page(rng, [])):
        first, again = (np.asarray(make(random.Random(1))) for _ in range(2))
        assert first.shape == (script.SIDE, script.SIDE, 3)
        assert np.array_equal(first, again)
        assert np.abs(np.diff(first.astype(int), axis=1)).max() > 60


def test_only_the_kinds_that_are_asked_for_are_drawn(script, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "sys.argv", ["_", str(tmp_path), "--count", "3", "--kinds", "plain", "--side", "96"]
    )
    script.main()
    rng = random.Random(0)
    for index in range(3):
        with Image.open(tmp_path / f"drawn{index:03}.png") as picture:
            assert picture.tobytes() == script.plain(rng, 96).tobytes()


def test_gradients_are_between_greys_every_third_time(script):
    rng = random.Random(0)
    pictures = [np.asarray(script.greyer(rng, 32)).astype(int) for _ in range(90)]
    greys = [p for p in pictures if not np.ptp(p, axis=2).any()]
    assert 20 < len(greys) < 60
    assert np.mean([np.ptp(p, axis=(0, 1)).any() for p in pictures]) > 0.95
