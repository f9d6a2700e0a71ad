"""Likelihoods of pictures: what is scored, against the models' own ELBO, and in which words."""

import math

import numpy as np
import pytest
import torch
from loaded import CPU, loaded_as
from PIL import Image
from published_vdvae import TABLE, published_model

from vdsr_cli.bench import priors as bench_priors
from vdsr_cli.bench.priors import (
    PriorBenchRequest,
    find_datasets,
    run_prior_bench,
    score_batch,
)
from vdsr_cli.bench.run import Events
from vdsr_cli.errors import DeviceError
from vdsr_cli.images.resize import resized_crop
from vdsr_cli.sampling.noise import NoiseField, noise_of


def published(name="ffhq256"):
    return loaded_as(f"openai/{name}", published_model(name))


@pytest.fixture
def compact(tiny_prior):
    return loaded_as("tiny", tiny_prior)


@pytest.fixture
def photos(tmp_path, save_picture):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, size in enumerate([(16, 16), (40, 24), (16, 30)]):
        save_picture(folder / f"{index}.png", *size, seed=index)
    return folder


def run(priors, *paths, seeds=(0,)):
    request = PriorBenchRequest(datasets=find_datasets(paths), seeds=seeds)
    return run_prior_bench(request, priors, CPU, Events())


def pixels(path):
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)


@pytest.mark.parametrize("name", TABLE)
@torch.inference_mode()
def test_the_figures_are_the_models_own(photos, name):
    loaded = published(name)
    scored = run([loaded], photos / "0.png").pictures[0].scores
    noise = noise_of([NoiseField(seed=0)], (16, 16), CPU.device)
    elbo = loaded.model(pixels(photos / "0.png")[None] / 255, noise)
    nats = (elbo.distortion.sum() + elbo.rate.sum()).item() / (3 * 16 * 16)
    assert scored["nats_per_dim"] == pytest.approx(nats, rel=1e-6)
    assert scored["bits_per_dim"] == pytest.approx(nats / math.log(2), rel=1e-6)
    parts = scored["distortion_bits"] + scored["rate_bits"]
    assert parts == pytest.approx(scored["bits_per_dim"])
    cells = {key: value for key, value in scored.items() if key.startswith("rate_bits_cell_")}
    assert {key.rpartition("_")[2] for key in cells} == {"16", "4", "2", "1"}
    assert sum(cells.values()) == pytest.approx(scored["rate_bits"])


def test_a_picture_has_its_figure_in_whatever_set(photos):
    loaded = published()
    together = {score.picture: score.scores for score in run([loaded], photos).pictures}
    assert len(together) == 3
    for name, scores in together.items():
        alone = run([loaded], photos / f"{name}.png").pictures[0].scores
        assert alone["bits_per_dim"] == pytest.approx(scores["bits_per_dim"], rel=1e-5)


def test_importance_weights_and_webp_stand_beside_the_bound(photos):
    request = PriorBenchRequest(datasets=find_datasets([photos]), weights=2)
    report = run_prior_bench(request, [published()], CPU, Events())
    for score in report.pictures:
        assert score.scores["bits_iw"] == pytest.approx(score.scores["bits_per_dim"], rel=0.02)
        assert score.scores["bits_iw"] != score.scores["bits_per_dim"]
        assert score.scores["webp_bits"] > 0


def test_pictures_are_fitted_as_stated(photos):
    report = run([published()], photos / "0.png", photos / "1.png")
    exact, larger = (score.scores["bits_per_dim"] for score in report.pictures)
    by_hand = Image.open(photos / "1.png").resize((26, 16), Image.Resampling.BILINEAR)
    by_hand.crop((5, 0, 21, 16)).save(photos / "1.png")
    again = run([published()], photos / "1.png").pictures[0].scores["bits_per_dim"]
    assert again == pytest.approx(larger) and again != pytest.approx(exact, rel=1e-3)
    square = pixels(photos / "0.png")
    assert torch.equal(resized_crop(square, 16), square)


def test_a_picture_that_is_too_small_is_a_failure(photos, save_picture):
    save_picture(photos / "3.png", 30, 15)
    report = run([published()], photos)
    assert [failure.picture for failure in report.failures] == ["3"]
    assert "30x15 is too small for this prior, a side needs 16" in report.failures[0].error
    assert report.exit_code == 3
    assert report.datasets[0].pictures == 3


def test_low_bit_models_and_published_figures_are_told(photos):
    notes = run([published()], photos).notes
    assert notes[0] == "openai/ffhq256: 0.61 bits per dimension on FFHQ-256, 5 bits, as published"
    assert "3.5 levels" in notes[1] and "bins that overlap" in notes[2]
    assert len(run([published("imagenet64")], photos).notes) == 1


def test_seeds_make_a_mean_and_a_deviation(photos):
    row = run([published()], photos, seeds=(0, 1)).rows()[0]
    assert row.seeds == (0, 1) and row.pictures == 3
    assert row.scores["bits_per_dim"].std > 0


@torch.inference_mode()
def test_a_compact_prior_scores_whole_cells_at_the_pictures_own_size(compact, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 55, 3), np.uint8)).save(tmp_path / "a.png")
    scored = run([compact], tmp_path / "a.png").pictures[0]
    assert scored.megapixels == pytest.approx(32 * 48 / 1e6)
    noise = noise_of([NoiseField(seed=0)], (32, 48), CPU.device)
    elbo = compact.model(pixels(tmp_path / "a.png")[None, :, :32, :48] / 255, noise)
    nats = (elbo.distortion.sum() + elbo.rate.sum()).item() / (3 * 32 * 48)
    assert scored.scores["nats_per_dim"] == pytest.approx(nats, rel=1e-6)
    assert scored.scores["palette_bits"] == pytest.approx(scored.scores["bits_per_dim"])


def test_a_prior_takes_palettes(compact, tmp_path):
    Image.new("RGB", (48, 32), (10, 200, 30)).save(tmp_path / "plain.png")
    scores = run([compact], tmp_path / "plain.png").pictures[0].scores
    palette = (24 + 8) / (3 * 32 * 48)  # of one colour nothing is left to be said
    assert scores["palette_bits"] == pytest.approx(scores["rate_bits"] + palette, abs=1e-6)


@torch.inference_mode()
def test_pieces_of_a_large_picture_are_summed(compact, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 48, 3), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(bench_priors, "PIECE_PX", 32)
    scored = run([compact], tmp_path / "a.png").pictures[0]
    assert scored.megapixels == pytest.approx(64 * 48 / 1e6)
    nats, whole = 0.0, pixels(tmp_path / "a.png")[None] / 255
    for top, left in ((0, 0), (0, 32), (32, 0), (32, 32)):
        piece = whole[:, :, top : top + 32, left : left + 32]
        size = (piece.shape[2], piece.shape[3])
        noise = noise_of([NoiseField(seed=0)], size, CPU.device, origin=(top, left))
        elbo = compact.model(piece, noise)
        nats += (elbo.distortion.sum() + elbo.rate.sum()).item()
    assert scored.scores["nats_per_dim"] == pytest.approx(nats / whole.numel(), rel=1e-6)


def test_want_of_memory_is_one_line():
    class Hungry:
        cell_px = 16

        def posterior(self, image, noise):
            raise torch.OutOfMemoryError

    with pytest.raises(DeviceError, match="a picture does not fit into memory"):
        score_batch(Hungry(), torch.zeros(2, 3, 16, 16, dtype=torch.uint8), 0, CPU)
