"""A CUDA card does what the processor does, by recordings, on its own device."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from loaded import CPU, smooth
from PIL import Image
from published_vdvae import on_smallest_prior

from vdsr_cli.cuda_graph import CudaGraph
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling import cuda_graphs
from vdsr_cli.sampling.engine import SamplingSettings, fitting, sample_strips
from vdsr_cli.sampling.noise import NoiseField
from vdsr_cli.training.config import RunPlan
from vdsr_cli.training.data import PictureStore
from vdsr_cli.training.loop import TrainConfig, Trainer
from vdsr_cli.training.start import model_on_prior, prepared

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def whole_float32(monkeypatch):
    """Without TF32's ten bits, as ``choose_runtime`` leaves the card for float32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def cuda() -> Runtime:
    """The card, computing in float32 as the processor does."""
    return Runtime(device=torch.device("cuda"), dtype=torch.float32)


def drawn(model, lr: torch.Tensor, runtime: Runtime, **options) -> torch.Tensor:
    settings = SamplingSettings(**{"tile": 16, "overlap": 8, **options})
    strips = sample_strips(runtime.place(model), lr, settings, runtime)
    return torch.cat([strip.pixels.cpu() for strip in strips], dim=2)


def test_noise_is_the_same_to_the_bit():
    rows, columns = torch.arange(-3, 40, dtype=torch.int32), torch.arange(70, dtype=torch.int32)
    field = NoiseField(seed=7, sample=2)
    for draw in (field.normal, field.logistic):
        assert torch.equal(draw(3, rows, columns, 5), draw(3, rows.cuda(), columns.cuda(), 5).cpu())


@pytest.mark.parametrize("output", ["mean", "sample"])
@pytest.mark.parametrize("samples", [(0,), (0, 1, 2)])
def test_samples_are_the_processors(make_tiny, cuda, output, samples):
    options = {"output": output, "samples": samples}
    expected = drawn(make_tiny(), smooth(), CPU, **options)
    torch.testing.assert_close(
        drawn(make_tiny(), smooth(), cuda, **options), expected, atol=2e-3, rtol=0
    )


def test_samples_of_a_published_shape_are_the_processors(cuda):
    expected = drawn(on_smallest_prior("cvdvae"), smooth(9, 7), CPU, tile=None, overlap=None)
    found = drawn(on_smallest_prior("cvdvae"), smooth(9, 7), cuda, tile=None, overlap=None)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_a_batch_that_comes_again_is_replayed(make_tiny, cuda, monkeypatch):
    model, recorded = cuda.place(make_tiny()), []

    class Counted(CudaGraph):
        def __init__(self, *args, **kwargs):
            recorded.append(self)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(cuda_graphs, "CudaGraph", Counted)
    lrs = [smooth(64, 16 * n) for n in (2, 3, 2, 3)]
    found = [drawn(model, lr, cuda, batch_size=1, seed=i) for i, lr in enumerate(lrs * 2)]
    assert recorded, "batches of one shape came more often than twice"
    monkeypatch.setattr(cuda_graphs, "MOST_PIXELS", 0)
    for i, (lr, pixels) in enumerate(zip(lrs * 2, found, strict=True)):
        torch.testing.assert_close(
            pixels, drawn(model, lr, cuda, batch_size=1, seed=i), atol=1e-4, rtol=0
        )


def test_recordings_follow_the_noise_the_temperature_and_the_samples(make_tiny, cuda):
    model = cuda.place(make_tiny())
    for _ in range(4):
        for options in ({}, {"temperature": 0.0}, {"temperature": 0.3}, {"samples": (4, 5)}):
            found = drawn(model, smooth(16, 16), cuda, **options)
            torch.testing.assert_close(
                found, drawn(make_tiny(), smooth(16, 16), CPU, **options), atol=2e-3, rtol=0
            )


def test_memory_chooses_the_batch(make_tiny, cuda):
    model = cuda.place(make_tiny())
    many = fitting(SamplingSettings(), model, cuda)
    assert many == fitting(SamplingSettings(), model, cuda), "the same card chooses the same"
    assert many.batch_size > 1
    assert fitting(SamplingSettings(batch_size=3), model, cuda).batch_size == 3
    fixed = fitting(SamplingSettings(), cuda.place(on_smallest_prior("cvdvae")), cuda)
    assert fixed.batch_size > 1


@pytest.mark.parametrize("options", [["--scale", "4"], ["--scale", "3"], ["--scale", "6"]])
def test_upscale_makes_the_processors_picture(vdsr, tiny_path, tmp_path, save_picture, options):
    source = save_picture(tmp_path / "in.png", 50, 40, mode="RGBA")
    made = []
    for device in ("cpu", "cuda"):
        out = tmp_path / f"{device}.png"
        ended = vdsr(
            "upscale",
            source,
            "-o",
            out,
            "--model",
            tiny_path,
            "--device",
            device,
            "--dtype",
            "float32",
            *options,
        )
        assert ended.code == 0, ended.err
        made.append(np.asarray(Image.open(out)).astype(int))
    difference = np.abs(made[0] - made[1])
    assert difference.max() <= 2 and difference.mean() < 0.05


@pytest.fixture
def store(tmp_path, save_picture) -> PictureStore:
    folder = tmp_path / "pictures"
    folder.mkdir()
    paths = [save_picture(folder / f"{i}.png", 96, 80, seed=i) for i in range(2)]
    return PictureStore(paths, scale=4, min_lr_size=8)


def trained(model, store, folder, *, replayed: bool, dtype=torch.float32, **options) -> Trainer:
    config = {"steps": 8, "batch": 2, "lr_size": 8, "elbo_from": 4, "warmup": 2, "rate_warmup": 3}
    torch.manual_seed(0)
    trainer = Trainer(
        prepared(model),
        store,
        TrainConfig(**{**config, **options}),
        folder,
        device=torch.device("cuda"),
        compute=dtype,
        replayed=replayed,
    )
    trainer.run(RunPlan(save_every=100, log_every=1))
    return trainer


def test_replayed_steps_are_the_steps(make_tiny, store, tmp_path):
    one = trained(make_tiny(), store, tmp_path / "one", replayed=False)
    other = trained(make_tiny(), store, tmp_path / "other", replayed=True)
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(
            other.model.state_dict()[name], value, atol=1e-4, rtol=1e-3, msg=name
        )
    for name, value in one.ema.items():
        torch.testing.assert_close(other.ema[name], value, atol=1e-4, rtol=1e-3, msg=name)


def test_a_replayed_run_resumes(make_tiny, store, tmp_path):
    whole = trained(make_tiny(), store, tmp_path / "whole", replayed=True)
    first = trained(make_tiny(), store, tmp_path / "legs", replayed=True, steps=5)
    second = Trainer(
        prepared(make_tiny()),
        store,
        dataclasses.replace(first.config, steps=8),
        first.folder,
        device=first.device,
        compute=torch.float32,
        replayed=True,
    )
    second.resume(first.folder / "last.pt")
    second.run(RunPlan(save_every=100, log_every=1))
    for name, value in whole.ema.items():
        torch.testing.assert_close(second.ema[name], value, atol=1e-4, rtol=1e-3, msg=name)


def test_bad_steps_change_nothing(make_tiny, store, tmp_path):
    model = make_tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = trained(model, store, tmp_path / "run", replayed=True, skip_above=0.0)
    assert trainer.skipped == 8
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value.cpu(), before[name]), name


@pytest.mark.parametrize("replayed", [False, True])
def test_bfloat16_learns(make_tiny, store, tmp_path, replayed):
    options = {"steps": 60, "elbo_from": 0, "learning_rate": 3e-3, "batch": 8, "rate_warmup": 0}
    trainer = trained(
        make_tiny(), store, tmp_path / "run", replayed=replayed, dtype=torch.bfloat16, **options
    )
    lines = (trainer.folder / "log.jsonl").read_text().splitlines()
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in lines]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


@pytest.mark.parametrize("objective", ["cvdvae", "vdvae-sr"])
def test_published_shapes_train(store, tmp_path, objective):
    options = {"lr_size": 4, "elbo_from": 0, "rate_warmup": 0, "mean_weight": 0.0, "steps": 3}
    trained(on_smallest_prior(objective), store, tmp_path / "run", replayed=False, **options)


@pytest.mark.parametrize("objective", ["cvdvae", "vdvae-sr", "vdvae"])
def test_compact_systems_train_replayed(tiny_prior, store, tmp_path, objective):
    prior = copy.deepcopy(tiny_prior)
    model = prior if objective == "vdvae" else model_on_prior(objective, prior)
    options = {"elbo_from": 0, "rate_warmup": 0, "steps": 3, "mean_weight": 0.0}
    trainer = trained(model, store, tmp_path / "run", replayed=True, **options)
    assert trainer.skipped == 0
