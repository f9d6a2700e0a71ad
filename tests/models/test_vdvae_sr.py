"""VDVAE-SR: the pretrained prior at zero gates, the LR picture behind open ones."""

import dataclasses
import json

import pytest
import torch

from vdsr_cli.models.distributions import gaussian_kl
from vdsr_cli.models.dmol import dmol_nll, to_levels
from vdsr_cli.models.vdvae import PUBLISHED, VDVAE, EncoderConfig
from vdsr_cli.models.vdvae_sr import VDVAESR, TrivialEncoder, Variant, VDVAESRConfig

LR = EncoderConfig(
    image_size=8,
    enc_blocks="8x2,8d2,4x1,4d4,1x1",
    width=16,
    input_shift=-100.0,
    input_scale=1 / 50,
)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def prior(small, randomise):
    prior = VDVAE(small)
    randomise(prior)
    return prior


@pytest.fixture
def model(prior):
    torch.manual_seed(0)
    return VDVAESR.from_prior(prior, LR)


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(5)
    return torch.rand(2, 3, 16, 16, generator=generator), torch.rand(
        2, 3, 8, 8, generator=generator
    )


def _posterior(model, hr, noise):
    """A step that draws from q(z | hr) at closed gates."""
    activations = model.encoder(hr)
    return lambda block, shape, x: block.infer(x, activations[x.shape[-1]], noise(shape))[0]


def open_gates(model, value=0.3):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".gate_param"):
                parameter.fill_(value)


def in_double(noise, *models):
    """The noise in float64, and the models too, whose float32 sums differ in the last bits from
    one layout of memory to another."""
    for model in models:
        model.double()
    return lambda shape: noise(shape).double()


@torch.no_grad()
def test_zero_gates_sample_as_the_prior(model, prior, small, normals, pictures):
    noise = in_double(normals(small, 2), model, prior)
    for temperature in (0.0, 0.8):
        expected = prior.sample(2, (prior.side_px, prior.side_px), noise, temperature)
        assert torch.equal(model.sample(pictures[1].double(), noise, temperature), expected)


@torch.no_grad()
def test_zero_gates_have_the_priors_elbo(model, prior, small, normals, pictures):
    hr, lr = (picture.double() for picture in pictures)
    noise = in_double(normals(small, 2), model, prior)
    got, expected = model(hr, lr, noise), prior(hr, noise)
    assert torch.equal(got.rate, expected.rate)
    assert torch.equal(got.distortion, expected.distortion)


@torch.no_grad()
def test_open_gates_see_the_lr_picture(model, small, normals, pictures):
    open_gates(model)
    hr, lr = pictures
    noise = normals(small, 2)
    assert not torch.allclose(model.sample(lr, None), model.sample(lr.flip(3), None))
    assert not torch.allclose(model(hr, lr, noise).rate, model(hr, lr.flip(3), noise).rate)


@torch.no_grad()
def test_prior_and_posterior_both_see_the_lr_picture(model, small, normals, pictures):
    open_gates(model)
    hr, lr = pictures
    block, h = model.decoder.blocks[0], model.decoder.bias_xs[0]
    h = h + block.gate_param * model.lr_encoder(lr)[1]
    posterior, prior = block.posterior_moments(h, model.encoder(hr)[1]), block.prior_moments(h)[:2]
    expected = gaussian_kl(*posterior, *prior).sum(dim=(1, 2, 3))
    torch.testing.assert_close(model(hr, lr, normals(small, 2)).rate[0], expected)


@torch.no_grad()
def test_half_precision_keeps_the_likelihood_in_float32(model, small, normals, pictures):
    open_gates(model)
    hr, lr = pictures
    noise = normals(small, 2)
    expected = model.sample(lr, noise, 0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.sample(lr, noise, 0.5)
        assert model(hr, lr, noise).rate.dtype == torch.float32
    for parameters in (mixed, model.bfloat16().sample(lr, noise, 0.5)):
        assert parameters.dtype == torch.float32
        assert (parameters - expected).std() < 0.1 * expected.std()


def test_gates_lie_at_every_lr_resolution(model, small):
    gated = [block.gate_param is not None for block in model.decoder.blocks]
    assert gated == [layer.resolution <= 8 for layer in small.decoder_layers]
    shapes = {tuple(v.shape) for k, v in model.state_dict().items() if k.endswith("gate_param")}
    assert shapes == {(1, 16, 1, 1)}


def test_gate_below_is_the_released_code(prior, small):
    model = VDVAESR.from_prior(prior, LR, Variant(gate_below=8))
    gated = [block.gate_param is not None for block in model.decoder.blocks]
    assert gated == [layer.resolution < 8 for layer in small.decoder_layers]


@torch.no_grad()
def test_temperature_zero_is_deterministic(model, small, normals, pictures):
    open_gates(model)
    lr = pictures[1]
    first = model.sample(lr, normals(small, 2), 0.0)
    assert torch.equal(first, model.sample(lr, normals(small, 2, seed=9), 0.0))
    assert torch.equal(first, model.sample(lr, None))


def test_selects_what_trains(model, small, normals, pictures):
    trained = model.select_trainable()
    assert trained == count(model.decoder) + count(model.lr_encoder)
    open_gates(model)
    elbo = model(*pictures, normals(small, 2))
    (elbo.distortion + elbo.rate.sum(0)).mean().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("encoder."), name


def test_gates_train_with_the_decoder_frozen(prior):
    model = VDVAESR.from_prior(prior, LR, Variant(trained=("lr-encoder",)))
    gates = sum(k.endswith("gate_param") for k in model.state_dict())
    assert model.select_trainable() == count(model.lr_encoder) + 16 * gates


def test_the_released_model_trains_all_but_its_lr_encoder(prior):
    model = VDVAESR.from_prior(prior, LR, Variant(trained=("encoder", "decoder")))
    assert model.select_trainable() == count(model.encoder) + count(model.decoder)


@torch.no_grad()
@pytest.mark.parametrize("where", ["prior", "posterior"])
def test_lr_goes_where_it_is_sent(where, prior, small, normals, pictures):
    """The first block's KL, by hand; pictures are drawn from the prior alone."""
    model = VDVAESR.from_prior(prior, LR, Variant(lr_into=where))
    open_gates(model)
    hr, lr = pictures
    block, x = model.decoder.blocks[0], model.decoder.bias_xs[0]
    g, activation = block.gate_param * model.lr_encoder(lr)[1], model.encoder(hr)[1]
    x = x.expand(2, -1, -1, -1)
    seen = (x, activation) if where == "prior" else (x, activation + g)
    of_prior = block.prior_moments(x + g if where == "prior" else x)[:2]
    expected = gaussian_kl(*block.posterior_moments(*seen), *of_prior).sum(dim=(1, 2, 3))
    noise = normals(small, 2)
    torch.testing.assert_close(model(hr, lr, noise).rate[0], expected)
    unconditional = prior.sample(2, (16, 16), None, 1.0)
    assert torch.equal(model.sample(lr, None), unconditional) == (where == "posterior")


@torch.no_grad()
def test_the_trivial_encoder_is_a_linear_map_of_the_picture(prior, small, pictures):
    variant = Variant(conditional_top=True, trivial_encoder=True)
    model = VDVAESR.from_prior(prior, LR, variant)
    assert isinstance(model.lr_encoder, TrivialEncoder)
    gated = [block.gate_param is not None for block in model.decoder.blocks]
    assert gated == [layer.resolution == 1 for layer in small.decoder_layers]
    a, b = pictures[1], pictures[1].flip(2)
    encode, middle = model.lr_encoder, (a + b) / 2
    torch.testing.assert_close(2 * encode(middle)[1], encode(a)[1] + encode(b)[1])
    assert not torch.allclose(model.sample(a, None), model.sample(b, None))


@torch.no_grad()
def test_gates_of_none_leave_the_conditional_top(prior, pictures):
    """The thesis's second row: p(z_0 | lr), and nothing in the other layers."""
    model = VDVAESR.from_prior(prior, LR, Variant(conditional_top=True, gate_below=0))
    assert all(block.gate_param is None for block in model.decoder.blocks)
    lr = pictures[1]
    assert not torch.allclose(model.sample(lr, None), model.sample(lr.flip(2), None))


@torch.no_grad()
def test_targets_of_8_bits_on_a_5_bit_prior_are_the_released_codes(prior, small, normals, pictures):
    low = VDVAE(dataclasses.replace(small, low_bit=True))
    low.load_state_dict(prior.state_dict())
    hr, lr = (pictures[0] * 255).round() / 255, pictures[1]
    noise = normals(small, 2)
    floored, full = (VDVAESR.from_prior(low, LR, Variant(target_bits=bits)) for bits in (5, 8))
    parameters = full.sample(lr, None)
    assert torch.equal(parameters, floored.sample(lr, None))
    given = floored.decoder.parameters_of(floored.decoder.run(2, _posterior(floored, hr, noise)))
    for model, is_low in ((floored, True), (full, False)):
        expected = dmol_nll(to_levels(hr, low_bit=is_low), given, low_bit=True)
        torch.testing.assert_close(model(hr, lr, noise).distortion, expected)
    pixels, darker = floored.pixels(parameters, None), full.pixels(parameters, None)
    moved = (pixels - darker)[pixels < 1]
    torch.testing.assert_close(moved, torch.full_like(moved, 7 / 255))


def test_what_makes_no_variant_is_refused(small):
    for wrong in ({"lr_into": "none"}, {"trained": ("gates",)}, {"target_bits": 6}):
        with pytest.raises(ValueError, match=r"is one of|are some of|is 5 or 8"):
            Variant(**wrong)
    with pytest.raises(ValueError, match="knows 8 bits"):
        VDVAESRConfig(prior=small, lr=LR, target_bits=5)


@pytest.mark.parametrize(
    ("name", "lr", "lr_count", "gated"),
    [
        ("ffhq256", PUBLISHED["imagenet64"].encoder, 26_450_816, 57),
        (
            "imagenet64",
            dataclasses.replace(
                PUBLISHED["imagenet32"].encoder,
                image_size=16,
                enc_blocks="16x9,16d2,8x8,8d2,4x6,4d4,1x6",
            ),
            12_101_632,
            30,
        ),
    ],
)
def test_published_sizes(name, lr, lr_count, gated):
    with torch.device("meta"):
        model = VDVAESR(VDVAESRConfig(prior=PUBLISHED[name], lr=lr))
        prior = VDVAE(PUBLISHED[name])
    assert model.scale == 4
    assert count(model.lr_encoder) == lr_count
    assert count(model.encoder) + count(model.decoder) == count(prior) + 512 * gated


# --- the paper's conditional top ----------------------------------------------------------------


@pytest.fixture
def top_model(prior):
    torch.manual_seed(0)
    return VDVAESR.from_prior(prior, LR, Variant(conditional_top=True))


@torch.no_grad()
def test_conditional_top_starts_at_the_standard_normal(top_model, pictures):
    mean, log_std = top_model.top_prior(top_model.lr_encoder(pictures[1])[1])
    assert mean.shape == log_std.shape == (2, 4, 1, 1)
    assert mean.abs().max() == log_std.abs().max() == 0


@torch.no_grad()
def test_conditional_top_depends_on_lr_even_at_zero_gates(top_model, small, normals, pictures):
    hr, lr = pictures
    noise = normals(small, 2)
    assert not torch.allclose(top_model.sample(lr, None), top_model.sample(lr.flip(2), None))
    torch.nn.init.ones_(top_model.top_prior.mean.weight)
    rates = [top_model(hr, x, noise).rate for x in (lr, lr.flip(2))]
    assert not torch.allclose(rates[0][0], rates[1][0])


@torch.no_grad()
def test_posterior_of_the_conditional_top_does_not_see_lr(
    top_model, prior, small, normals, pictures
):
    """Equation 11: q(z_0 | x). Against N(0, I) its KL is what the moments give."""
    hr, lr = pictures
    rate = top_model(hr, lr, normals(small, 2)).rate[0]
    block, x = prior.decoder.blocks[0], prior.decoder.bias_xs[0].expand(2, -1, -1, -1)
    mean, log_std = block.posterior_moments(x, prior.encoder(hr)[1])
    expected = (-0.5 - log_std + 0.5 * (torch.exp(2 * log_std) + mean**2)).sum(dim=(1, 2, 3))
    torch.testing.assert_close(rate, expected)


@torch.no_grad()
def test_state_behind_the_conditional_top_comes_from_lr_and_z_alone(top_model, pictures):
    """Equation 9: the first block's state is g_0, in training as in sampling."""
    block = top_model.decoder.blocks[0]
    torch.nn.init.zeros_(block.z_proj.weight)
    g, activation = top_model.lr_encoder(pictures[1])[1], top_model.encoder(pictures[0])[1]
    epsilon = torch.ones(2, 4, 1, 1)
    trained, _ = top_model.top_prior.infer(block, torch.ones_like(g), activation, g, epsilon)
    torch.testing.assert_close(trained, top_model.top_prior.generate(block, g, epsilon, 1.0))


def test_conditional_top_trains(top_model, small, normals, pictures):
    top_model.select_trainable()
    elbo = top_model(*pictures, normals(small, 2))
    elbo.rate.sum().backward()
    assert all(parameter.grad is not None for parameter in top_model.top_prior.parameters())


# --- configuration ------------------------------------------------------------------------------


def test_config_survives_json(small):
    config = VDVAESRConfig(
        prior=small, lr=LR, gate_below=32, conditional_top=True, trained=("encoder",)
    )
    assert VDVAESRConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_a_header_of_before_has_the_default_variant(small):
    values = dataclasses.asdict(VDVAESRConfig(prior=small, lr=LR))
    for name in ("lr_into", "trivial_encoder", "trained", "target_bits"):
        del values[name]
    assert VDVAESRConfig.from_dict(values) == VDVAESRConfig(prior=small, lr=LR)


def test_refuses_inconsistent_configs(small):
    with pytest.raises(ValueError, match="differ in width"):
        VDVAESRConfig(prior=small, lr=dataclasses.replace(LR, width=8))
    flat = dataclasses.replace(LR, enc_blocks="8x2,8d2,4x1")
    with pytest.raises(ValueError, match="top resolution 1"):
        VDVAESRConfig(prior=small, lr=flat, conditional_top=True)
