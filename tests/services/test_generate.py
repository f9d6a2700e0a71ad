"""Pictures out of nothing: each is a function of model, seed, index and temperature alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from loaded import CPU, loaded_as
from published_vdvae import published_model

from vdsr_cli.errors import DeviceError, UsageError
from vdsr_cli.paths import Naming
from vdsr_cli.services.generate import (
    GenerateRequest,
    draw_pictures,
    grid_size,
    likely_batch,
    output_paths,
    picture_grid,
    size_of,
)


@pytest.fixture(params=["published", "compact"])
def prior(request, tiny_prior):
    if request.param == "compact":
        return tiny_prior
    return published_model()


def drawn(prior, indices, size=(16, 16), **facts):
    request = GenerateRequest(count=len(indices), **facts)
    return np.stack(list(draw_pictures(prior, indices, size, request, CPU)))


@pytest.mark.parametrize("output", ["mean", "sample"])
def test_a_sample_does_not_depend_on_the_others(prior, output):
    many = drawn(prior, range(7), output=output, batch_size=3)
    for chosen, batch in ((range(5), 5), ([3], 1), ([6, 3], 2)):
        few = drawn(prior, chosen, output=output, batch_size=batch).astype(int)
        # Arithmetic of another batch may round another way.
        assert np.abs(few - many[list(chosen)]).max() <= 1
    assert len({picture.tobytes() for picture in many}) == 7


def test_seeds_and_temperatures(prior):
    first = drawn(prior, range(2), seed=0)
    assert np.array_equal(first, drawn(prior, range(2), seed=0))
    assert not np.array_equal(first, drawn(prior, range(2), seed=1))
    mean = drawn(prior, range(2), temperature=0.0)
    assert np.array_equal(mean[0], mean[1])
    assert np.array_equal(mean, drawn(prior, range(2), temperature=0.0, seed=1))
    spread = [drawn(prior, range(8), temperature=t).std(axis=0).mean() for t in (0.3, 1.0)]
    assert 0 < spread[0] < spread[1]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("vdvae-x4-prior", "vdvae-x4-prior"),
        ("openai/ffhq256", "ffhq256"),
        ("hf://a/b/c.safetensors#sha256=" + "0" * 64, "c"),
        ("runs\\faces", "faces"),
        ("runs/faces/", "faces"),
        ("runs/a#b.safetensors", "a#b"),
        (".", "here"),
        ("..", "above"),
        ("./", "here"),
        ("../here/..", "above"),
    ],
)
def test_outputs_are_called_as_the_model_is(tmp_path, monkeypatch, name, stem):
    folder = tmp_path / "above" / "here"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert output_paths(Naming(tag="n4"), name, 4) == [Path(f"{stem}_n4.png")]


def test_any_size_is_cut_from_whole_cells(tiny_prior):
    prior = tiny_prior
    odd = drawn(prior, [2], size=(21, 50))
    assert odd.shape == (1, 21, 50, 3)
    assert np.array_equal(odd, drawn(prior, [2], size=(32, 64))[:, :21, :50])


def test_the_size_that_a_prior_makes(tiny_prior):
    compact = loaded_as("c", tiny_prior)
    fixed = loaded_as("openai/ffhq256", published_model())
    assert size_of(compact, GenerateRequest()) == (256, 256)
    assert size_of(compact, GenerateRequest(size=(10, 20))) == (10, 20)
    assert size_of(fixed, GenerateRequest()) == size_of(fixed, GenerateRequest(size=(16, 16)))
    with pytest.raises(UsageError, match="16x16 and of no other size"):
        size_of(fixed, GenerateRequest(size=(32, 32)))


class Hungry:
    """A prior that has room for ``most`` pictures at once."""

    cell_px = 16

    def __init__(self, prior, most):
        self.prior, self.most, self.batches = prior, most, []

    def __getattr__(self, name):
        return getattr(self.prior, name)

    def sample(self, batch, *arguments):
        self.batches.append(batch)
        if batch > self.most:
            raise torch.OutOfMemoryError
        return self.prior.sample(batch, *arguments)


def test_a_batch_is_halved_while_memory_runs_out(tiny_prior):
    prior = Hungry(tiny_prior, most=2)
    pictures = drawn(prior, range(5), batch_size=5)
    assert prior.batches == [5, 2, 2, 1]
    assert np.abs(pictures - drawn(prior.prior, range(5)).astype(int)).max() <= 1
    with pytest.raises(DeviceError, match="a picture of 16x16 does not fit into memory"):
        drawn(Hungry(prior, most=0), range(2))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_refused(tiny_prior, value):
    class Broken(Hungry):
        def sample(self, batch, *arguments):
            return self.prior.sample(batch, *arguments) * value

    with pytest.raises(DeviceError, match="not finite") as caught:
        drawn(Broken(tiny_prior, most=9), [0])
    assert caught.value.exit_code == 5


def test_large_maps_make_small_batches():
    class Wide:
        def widest_map(self, height, width):
            return 512 * height * width

    assert likely_batch(Wide(), (256, 256), CPU) == 2
    assert likely_batch(Wide(), (32, 32), CPU) == 24
    assert likely_batch(Wide(), (4096, 4096), CPU) == 1


def test_the_grid():
    pictures = [np.full((3, 4, 3), value, np.uint8) for value in range(5)]
    grid = picture_grid(pictures, 3)
    assert grid.shape == (8, 16, 3)
    assert grid_size(GenerateRequest(count=5), (3, 4)) == grid.shape[:2]
    assert grid_size(GenerateRequest(count=5, columns=9), (3, 4)) == (3, 28)
    assert [grid[0, 0, 0], grid[0, 6, 0], grid[7, 9, 0]] == [0, 1, 4]
    assert (grid[3:5] == 255).all() and (grid[5:, 12:] == 255).all()


def test_names_of_outputs(tmp_path):
    grid = Naming(tag="n5")
    assert [str(p) for p in output_paths(grid, "openai/ffhq256", 5)] == ["ffhq256_n5.png"]
    assert [str(p) for p in output_paths(grid, "a/b.safetensors", 5)] == ["b_n5.png"]
    assert output_paths(Naming(tag="n5", is_stdout=True), "m", 5) == [None]
    each = output_paths(Naming(tag="n2", folder=tmp_path, suffix=".webp"), "runs/mine/", 2)
    assert each == [tmp_path / "mine_s0.webp", tmp_path / "mine_s1.webp"]
