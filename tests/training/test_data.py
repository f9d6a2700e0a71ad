"""Training pictures: every crop's LR is the degradation of its HR, under every symmetry."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vdsr_cli.consistency import degrade, degrade_8bit
from vdsr_cli.errors import InputError, OutputError, VdsrError
from vdsr_cli.training.data import CropSpec, PictureStore, find_pictures

SYMMETRIES = 8


def smooth(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """A picture from which nothing saturates, uint8."""
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(60, 196, (height // 8, width // 8, 3), np.uint8))
    return np.asarray(rough.resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def paths(tmp_path):
    """Two pictures whose sides are no multiples of the scale."""
    found = []
    for index, (height, width) in enumerate([(101, 130), (83, 66)]):
        path = tmp_path / f"{index}.png"
        Image.fromarray(smooth(height, width, seed=index)).save(path)
        found.append(path)
    return found


@pytest.fixture
def store(paths):
    return PictureStore(paths, scale=4, rescales=(1.0, 0.7), min_lr_size=8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shapes_and_kinds(store):
    hr, lr = store.batch(CropSpec(batch=5, lr_size=8, scale=4), generator())
    assert hr.shape == (5, 3, 32, 32) and lr.shape == (5, 3, 8, 8)
    assert hr.dtype == lr.dtype == torch.uint8


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_crops_match_their_lr(paths, scale):
    """Away from the crop's border, A of it is its LR up to the two roundings to 8 bits."""
    store = PictureStore(paths, scale=scale, min_lr_size=12)
    hr, lr = store.batch(CropSpec(batch=64, lr_size=12, scale=scale), generator())
    again = degrade(hr.double(), scale)[:, :, 2:-2, 2:-2]
    assert (again - lr[:, :, 2:-2, 2:-2]).abs().max() < 1.5
    assert (again - lr[:, :, 2:-2, 2:-2]).abs().mean() < 0.5


@pytest.mark.parametrize(("symmetries", "count"), [("all", SYMMETRIES), ("mirror", 2), ("none", 1)])
def test_every_symmetry_is_drawn_and_is_the_same_for_both(tmp_path, symmetries, count):
    """One crop is the whole picture, so only its symmetry is left to chance."""
    pixels = smooth(32, 32)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    store = PictureStore([tmp_path / "a.png"], scale=4, min_lr_size=8)
    spec = CropSpec(batch=200, lr_size=8, scale=4, symmetries=symmetries)
    hr, lr = store.batch(spec, generator())
    whole = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    small = degrade_8bit(whole[None], 4)[0]
    seen = set()
    for one_hr, one_lr in zip(hr, lr, strict=True):
        matching = [
            k
            for k in range(SYMMETRIES)
            if torch.equal(one_hr, symmetry(whole, k)) and torch.equal(one_lr, symmetry(small, k))
        ]
        assert len(matching) == 1
        seen.update(matching)
    assert len(seen) == count
    if symmetries == "mirror":
        assert any(torch.equal(picture, whole.flip(2)) for picture in hr)


def symmetry(pixels: torch.Tensor, which: int) -> torch.Tensor:
    if which & 1:
        pixels = pixels.flip(1)
    if which & 2:
        pixels = pixels.flip(2)
    return pixels.transpose(1, 2) if which & 4 else pixels


def test_crops_are_cut_from_the_pictures_edge_to_edge(tmp_path):
    """Every position is possible, the last row and column too, and none beyond."""
    Image.new("RGB", (48, 40), (9, 9, 9)).save(tmp_path / "dark.png")
    rows, columns = np.mgrid[:40, :48]
    Image.fromarray(np.stack([rows, columns, rows * 0 + 200], -1).astype(np.uint8)).save(
        tmp_path / "places.png"
    )
    store = PictureStore([tmp_path / "dark.png", tmp_path / "places.png"], scale=4, min_lr_size=8)
    hr, _ = store.batch(CropSpec(batch=600, lr_size=8, scale=4), generator())
    places = hr[hr[:, 2, 0, 0] == 200].flatten(2)
    is_dark = (hr == 9).flatten(1).all(1)
    assert len(places) + int(is_dark.sum()) == 600, "no crop straddles two pictures"
    tops, lefts = places[:, 0].min(1).values, places[:, 1].min(1).values
    assert set(tops.tolist()) == {0, 4, 8} and set(lefts.tolist()) == {0, 4, 8, 12, 16}
    assert 200 < len(places) < 400


def test_whole_pictures_are_resized_and_cut(tmp_path):
    """As torchvision's Resize and CenterCrop; one that would have to be enlarged is left out."""
    left, right = (Image.new("RGB", (64, 128), (level,) * 3) for level in (40, 200))
    wide = Image.new("RGB", (192, 128), (120,) * 3)
    wide.paste(left, (0, 0))
    wide.paste(right, (128, 0))
    wide.save(tmp_path / "wide.png")
    Image.new("RGB", (31, 99)).save(tmp_path / "narrow.png")
    store = PictureStore(find_pictures([tmp_path]), scale=4, min_lr_size=8, is_fitted=True)
    assert store.sizes.tolist() == [[8, 8]]
    hr, lr = store.batch(CropSpec(batch=1, lr_size=8, scale=4, symmetries="none"), generator())
    small = wide.resize((48, 32), Image.Resampling.BILINEAR).crop((8, 0, 40, 32))
    assert np.array_equal(hr[0].permute(1, 2, 0), np.asarray(small))
    assert torch.equal(lr, degrade_8bit(hr, 4))


def test_larger_pictures_are_drawn_more_often(tmp_path):
    for name, side, level in (("small", 32, 10), ("large", 96, 200)):
        Image.new("RGB", (side, side), (level,) * 3).save(tmp_path / f"{name}.png")
    store = PictureStore(find_pictures([tmp_path]), scale=4, min_lr_size=8)
    hr, _ = store.batch(CropSpec(batch=2000, lr_size=8, scale=4), generator())
    share = (hr[:, 0, 0, 0] == 200).float().mean()
    assert share == pytest.approx(0.9, abs=0.03)


def test_one_generator_gives_one_batch(store):
    spec = CropSpec(batch=16, lr_size=8, scale=4)
    first, again = store.batch(spec, generator(3)), store.batch(spec, generator(3))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], store.batch(spec, generator(4))[0])
    torch.manual_seed(5)
    assert torch.equal(first[0], store.batch(spec, generator(3))[0])


def test_a_store_is_saved_and_loaded_whole(store, tmp_path):
    store.save(tmp_path / "store.safetensors")
    again = PictureStore.load(tmp_path / "store.safetensors")
    assert (again.scale, again.megapixels) == (store.scale, store.megapixels)
    assert torch.equal(again.sizes, store.sizes) and torch.equal(again.offsets, store.offsets)
    spec = CropSpec(batch=16, lr_size=8, scale=4)
    for a, b in zip(store.batch(spec, generator()), again.batch(spec, generator()), strict=True):
        assert torch.equal(a, b)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_rescaled_copies_are_pairs_of_their_own(store):
    assert len(store.sizes) == 4
    areas = [int(height * width) for height, width in store.sizes]
    assert areas[1] < areas[0] and areas[3] < areas[2]
    assert len(store.hr) == 16 * len(store.lr) == 16 * sum(areas)


@pytest.mark.parametrize(("lr_size", "scale"), [(30, 4), (8, 2)])
def test_crops_that_the_store_cannot_give_are_refused(store, lr_size, scale):
    """Larger than its smallest picture, or of another scale than its pairs."""
    with pytest.raises((VdsrError, ValueError)):
        store.batch(CropSpec(batch=2, lr_size=lr_size, scale=scale), generator())


def test_pictures_that_are_missing_too_small_or_unreadable(tmp_path, paths):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures"):
        PictureStore(find_pictures([tmp_path / "empty"]), scale=4, min_lr_size=1)
    with pytest.raises(InputError, match="400 pixels"):
        PictureStore(paths, scale=4, min_lr_size=100)
    (tmp_path / "junk.png").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"junk\.png"):
        PictureStore([tmp_path / "junk.png"], scale=4, min_lr_size=1)
    with pytest.raises(InputError, match=r"gone\.png"):
        PictureStore([tmp_path / "gone.png"], scale=4, min_lr_size=1)


def test_those_left_out_are_told(tmp_path, paths):
    (tmp_path / "junk.png").write_bytes(b"junk")
    told = []
    both = [tmp_path / "junk.png", *paths]
    store = PictureStore(both, scale=4, min_lr_size=1, on_left_out=told.append)
    assert torch.equal(store.hr, PictureStore(paths, scale=4, min_lr_size=1).hr)
    assert len(told) == 1 and "junk.png" in told[0]
    with pytest.raises(InputError, match=r"junk\.png"):
        PictureStore(both[:1], scale=4, min_lr_size=1, on_left_out=told.append)


def test_folders_are_searched_in_a_fixed_order(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("b/c/1.PNG", "b/2.jpg", "b/3.heic", "b/4.gif", "a.webp", "b/notes.txt"):
        (tmp_path / name).write_bytes(b"")
    found = find_pictures([tmp_path / "b", tmp_path / "a.webp"])
    names = [str(p.relative_to(tmp_path)) for p in found]
    assert names == ["a.webp", "b/2.jpg", "b/3.heic", "b/c/1.PNG"]


def test_a_store_never_replaces_a_file(store, tmp_path):
    path = tmp_path / "store"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="has appeared"):
        store.save(path)
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "change",
    [
        {"sizes": torch.tensor([[8, 9]])},
        {"sizes": torch.zeros(0, 2, dtype=torch.int64)},
        {"sizes": torch.tensor([[-8, -8]])},
        {"sizes": torch.tensor([[2**62, 4]])},
        {"sizes": torch.tensor([8.0, 8.0])},
        {"hr": torch.zeros(1024, 3)},
        {"lr": torch.zeros(64, 4, dtype=torch.uint8)},
        {"scale": "0"},
        {"scale": "four"},
    ],
)
def test_a_file_that_is_no_store_is_refused(tmp_path, change):
    sound = {
        "hr": torch.zeros(1024, 3, dtype=torch.uint8),
        "lr": torch.zeros(64, 3, dtype=torch.uint8),
        "sizes": torch.tensor([[8, 8]]),
        "scale": "4",
    }
    path = tmp_path / "store"
    for content in (sound, sound | change):
        tensors = {name: value for name, value in content.items() if name != "scale"}
        save_file(tensors, path, metadata={"scale": content["scale"]})
        if content is sound:
            assert PictureStore.load(path).scale == 4
    with pytest.raises(InputError, match="not a store"):
        PictureStore.load(path)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_kind_of_picture_is_three_channels(tmp_path, mode):
    Image.fromarray(smooth(32, 32)).convert(mode).save(tmp_path / "a.tiff")
    store = PictureStore([tmp_path / "a.tiff"], scale=4, min_lr_size=8)
    assert store.hr.shape == (32 * 32, 3)


def test_a_store_is_read_back_as_it_was_written(store, tmp_path):
    path = tmp_path / "no" / "such" / "store"
    store.save(path)
    spec = CropSpec(batch=4, lr_size=8, scale=4)
    for kept, again in zip(
        store.batch(spec, generator()),
        PictureStore.load(path).batch(spec, generator()),
        strict=True,
    ):
        assert torch.equal(kept, again)


def test_deep_pictures_are_scaled_and_not_cut_off(tmp_path):
    """8, 16 and floating-point bits of the same grey picture are the same to train on."""
    grey = smooth(64, 64)[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    Image.fromarray(grey.astype(np.float32) / 255).save(tmp_path / "f.tiff")
    stores = [PictureStore([path], scale=4, min_lr_size=8) for path in find_pictures([tmp_path])]
    assert len(stores) == 3
    assert torch.equal(stores[0].hr, stores[1].hr) and torch.equal(stores[0].hr, stores[2].hr)


def test_a_picture_of_no_numbers_is_refused(tmp_path):
    values = np.full((64, 64), np.nan, np.float32)
    Image.fromarray(values).save(tmp_path / "nan.tiff")
    with pytest.raises(InputError, match=r"nan\.tiff: .*not finite"):
        PictureStore([tmp_path / "nan.tiff"], scale=4, min_lr_size=8)


def test_a_picture_that_is_damaged_or_huge_is_one_line(tmp_path, paths):
    whole = paths[0].read_bytes()
    bomb = tmp_path / "bomb.ppm"
    bomb.write_bytes(b"P6 100000 100000 255 ")
    for index, data in enumerate((whole[:40], whole[:-30], whole[:8], whole[:60] + bytes(400))):
        (tmp_path / f"bad{index}.png").write_bytes(data)
    for path in (bomb, *tmp_path.glob("bad*.png")):
        with pytest.raises(InputError, match=path.name):
            PictureStore([path], scale=4, min_lr_size=8)
