"""The adversarial phase: its terms by property, its steps bit for bit, what it refuses."""

import contextlib
import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from vdsr_cli.cli.train_progress import describe
from vdsr_cli.consistency import degrade, project, project_crop
from vdsr_cli.errors import UsageError
from vdsr_cli.metrics import LPIPS
from vdsr_cli.models.protocol import LatentShape
from vdsr_cli.models.vdvae import VDVAE
from vdsr_cli.models.vdvae_config import PUBLISHED
from vdsr_cli.training.adversarial import (
    PLAIN_SIGMA,
    AdversarialPhase,
    Discriminator,
    Look,
    plainness,
    random_view,
    sharpened,
)
from vdsr_cli.training.config import AdversarialConfig, RunPlan, TrainConfig, config_for
from vdsr_cli.training.data import PictureStore
from vdsr_cli.training.loop import Trainer
from vdsr_cli.training.start import model_on_prior, prepared
from vdsr_cli.training.validation import fixed_noise
from vdsr_cli.weights.runs import read_checkpoint

CPU = torch.device("cpu")
PHASE = AdversarialConfig(start=2, discriminator_width=8, ramp=2)
CONFIG = TrainConfig(steps=5, batch=1, lr_size=8, warmup=1, adversarial=PHASE)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def phase(lpips_weights):
    """``phase(diversity=0.3, projected=True, ...)``: the phase with a small discriminator."""

    def make(*, projected: bool = False, **options) -> AdversarialPhase:
        torch.manual_seed(0)
        perceptual = LPIPS(lpips_weights("squeeze"), net="squeeze")
        config = dataclasses.replace(PHASE, **options)
        return AdversarialPhase(config, [perceptual], device=CPU, projected=projected)

    return make


@pytest.fixture
def trainer(pictures, tmp_path, make_tiny, phase):
    """``trainer("name", steps=6, ...)``: a trainer of the tests' model in its own folder."""

    def make(name: str, model=None, **options) -> Trainer:
        return Trainer(
            (make_tiny().requires_grad_(True) if model is None else model).train(),
            PictureStore(sorted(pictures.iterdir()), scale=4, min_lr_size=8),
            dataclasses.replace(CONFIG, **options),
            tmp_path / name,
            device=CPU,
            compute=torch.float32,
            adversarial=phase(projected=True),
        )

    return make


def run(trainer: Trainer) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    trainer.run(RunPlan(save_every=1000, log_every=1, on_log=rows.append))
    return rows


def terms_of(phase, model, **options):
    """The terms of two random crops."""
    generator = torch.Generator().manual_seed(3)
    hr = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    lr = torch.rand(2, 3, 8, 8, generator=generator)

    def noise(shape: LatentShape) -> torch.Tensor:
        seeded = torch.Generator().manual_seed(shape.layer)
        size = (2 * phase.samples, shape.channels, *(32 // shape.cell,) * 2)
        return torch.randn(size, generator=seeded)

    look = Look(phase.perceptual[0])
    return phase.sample_terms(model, hr, lr, noise, options.get("temperature", 0.8), 1.0, look)


def test_a_projected_crop_degrades_to_its_lr_where_the_crop_knows_it():
    generator = torch.Generator().manual_seed(0)
    sr = torch.rand(2, 3, 48, 48, dtype=torch.float64, generator=generator)
    lr = torch.rand(2, 3, 12, 12, dtype=torch.float64, generator=generator)
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(degrade(project_crop(sr, lr, 4), 4)[inner], lr[inner])
    torch.testing.assert_close(project_crop(sr, degrade(sr, 4), 4), sr)
    consistent_border = degrade(sr, 4)
    consistent_border[inner] = lr[inner]
    torch.testing.assert_close(project_crop(sr, lr, 4), project(sr, consistent_border, 4))


def test_the_gradient_of_a_projected_crop_is_its_transpose():
    sr = torch.rand(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    lr = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: project_crop(x, lr, 2), (sr,))


def test_the_discriminator_sees_the_lr_picture_and_each_square():
    judge = Discriminator(8).eval()
    picture, base, other = torch.rand(3, 2, 3, 16, 24)
    logits = judge(picture, base)
    assert logits.shape == (2, 4, 8, 12)
    assert not torch.equal(logits, judge(picture, other))
    assert not torch.equal(logits, judge(other, base))


def test_spectral_norm_bounds_its_layers():
    judge = Discriminator(8).train()
    with torch.no_grad():
        for _ in range(30):
            judge(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16))
    for layer in (judge.down1, judge.down2, judge.up2, judge.up1, judge.last):
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2) < 1.1


def test_sharpening_leaves_flat_places_alone_and_widens_edges():
    hr = torch.full((1, 3, 40, 40), -0.2)
    assert sharpened(hr, 0.0) is hr
    torch.testing.assert_close(sharpened(hr, 0.5), hr)
    hr[..., 20:] = 0.3
    result = sharpened(hr, 0.5)
    assert result.max() > 0.31 and result.min() < -0.21 and result.abs().max() <= 1
    torch.testing.assert_close(result[..., :2], hr[..., :2])


def test_sharpening_is_in_float32_where_the_model_computes_in_bfloat16():
    hr = torch.rand(2, 3, 24, 24) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        result = sharpened(hr, 0.5)
    torch.testing.assert_close(result, sharpened(hr, 0.5), rtol=0, atol=0)


def test_a_view_treats_all_pictures_alike_and_views_differ():
    one, other = torch.rand(2, 2, 3, 80, 80)
    views = [random_view(torch.Generator().manual_seed(seed), 80) for seed in range(20)]
    again = random_view(torch.Generator().manual_seed(0), 80)
    assert torch.equal(views[0](one), again(one))
    seen = [view(one) for view in views]
    for view, picture in zip(views, seen, strict=True):
        torch.testing.assert_close(picture - view(other), view(one - other))
        assert min(picture.shape[2:]) >= 32
    assert {72 < s.shape[2] <= 80 for s in seen} == {True, False}
    assert len({s.flatten()[0].item() for s in seen}) > 10


def test_a_quarter_of_a_view_is_half_its_size_or_a_window():
    picture = torch.rand(1, 3, 80, 80)
    views = [random_view(torch.Generator().manual_seed(s), 80, is_quarter=True) for s in range(20)]
    seen = [view(picture) for view in views]
    assert all(32 <= min(s.shape[2:]) <= max(s.shape[2:]) <= 40 for s in seen)
    windows = [s for s in seen if torch.isin(s, picture).all()]
    assert 0 < len(windows) < len(seen)


def test_without_views_pictures_are_compared_as_they_are(phase):
    picture = torch.rand(1, 3, 32, 32)

    def shapes(phase):
        looks = [phase.look(torch.Generator().manual_seed(seed), 32) for seed in range(4)]
        return [look.view(picture).shape for look in looks]

    assert set(shapes(phase(views=False))) == {picture.shape}
    assert len(set(shapes(phase()))) > 1


def test_of_several_networks_each_step_asks_one(phase):
    of_both = phase()
    of_both.perceptual.append(SimpleNamespace(net="vgg"))
    asked = [of_both.look(torch.Generator().manual_seed(seed), 128) for seed in range(20)]
    picture = torch.rand(1, 3, 128, 128)
    most = {"squeeze": 0, "vgg": 0}
    for look in asked:
        most[look.network.net] = max(most[look.network.net], *look.view(picture).shape[2:])
    assert most["squeeze"] > 120 and 32 <= most["vgg"] <= 64


def test_diversity_is_taken_off_the_distances(phase, tiny_model):
    """At 1 the distance terms are the energy score, of which equal samples take nothing off."""
    some, energy = (terms_of(phase(diversity=share), tiny_model) for share in (0.5, 1.0))
    assert some.figures["diversity"] == energy.figures["diversity"] > 0
    torch.testing.assert_close(energy.loss, some.loss - some.figures["diversity"] / 4)
    alike = terms_of(phase(diversity=1.0), tiny_model, temperature=0.0)
    assert alike.figures["diversity"] == pytest.approx(0, abs=1e-6)


def test_without_diversity_one_sample_is_drawn(phase, tiny_model):
    alone = terms_of(phase(diversity=0.0), tiny_model)
    assert "diversity" not in alone.figures and alone.sample.shape == (2, 3, 32, 32)
    assert torch.isfinite(alone.loss)


def test_the_coarse_term_is_the_error_of_means_of_squares(phase, tiny_model):
    plain, coarse = (terms_of(phase(coarse_weight=w), tiny_model) for w in (0.0, 3.0))
    error = (coarse.figures["coarse_l1"]).item()
    assert 0 < error < coarse.figures["sample_l1"].item()
    torch.testing.assert_close(coarse.loss, plain.loss + 3 * error)

    class Lighter:
        scale = 4

        def means(self, lr, noise, temperature, *, repeats):
            stripes = torch.tensor([0.5, -0.5]).repeat(16)
            return (0.25 + stripes).expand(len(lr) * repeats, 3, 32, 32)

    grey = torch.zeros(1, 3, 32, 32)
    one = phase()
    look = Look(one.perceptual[0])
    terms = one.sample_terms(Lighter(), grey, grey[..., :8, :8] + 0.5, None, 0.8, 1.0, look)
    assert terms.figures["coarse_l1"].item() == pytest.approx(0.25, abs=1e-6)


def test_the_plain_term_is_the_error_where_nothing_is_to_be_seen(phase, tiny_model):
    without, with_it = (terms_of(phase(plain_weight=w), tiny_model) for w in (0.0, 3.0))
    torch.testing.assert_close(with_it.loss, without.loss + 3 * without.figures["plain_l1"])
    half_noisy = torch.full((1, 3, 16, 32), 0.3)
    half_noisy[..., 16:] += 0.2 * torch.randn(1, 3, 16, 16)
    found = plainness(half_noisy)
    assert found.shape == (1, 1, 16, 32)
    assert found[..., :14].min() > 0.999 and found[..., 18:].max() < 1e-3
    grain = plainness(0.3 + PLAIN_SIGMA * torch.randn(1, 3, 64, 64)).mean().item()
    assert 0.3 < grain < 0.5  # of the deviation that it is measured by


def test_no_gradient_of_the_samples_reaches_the_discriminator(phase, make_tiny):
    one, model = phase(), make_tiny().requires_grad_(True)
    terms = terms_of(one, model)
    terms.loss.backward()
    assert all(p.grad is None for p in one.judge.trained)
    assert all(p.requires_grad for p in one.judge.trained)
    assert model.head.weight.grad.abs().sum() > 0
    assert model.levels[0][0].enc.c1.weight.grad is None, "samples know no posterior"
    model.zero_grad()
    one.judge.loss(terms).backward()
    assert all(p.grad is not None for p in one.judge.trained)
    assert model.head.weight.grad is None


def test_black_pictures_have_finite_gradients(lpips_weights):
    """Features that are zero everywhere have no direction."""
    lpips = LPIPS(lpips_weights("squeeze"), net="squeeze")
    black = torch.full((2, 3, 32, 32), -1.0, requires_grad=True)
    other = torch.rand(2, 3, 32, 32)
    lpips.distances(lpips.maps(black), lpips.maps(other)).sum().backward()
    assert torch.isfinite(black.grad).all()


def test_distances_of_a_batch_are_those_of_its_pictures(lpips_weights):
    lpips = LPIPS(lpips_weights("squeeze"), net="squeeze")
    pictures = torch.randint(0, 256, (2, 2, 3, 40, 33), dtype=torch.uint8)
    one, other = (lpips.maps(p.float() / 127.5 - 1) for p in pictures)
    expected = [lpips(a, b) for a, b in zip(*pictures, strict=True)]
    assert lpips.distances(one, other).tolist() == pytest.approx(expected, rel=1e-4)


def test_gradients_of_distances_are_those_of_plain_operations(lpips_weights):
    lpips = LPIPS(lpips_weights("squeeze"), net="squeeze")
    shape, generator = (2, 3, 64, 48), torch.Generator().manual_seed(5)
    one, other = (torch.rand(shape, generator=generator).requires_grad_() for _ in range(2))

    def unit(tap):
        return tap / torch.linalg.vector_norm(tap, dim=1, keepdim=True)

    taps = zip(lpips.maps(one), lpips.maps(other), lpips.heads, strict=True)
    layers = [head((unit(a) - unit(b)).square()).mean((1, 2, 3)) for a, b, head in taps]
    plain, found = torch.stack(layers).sum(0), lpips.distances(lpips.maps(one), lpips.maps(other))
    torch.testing.assert_close(found, plain)
    weights = torch.tensor([1.0, 3.0])
    gradients = [torch.autograd.grad(d, (one, other), weights) for d in (found, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-7)


def test_two_legs_are_one_run_bit_for_bit(trainer):
    whole = trainer("whole")
    rows = run(whole)
    first = trainer("legs", steps=3)
    run(first)
    second = trainer("legs")
    second.resume(first.folder / "last.pt")
    assert second.step == 3
    run(second)
    sides = [(t.model, t.adversarial.judge.discriminator) for t in (whole, second)]
    for one, other in zip(*sides, strict=True):
        other_state = other.state_dict()
        for name, value in one.state_dict().items():
            assert torch.equal(value, other_state[name]), name
    assert "discriminator" not in rows[1] and rows[2]["discriminator"] > 0
    logged = [json.loads(line) for line in (second.folder / "log.jsonl").read_text().splitlines()]
    assert [row.keys() for row in logged] == [row.keys() for row in rows]
    assert {"sample_l1", "perceptual", "generator", "diversity"} <= rows[-1].keys()


def test_a_bad_step_changes_neither_side(trainer, monkeypatch):
    bad = trainer("bad")
    bad.step = 2
    sides = (bad.model, bad.adversarial.judge.discriminator)
    before = [[p.clone() for p in side.parameters()] for side in sides]
    real = torch.nn.utils.clip_grad_norm_

    def poisoned(parameters, *arguments):
        parameters = list(parameters)
        parameters[0].grad.fill_(torch.nan)
        return real(parameters, *arguments)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", poisoned)
    bad.train_step()
    assert bad.skipped == 1
    for side, values in zip(sides, before, strict=True):
        assert all(torch.equal(p, v) for p, v in zip(side.parameters(), values, strict=True))


def test_both_sides_learn(trainer):
    one = trainer("both")
    one.step = 2
    before = [p.clone() for p in one.adversarial.judge.discriminator.parameters()]
    _, norm = one.train_step()
    assert torch.isfinite(norm) and one.skipped == 0
    after = one.adversarial.judge.discriminator.parameters()
    assert any(not torch.equal(p, v) for p, v in zip(after, before, strict=True))


def test_the_lr_encoder_runs_once_for_elbo_and_samples(trainer, monkeypatch):
    """And gives both the gradient that two runs give."""
    once, twice = trainer("once"), trainer("twice")
    monkeypatch.setattr(twice, "_lr_encoded_once", contextlib.nullcontext)
    calls = dict.fromkeys((once, twice), 0)

    def count(one):
        calls[one] += 1

    for one in (once, twice):
        one.step = 2
        one.model.lr_encoder.conv_in.register_forward_hook(lambda *_, one=one: count(one))
    norms = [one.train_step()[1] for one in (once, twice)]
    assert list(calls.values()) == [1, 2]
    torch.testing.assert_close(*norms)
    weights = [one.model.lr_encoder.conv_in.weight.grad for one in (once, twice)]
    torch.testing.assert_close(*weights)


def test_the_elbo_may_be_in_one_step_of_several(trainer, phase):
    """Where it weighs as much more: what it alone trains gets the gradient times their number."""
    always, seldom = trainer("always"), trainer("seldom")
    seldom.adversarial = phase(projected=True, elbo_every=3)
    gradients = []
    for one in (always, seldom):
        one.step, one.config = PHASE.start, dataclasses.replace(one.config, grad_clip=1e9)
        one.train_step()
        gradients.append(one.model.hr_encoder.downs[0].weight.grad.clone())
    torch.testing.assert_close(gradients[1], 3 * gradients[0], rtol=1e-3, atol=1e-3)
    rows = run(seldom)
    assert seldom.model.hr_encoder.downs[0].weight.grad is None, "the last two steps had none"
    assert all("rate_bits" not in row and row["mean_l1"] > 0 < row["perceptual"] for row in rows)
    assert all("s/step" in describe(row) for row in rows)


@pytest.mark.parametrize("mean_weight", [0.0, 60.0])
def test_a_cvdvae_s_samples_train_without_the_elbo(trainer, phase, tiny_prior, mean_weight):
    one = trainer("cvdvae", model_on_prior("cvdvae", tiny_prior), mean_weight=mean_weight)
    one.adversarial, one.step = phase(projected=True, elbo_every=2), PHASE.start + 1
    one.train_step()
    gradients = [p.grad for p in one.model.lr_encoder.parameters()]
    assert one.skipped == 0 and any(g.abs().sum() > 0 for g in gradients)


def test_without_a_weight_there_is_no_discriminator(trainer, phase):
    one = trainer("alone", adversarial=dataclasses.replace(PHASE, adversarial_weight=0.0))
    one.adversarial = phase(projected=True, adversarial_weight=0.0)
    before = [p.clone() for p in one.model.parameters()]
    rows = run(one)
    assert not rows[-1].keys() & {"generator", "discriminator"} and rows[-1]["perceptual"] > 0
    assert "discriminator" not in read_checkpoint(one.folder / "last.pt")
    assert any(not torch.equal(p, v) for p, v in zip(one.model.parameters(), before, strict=True))


def test_the_prior_of_a_cvdvae_stays_frozen(trainer, tiny_prior):
    model = model_on_prior("cvdvae", tiny_prior)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    run(trainer("cvdvae", model))
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all(n.startswith("lr_encoder.") or ".enc_y." in n for n in moved)


def test_samples_may_train_the_prior_s_finest_layers(trainer, tiny_prior):
    model = model_on_prior("cvdvae", tiny_prior)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    model.select_fine_layers()
    run(trainer("cvdvae", model))
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    fine = {n for n in moved if not n.startswith("lr_encoder.") and ".enc_y." not in n}
    kept = sum(level.cell >= 4 for level in model.config.levels)
    assert {"head.weight", f"levels.{kept}.0.prior.c1.weight"} <= fine
    assert not any(".enc." in n or n.startswith("hr_encoder.") for n in fine)
    assert not any(n.startswith(f"levels.{i}.") for n in fine for i in range(kept))


def test_fine_layers_are_of_a_cvdvae_s_samples(pictures, tiny_path, tmp_path, vdsr):
    out = tmp_path / "run"
    ended = vdsr("train", "vdvae-sr", pictures, "--from", tiny_path, "--fine-layers", "-o", out)
    assert ended.code == 2 and "--fine-layers" in ended.err and not out.exists()


@pytest.mark.parametrize("objective", ["vdvae-sr", "cvdvae"])
def test_samples_on_a_prior_of_the_published_shape_are_trained(phase, objective):
    layers = {"enc_blocks": "32x1,32d4,8x1,8d8,1x1", "dec_blocks": "1x1,8m1,8x1,32m8,32x1"}
    shape = {"image_size": 32, "width": 16, "no_bias_above": 8}
    prior = VDVAE(dataclasses.replace(PUBLISHED["ffhq256"], **shape, **layers))
    model = prepared(model_on_prior(objective, prior, 4))
    hr, lr = torch.rand(1, 3, 32, 32) * 2 - 1, torch.rand(1, 3, 8, 8)
    projected = phase(projected=True)
    noise, look = fixed_noise(2, (32, 32), CPU), Look(projected.perceptual[0])
    projected.sample_terms(model, hr, lr, noise, 0.8, 1.0, look).loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert any(gradient.abs().sum() > 0 for gradient in gradients)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_the_phase_has_defaults_of_its_own():
    plain = config_for("vdvae-sr", {"steps": 9}, fine_tuning=True)
    config = config_for("vdvae-sr", {"steps": 9}, fine_tuning=True, adversarial=PHASE)
    assert (plain.mean_weight, config.mean_weight) == (60, 200)
    assert config.is_ever_adversarial and not plain.is_ever_adversarial
    with pytest.raises(UsageError, match="temperatures"):
        AdversarialConfig(start=0, temperatures=(1.0, 0.5))


def test_the_command_trains_exports_and_goes_on(pictures, tmp_path, vdsr, lpips_weights):
    lpips_weights("squeeze")
    run_folder, out = tmp_path / "run", tmp_path / "m.safetensors"
    size = ["--batch", 1, "--lr-size", 8, "--rescale", 1, "--metric-weights", tmp_path]
    phase = ["--adversarial", 0, "--discriminator-width", 8, "--temperatures", 0.8, 0.8]
    start = [
        "--from",
        "vdvae-sr-x4-tiny",
        "--steps",
        1,
        "--val",
        pictures,
        "--val-every",
        1,
        "--log-every",
        1,
    ]
    ended = vdsr("train", "vdvae-sr", pictures, "--out", run_folder, *start, *size, *phase)
    assert ended.code == 0, ended.err
    assert "samples: L1" in ended.err and "at 0.8" in ended.err
    ended = vdsr("train", "export", run_folder, "-o", out)
    assert ended.code == 0, ended.err
    assert "| adversarial.discriminator_width | 8 |" in out.with_suffix(".md").read_text()
    other = ["--from", run_folder, "--steps", 1, "--learning-rate", 0]
    ended = vdsr("train", "vdvae-sr", pictures, "--out", tmp_path / "b", *other, *size, *phase)
    assert ended.code == 0, ended.err
    judges = [read_checkpoint(tmp_path / n / "last.pt")["discriminator"] for n in ("run", "b")]
    biases = [judge["first.bias"] for judge in judges]
    assert not torch.equal(biases[0], torch.zeros_like(biases[0]))
    torch.testing.assert_close(*biases, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("objective", "options", "code", "said"),
    [
        ("vdvae", [], 2, "--adversarial"),
        ("srvae", [], 2, "--adversarial"),
        ("vdvae-sr", ["--elbo-from", 1], 2, "--elbo-from"),
        ("vdvae-sr", ["--temperatures", 1, 0.5], 2, "temperatures"),
        ("vdvae-sr", ["--graph"], 2, "--graph"),
        ("vdvae-sr", ["--preset", "vdvae-sr-x2", "--lr-size", 8], 2, "--lr-size"),
        ("vdvae-sr", [], 4, "--metric-weights"),
    ],
)
def test_what_the_phase_does_not_go_with_is_one_line(
    pictures, tmp_path, vdsr, monkeypatch, objective, options, code, said
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("VDSR_HOME", str(tmp_path / "home"))
    words = ["--out", tmp_path / "run", "--steps", 2, "--batch", 1, "--lr-size", 16]
    ended = vdsr("train", objective, pictures, *words, "--adversarial", 0, *options)
    assert ended.code == code, ended
    assert ended.lines[0].startswith("vdsr: ") and len(ended.lines) <= 2
    assert said in ended.err
