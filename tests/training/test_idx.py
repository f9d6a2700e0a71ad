"""idx files: what is read, what is refused, and the pairs made of it."""

import gzip
import struct

import numpy as np
import pytest
import torch

from vdsr_cli.errors import InputError
from vdsr_cli.training.data import CropSpec
from vdsr_cli.training.idx import IdxStore, averaged, find_idx, read_idx_images
from vdsr_cli.training.world import World


def idx_bytes(pictures: np.ndarray) -> bytes:
    return b"\0\0\x08\x03" + struct.pack(">3I", *pictures.shape) + pictures.tobytes()


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_what_is_written_is_read(pictures, tmp_path, suffix):
    content = idx_bytes(pictures)
    path = tmp_path / f"train-images{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    assert find_idx(tmp_path, "train-images") == path
    assert np.array_equal(read_idx_images(path).numpy(), pictures)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"\0\0\x0d\x03" + content[4:],
        lambda content: content[:9],
        lambda content: b"",
        lambda content: content[:4] + struct.pack(">3I", 0, 28, 28),
        lambda content: content[:4] + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 28),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_damaged_file_is_refused(pictures, tmp_path, spoil, suffix):
    content = spoil(idx_bytes(pictures))
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(InputError, match=r"idx|bytes"):
        read_idx_images(path)


def test_a_damaged_gzip_is_refused(pictures, tmp_path):
    whole = gzip.compress(idx_bytes(pictures))
    for content in (whole[:-9], b"no gzip", whole[:40] + b"\0" * 40 + whole[80:]):
        (tmp_path / "a.gz").write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            read_idx_images(tmp_path / "a.gz")


def test_a_folder_without_the_file(tmp_path):
    with pytest.raises(InputError, match="no train-images") as caught:
        find_idx(tmp_path, "train-images")
    assert "dataset-fashion-mnist" in str(caught.value.hint)


def test_averages_are_rounded_once():
    block = torch.tensor([[[0, 1], [1, 1]], [[1, 1], [0, 0]], [[255] * 2] * 2], dtype=torch.uint8)
    assert averaged(block, 2).flatten().tolist() == [1, 1, 255]


def test_pairs_belong_together_and_are_shared_out(pictures, tmp_path):
    (tmp_path / "a").write_bytes(idx_bytes(pictures))
    store = IdxStore(tmp_path / "a", scale=2, size_px=28)
    assert len(store) == 5 and store.facts == {"copies": 5, "pixels": 5 * 28 * 28}
    spec = CropSpec(batch=4, lr_size=14, scale=2)
    hr, lr = store.batch(spec, torch.Generator().manual_seed(3))
    assert hr.shape == (4, 1, 28, 28) and torch.equal(averaged(hr[:, 0], 2), lr[:, 0])
    halves = [
        store.batch(
            CropSpec(batch=2, lr_size=14, scale=2),
            torch.Generator().manual_seed(3),
            World(rank=rank, size=2),
        )[0]
        for rank in (0, 1)
    ]
    assert sorted(map(tuple, torch.cat(halves).flatten(1).tolist())) == sorted(
        map(tuple, hr.flatten(1).tolist())
    )


def test_pictures_of_another_size_are_refused(pictures, tmp_path):
    (tmp_path / "a").write_bytes(idx_bytes(pictures[:, :20]))
    with pytest.raises(InputError, match="28x20, not 28x28"):
        IdxStore(tmp_path / "a", scale=2, size_px=28)
