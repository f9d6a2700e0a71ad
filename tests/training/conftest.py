"""Shared by the tests of training: one thread, and a folder with a picture."""

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture
def one_thread():
    """Torch works on one thread, so that sums come out the same."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def pictures(tmp_path):
    """A folder with a smooth random picture of 72x64 pixels."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
    rough.resize((72, 64), Image.Resampling.BICUBIC).save(folder / "a.png")
    return folder
