"""The training loop: legs compose bit for bit, bad steps change nothing, the bound falls."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from vdsr_cli.loading import load_network
from vdsr_cli.models.widening import coupled
from vdsr_cli.services.train import export, train
from vdsr_cli.training.data import PictureStore
from vdsr_cli.training.loop import RunPlan, TrainConfig, Trainer, vdvae_sr_losses
from vdsr_cli.training.request import TrainRequest
from vdsr_cli.training.run_folder import read_log
from vdsr_cli.weights import read_safetensors
from vdsr_cli.weights.runs import read_checkpoint

CONFIG = TrainConfig(steps=6, batch=2, lr_size=8, warmup=2, elbo_from=1, learning_rate=2e-3)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(2):
        rng = np.random.default_rng(index)
        rough = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
        rough.resize((72, 64), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def trainer(pictures, tmp_path, make_tiny):
    """``trainer("name", steps=6, ...)``: a trainer of the tests' model in its own folder."""

    def make(name: str, model=None, **options) -> Trainer:
        store = PictureStore(sorted(pictures.iterdir()), scale=4, min_lr_size=8)
        return Trainer(
            (model or make_tiny()).requires_grad_(True).train(),
            store,
            dataclasses.replace(CONFIG, **options),
            tmp_path / name,
            device=torch.device("cpu"),
            compute=torch.float32,
        )

    return make


def run(trainer: Trainer, *, save_every: int = 1000) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    trainer.run(RunPlan(save_every=save_every, log_every=1, on_log=rows.append))
    return rows


def test_two_legs_are_one_run_bit_for_bit(trainer):
    whole = trainer("whole")
    run(whole)
    first = trainer("legs", steps=3)
    run(first)
    second = trainer("legs")
    second.resume(first.folder / "last.pt")
    assert second.step == 3
    run(second)
    assert second.step == whole.step == 6
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    for name, value in whole.ema.items():
        assert torch.equal(value, second.ema[name]), name
    moments = [t.optimizer.state_dict()["state"] for t in (whole, second)]
    for one, other in zip(*(m.values() for m in moments), strict=True):
        assert torch.equal(one["exp_avg_sq"], other["exp_avg_sq"])


def test_the_log_is_appended_leg_by_leg(trainer):
    run(trainer("legs", steps=2))
    second = trainer("legs", steps=4)
    second.resume(second.folder / "last.pt")
    run(second)
    rows = [json.loads(line) for line in (second.folder / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(math.isfinite(row["loss"]) and row["seconds_per_step"] > 0 for row in rows)
    assert rows[0]["rate_bits"] == 0 < rows[1]["rate_bits"], "the ELBO begins with step elbo_from"


def test_a_plateau_lowers_the_rate_and_is_resumed(trainer):
    def figures(model, step):
        return {"val_loss": 1.0}

    options = {"schedule": "plateau", "warmup": 0}
    plan = {"save_every": 1000, "log_every": 1, "validate_every": 1, "validate": figures}
    rates = []
    for steps in (4, 12):
        leg = trainer("plateau", steps=steps, **options)
        if steps > 4:
            leg.resume(leg.folder / "last.pt")
        leg.run(RunPlan(**plan, on_log=lambda row: rates.append(row.get("learning_rate"))))
    found = [rate for rate in rates if rate is not None]
    assert found[:7] == [2e-3] * 7 and found[7:] == pytest.approx([2e-4] * 5)


def test_another_seed_is_another_run(trainer):
    a, b = trainer("a"), trainer("b", seed=1)
    run(a), run(b)
    names = [n for n, v in a.model.state_dict().items() if torch.equal(v, b.model.state_dict()[n])]
    assert names == []


def test_the_bound_falls(trainer):
    rows = run(trainer("toy", steps=30, elbo_from=0, batch=4, learning_rate=3e-3))
    bits = [row["distortion_bits"] + row["rate_bits"] for row in rows]
    assert all(math.isfinite(value) for value in bits)
    assert sum(bits[-5:]) < 0.8 * sum(bits[:5])


def test_the_rate_comes_to_weigh(trainer):
    rows = run(trainer("toy", steps=4, rate_warmup=2, mean_weight=0.0))
    weights = [(row["loss"] - row["distortion_bits"]) / row["rate_bits"] for row in rows[1:]]
    assert weights == pytest.approx([0, 0.5, 1], abs=1e-3)


def test_the_mean_path_alone_learns_too(trainer):
    rows = run(trainer("toy", steps=30, elbo_from=10_000, batch=4, learning_rate=3e-3))
    errors = [row["mean_l1"] for row in rows]
    assert sum(errors[-5:]) < 0.9 * sum(errors[:5])
    assert all(row["rate_bits"] == 0 for row in rows)


@pytest.mark.parametrize("limit", [0.0, math.inf])
def test_a_bad_step_changes_nothing(trainer, monkeypatch, limit):
    """Too large a gradient, or one that is not finite."""
    bad = trainer("bad", skip_above=limit)
    if limit == math.inf:
        real = torch.nn.utils.clip_grad_norm_

        def poisoned(parameters, *arguments):
            parameters = list(parameters)
            parameters[0].grad.fill_(torch.nan)
            return real(parameters, *arguments)

        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", poisoned)
    before = {name: value.clone() for name, value in bad.model.state_dict().items()}
    average = {name: value.clone() for name, value in bad.ema.items()}
    bad.train_step()
    assert (bad.step, bad.skipped) == (1, 1)
    assert all(torch.equal(before[n], v) for n, v in bad.model.state_dict().items())
    assert all(torch.equal(average[n], v) for n, v in bad.ema.items())


def test_the_average_follows(trainer):
    one = trainer("one", ema_decay=0.5)
    before = {name: value.clone() for name, value in one.ema.items()}
    one.train_step()
    parameters = dict(one.model.named_parameters())
    for name, value in one.ema.items():
        decay = min(0.5, 1 / 10)
        expected = decay * before[name] + (1 - decay) * parameters[name].detach()
        assert torch.allclose(value, expected, atol=1e-6), name


def test_losses_are_per_dimension_bits(make_tiny):
    model = make_tiny()
    generator = torch.Generator().manual_seed(0)
    hr = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator)
    lr = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=generator)

    def noise(shape):
        seeded = torch.Generator().manual_seed(shape.layer)
        side = 32 // shape.cell
        return torch.randn(2, shape.channels, side, side, generator=seeded)

    losses = vdvae_sr_losses(model, hr, lr, noise, 10.0)
    elbo, mean = model.elbo_and_mean(hr / 127.5 - 1, lr / 255, noise)
    dimensions = 3 * 32 * 32 * math.log(2)
    distortion = elbo.distortion.mean().item() / dimensions
    rate = elbo.rate.sum(0).mean().item() / dimensions
    assert losses.distortion.item() == pytest.approx(distortion, rel=1e-4)
    assert losses.rate.item() == pytest.approx(rate, rel=1e-4)
    mean_l1 = (mean - (hr / 127.5 - 1)).abs().mean().item()
    assert losses.mean_l1.item() == pytest.approx(mean_l1, rel=1e-4)
    expected = losses.distortion + losses.rate + 10 * losses.mean_l1
    assert losses.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_saving_leaves_one_file(trainer):
    one = trainer("one", steps=2, elbo_from=0)
    run(one, save_every=1)
    assert sorted(p.name for p in one.folder.iterdir()) == ["last.pt", "log.jsonl"]


def test_a_run_becomes_a_model_that_upscales(pictures, tmp_path, vdsr, save_picture):
    request = TrainRequest(
        sources=(pictures,),
        out=tmp_path / "run",
        preset="vdvae-sr-x4-tiny",
        config=dataclasses.replace(CONFIG, steps=1, batch=1, lr_size=8),
        rescale=(1.0,),
        store=tmp_path / "store.safetensors",
    )
    trained = train(request)
    assert (tmp_path / "store.safetensors").exists()
    longer = dataclasses.replace(request, config=dataclasses.replace(request.config, steps=2))
    assert train(longer).step == 2, "the run in the folder is taken up"
    export(tmp_path / "run" / "last.pt", tmp_path / "m.safetensors", card={"by": "a test"})
    checkpoint = read_safetensors(tmp_path / "m.safetensors")
    assert checkpoint.metadata["degradation"] == "bicubic"
    assert (checkpoint.metadata["by"], checkpoint.metadata["step"]) == ("a test", 2)
    assert checkpoint.state.keys() == trained.model.state_dict().keys()
    save_picture(tmp_path / "a.png")
    ended = vdsr("upscale", tmp_path / "a.png", "-m", tmp_path / "m.safetensors")
    assert ended.code == 0, ended.err


def test_the_command_trains_and_exports(pictures, tmp_path, vdsr):
    run_folder, out = tmp_path / "run", tmp_path / "m.safetensors"
    options = ["--preset", "vdvae-sr-x4-tiny", "--steps", 1, "--batch", 1, "--lr-size", 8]
    ended = vdsr("train", "vdvae-sr", pictures, "--out", run_folder, *options)
    assert ended.code == 0, ended.err
    ended = vdsr("train", "export", run_folder, "-o", out)
    assert ended.code == 0 and out.exists()
    leg = read_safetensors(out).metadata["legs"][0]
    assert leg["command"].startswith("vdsr train vdvae-sr pictures --out run --preset"), leg
    assert str(tmp_path) not in out.read_bytes().decode("latin-1"), "a model tells no folders"
    assert str(tmp_path) not in out.with_suffix(".md").read_text()


def test_other_weights_are_blended_in(trainer, tmp_path, vdsr):
    runs = [trainer(name, seed=seed) for seed, name in enumerate(("one", "other"))]
    for one in runs:
        run(one)
    out = tmp_path / "m.safetensors"
    ended = vdsr("train", "export", runs[0].folder, "-o", out, "--blend", f"{runs[1].folder}=0.25")
    assert ended.code == 0, ended.err
    checkpoint = read_safetensors(out)
    assert checkpoint.metadata["blend"] == {"other": 0.25}
    for name, value in checkpoint.state.items():
        expected = 0.75 * runs[0].ema[name] + 0.25 * runs[1].ema[name]
        torch.testing.assert_close(value, expected.to(torch.bfloat16), msg=name)


def test_a_blend_with_a_model_that_couples_no_colours_keeps_the_coupling(
    trainer, make_tiny, tmp_path, vdsr
):
    runs = [trainer("one", coupled(make_tiny())), trainer("other", seed=1)]
    for one in runs:
        run(one)
    out = tmp_path / "m.safetensors"
    ended = vdsr("train", "export", runs[0].folder, "-o", out, "--blend", f"{runs[1].folder}=0.25")
    assert ended.code == 0, ended.err
    state = read_safetensors(out).state
    assert state["coupling.bias"].any() and state["neighbours.weight"].any()
    for name, value in state.items():
        others = runs[1].ema if name in runs[1].ema else runs[0].ema
        expected = 0.75 * runs[0].ema[name] + 0.25 * others[name]
        torch.testing.assert_close(value, expected.to(torch.bfloat16), msg=name)


def test_the_likelihood_alone_trains_and_pictures_stay(pictures, tiny_path, tmp_path, vdsr):
    run = tmp_path / "run"
    options = ["--from", tiny_path, "--coupled", "--likelihood-only", "--val-every", 0]
    options += ["--lr-size", 8, "--cooldown", 0, "--ema-decay", 0.5, "-o", run]
    ended = vdsr("train", "vdvae-sr", pictures, "--steps", 50, *options)
    assert ended.code == 0, ended.err
    resumed = vdsr("train", "vdvae-sr", pictures, "--steps", 200, *options)
    assert resumed.code == 0, resumed.err
    bits = [row["distortion_bits"] + row["rate_bits"] for row in read_log(run)]
    assert bits[-1] < bits[0] - 0.1
    before, after = (load_network(str(path)).state_dict() for path in (tiny_path, run / "last.pt"))
    means = len(before["head.weight"]) // 2
    likelihood = ("hr_encoder.", "coupling.", "neighbours.", "before.")
    for name, value in after.items():
        if name.startswith("head."):
            assert torch.equal(value[:means], before[name][:means])
            assert not torch.equal(value[means:], before[name][means:])
        elif not name.startswith(likelihood) and ".enc." not in name:
            assert torch.equal(value, before[name]), name


def test_a_priors_likelihood_alone_trains_and_its_latents_hold_the_lr_picture(
    pictures, tiny_prior, tiny_prior_path, tmp_path, vdsr
):
    run = tmp_path / "run"
    options = ["--from", tiny_prior_path, "--val-every", 0, "-o", run]
    options += ["--coupled", "--likelihood-only", "--steps", 40, "--cooldown", 0, "--lr-size", 8]
    options += ["--ema-decay", 0.5]
    ended = vdsr("train", "vdvae", pictures, *options)
    assert ended.code == 0, ended.err
    before, after = tiny_prior.state_dict(), load_network(str(run / "last.pt")).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    cells = [level.cell for level in tiny_prior.config.levels]
    fine = tuple(f"levels.{i}." for i, cell in enumerate(cells) if cell < tiny_prior.scale)
    heads = {"head.weight", "head.bias"}
    assert changed > heads and after["before.network.6.weight"].any()
    assert all(name.startswith(fine) and ".enc." in name for name in changed - heads)


@pytest.mark.parametrize("wrong", [["--adversarial", 0], ["--elbo-from", 5], ["--weight-decay", 1]])
def test_the_likelihood_alone_trains_by_the_elbo(wrong, pictures, tiny_path, tmp_path, vdsr):
    options = ["--from", tiny_path, "--likelihood-only", "--lr-size", 8, "-o", tmp_path / "run"]
    ended = vdsr("train", "vdvae-sr", pictures, *options, *wrong)
    assert ended.code == 2 and "--likelihood-only" in ended.err


def test_the_average_of_the_mean_path_is_kept_for_a_blend(trainer, tmp_path, vdsr):
    short = trainer("short", steps=2, elbo_from=2)
    run(short)
    long = trainer("long", steps=4, elbo_from=2)
    run(long)
    assert not (short.folder / "mean.pt").exists()
    kept = read_checkpoint(long.folder / "mean.pt")
    assert kept["step"] == 2
    for name, value in short.ema.items():
        assert torch.equal(kept["ema"][name], value), name
    assert any(not torch.equal(long.ema[name], value) for name, value in short.ema.items())
    for words in ([], ["--blend", f"{long.folder / 'mean.pt'}=0.2"]):
        source = long.folder if words else long.folder / "mean.pt"
        out = tmp_path / "m.safetensors"
        ended = vdsr("train", "export", source, "-o", out, "--overwrite", *words)
        assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    ("blend", "code"),
    [
        (["RUN"], 2),
        (["RUN=much"], 2),
        (["=0.5"], 2),
        (["RUN=1"], 2),
        (["RUN=-0.5"], 2),
        (["RUN=nan"], 2),
        (["vdvae-sr-x4-tiny=0.5"], 4),
        (["nowhere=0.5"], 4),
    ],
)
def test_what_cannot_be_blended_is_one_line(trainer, tmp_path, vdsr, blend, code):
    one = trainer("one", steps=1)
    run(one)
    words = [word for entry in blend for word in ("--blend", entry.replace("RUN", str(one.folder)))]
    ended = vdsr("train", "export", one.folder, "-o", tmp_path / "m.safetensors", *words)
    assert ended.code == code, ended
    assert ended.lines[0].startswith("vdsr: ") and len(ended.lines) <= 2
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["vdvae-sr", "PICTURES", "--out", "run", "--preset", "huge"], 2),
        (["vdvae-sr", "nowhere", "--out", "run"], 3),
        (["vdvae-sr", "PICTURES", "--out", "run", "--lr-size", "500"], 3),
        (["vdvae-sr", "PICTURES", "--out", "run", "--lr-size", "10"], 2),
        (["vdvae-sr", "PICTURES", "--out", "run", "--lr-size", "8", "--device", "abacus"], 5),
        (["vdvae-sr", "PICTURES", "--out", "run", "--lr-size", "8", "--branch-from", "gone.pt"], 4),
        (["export", "nowhere", "-o", "m.safetensors"], 4),
        (["export", "PICTURES/0.png", "-o", "m.safetensors"], 4),
    ],
)
def test_what_cannot_be_trained_is_one_line(pictures, tmp_path, vdsr, monkeypatch, arguments, code):
    monkeypatch.chdir(tmp_path)
    words = [str(word).replace("PICTURES", str(pictures)) for word in arguments]
    ended = vdsr("train", *words)
    assert ended.code == code, ended
    assert ended.lines[0].startswith("vdsr: ") and len(ended.lines) <= 2
