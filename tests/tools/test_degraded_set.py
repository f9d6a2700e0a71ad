"""tools/degraded_set.py: what each of its options takes from a picture."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("tools/degraded_set.py")


@pytest.fixture
def degrade(script):
    """``degrade(hr, noise=...)``: an LR picture that has lost nothing else."""
    unharmed = {"blur": 0.0, "filter": "bicubic", "noise": 0.0, "quality": 100}

    def run(hr, **changes):
        settings = script.Settings(**{**unharmed, **changes})
        return np.array(script.degraded(hr, np.random.default_rng(0), settings)).astype(float)

    return run


@pytest.mark.parametrize("changes", [{}, {"blur": 1.6, "filter": "bilinear"}])
def test_a_flat_colour_stays(degrade, changes):
    hr = np.full((64, 96, 3), (90, 90, 90), np.uint8)
    assert np.array_equal(degrade(hr, **changes), np.full((16, 24, 3), 90))


def test_blur_and_a_wider_filter_soften_an_edge(degrade):
    hr = np.zeros((64, 64, 3), np.uint8)
    hr[:, 32:] = 200
    sharp, soft, softer = (
        np.ptp(degrade(hr, **changes)[8, 7:9, 0])
        for changes in ({}, {"blur": 1.6}, {"blur": 1.6, "filter": "bilinear"})
    )
    assert sharp > soft > softer > 100


def test_noise_has_the_deviation_asked_for(degrade):
    """In the luma: JPEG halves the chroma."""
    hr, luma = np.full((512, 512, 3), 128, np.uint8), np.array([0.299, 0.587, 0.114])
    expected = 5 * np.sqrt((luma**2).sum())
    assert (degrade(hr, noise=5.0) @ luma).std() == pytest.approx(expected, rel=0.05)
