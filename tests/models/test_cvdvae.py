"""CVDVAE: the released code's numbers, its frozen prior, and our temperatures."""

import dataclasses
import json

import pytest
import torch

from vdsr_cli.config import Temperatures
from vdsr_cli.models.cvdvae import CVDVAE, CVDVAEConfig
from vdsr_cli.models.vdvae import PUBLISHED, VDVAE


def count(parameters):
    return sum(parameter.numel() for parameter in parameters)


@pytest.fixture
def reference(golden):
    vectors = golden("cvdvae_small")
    names = ("image_size_y", "enc_blocks_y", "ky", "width_y")
    config = CVDVAEConfig(prior=vectors.config, **{name: vectors.fields[name] for name in names})
    model = CVDVAE(config)
    model.load_state_dict({k: v for k, v in vectors.weights.items() if k in model.state_dict()})
    return vectors, model.eval()


@pytest.fixture
def config(small):
    return CVDVAEConfig(
        prior=small, image_size_y=8, enc_blocks_y="8x2,8d2,4x1,4d4,1x1", ky=4, width_y=16
    )


@pytest.fixture
def model(config, randomise):
    prior = VDVAE(config.prior)
    randomise(prior)
    torch.manual_seed(0)
    return CVDVAE.from_prior(prior, config)


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(5)
    return torch.rand(2, 3, 16, 16, generator=generator), torch.rand(
        2, 3, 8, 8, generator=generator
    )


@torch.no_grad()
def test_reproduces_the_released_training_divergences(reference):
    vectors, model = reference
    kl = model(vectors["hr"] / 255, vectors["lr"] / 255, vectors.noise("train")).kl
    expected = torch.stack([vectors[f"train.kl_sum.{i}"] for i in range(4)])
    torch.testing.assert_close(kl, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_reproduces_the_released_sample(reference):
    vectors, model = reference
    noise = vectors.noise("sample")
    parameters = model.sample(vectors["lr"] / 255, noise, Temperatures("0.7,lr:1"))
    expected = vectors["sample.logits"].permute(0, 3, 1, 2)
    scale = expected.abs().max().item()
    torch.testing.assert_close(parameters, expected, rtol=1e-5, atol=1e-5 * scale)


@torch.no_grad()
def test_temperature_tempers_both_kinds_of_latents(reference):
    vectors, model = reference
    lr, noise = vectors["lr"] / 255, vectors.noise("sample")
    ours = model.sample(lr, noise, 0.7)
    torch.testing.assert_close(ours, model.sample(lr, lambda shape: 0.7 * noise(shape)))
    assert torch.equal(ours, model.sample(lr, noise, Temperatures("0.7,lr:0.7")))
    assert not torch.allclose(ours, model.sample(lr, noise, Temperatures("0.7,lr:1")))


@torch.no_grad()
def test_temperature_zero_is_deterministic(model, config, normals, pictures):
    lr = pictures[1]
    first = model.sample(lr, normals(config.prior, 2), 0.0)
    assert torch.equal(first, model.sample(lr, normals(config.prior, 2, seed=9), 0.0))
    assert torch.equal(first, model.sample(lr, None))


@torch.no_grad()
def test_fixed_conditional_latents_leave_the_rest_free(model, config, normals, pictures):
    asked = []
    noise = normals(config.prior, 2)
    model.sample(
        pictures[1],
        lambda shape: (asked.append(shape.layer), noise(shape))[1],
        Temperatures("0.8,lr:0"),
    )
    assert asked == [4, 5, 6, 7]


@torch.no_grad()
def test_half_precision_keeps_the_likelihood_in_float32(model, config, normals, pictures):
    hr, lr = pictures
    noise = normals(config.prior, 2)
    expected = model.sample(lr, noise, 0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.sample(lr, noise, 0.5)
        assert model(hr, lr, noise).kl.dtype == torch.float32
    for parameters in (mixed, model.bfloat16().sample(lr, noise, 0.5)):
        assert parameters.dtype == torch.float32
        assert (parameters - expected).std() < 0.1 * expected.std()


def test_only_the_lr_encoder_trains(model, config, normals, pictures):
    model(*pictures, normals(config.prior, 2)).total.mean().backward()
    for name, parameter in model.named_parameters():
        new = name.startswith("encoder_y.") or ".enc_y." in name
        assert parameter.requires_grad == new, name
        assert (parameter.grad is not None) == new, name


@torch.no_grad()
def test_prior_is_copied_unchanged(config, randomise, normals):
    prior = VDVAE(config.prior)
    randomise(prior)
    state = CVDVAE.from_prior(prior, config).state_dict()
    assert all(torch.equal(state[name], value) for name, value in prior.state_dict().items())


def test_refuses_another_prior(config, small):
    with pytest.raises(ValueError, match="not the config"):
        CVDVAE.from_prior(VDVAE(dataclasses.replace(small, zdim=3)), config)


@torch.no_grad()
def test_weightings_of_the_divergences(model, config, normals, pictures):
    result = model(*pictures, normals(config.prior, 2))
    assert result.dimensions.tolist() == [4, 64, 64, 256]
    assert result.kl.shape == (4, 2)
    assert (result.kl > 0).all()
    torch.testing.assert_close(result.total, result.kl.sum(0))
    expected = sum(result.kl[i] / n for i, n in enumerate((4, 64, 64, 256)))
    torch.testing.assert_close(result.mean_weighted, expected)


@pytest.mark.parametrize(
    ("side", "enc_blocks", "ky", "encoder", "heads"),
    [
        (32, "32x17,32d2,16x7,16d2,8x5,8d2,4x5,4d4,1x4", 43, 16_894_720, 17_987_040),
        (64, "64x12,64d2,32x17,32d2,16x7,16d2,8x5,8d2,4x5,4d4,1x4", 57, 22_444_160, 24_013_984),
    ],
    ids=["x8", "x4"],
)
def test_published_sizes(side, enc_blocks, ky, encoder, heads):
    prior = PUBLISHED["ffhq256"]
    config = CVDVAEConfig(prior=prior, image_size_y=side, enc_blocks_y=enc_blocks, ky=ky)
    with torch.device("meta"):
        model = CVDVAE(config)
    named = list(model.named_parameters())
    assert config.scale == 256 // side
    assert count(model.encoder_y.parameters()) == encoder
    assert count(p for name, p in named if ".enc_y." in name) == heads
    assert model.select_trainable() == encoder + heads
    assert count(p for _, p in named) == 114_874_852 + encoder + heads


def test_has_the_published_names(model):
    names = model.state_dict().keys()
    convs = [f"c{i}.{kind}" for i in range(1, 5) for kind in ("weight", "bias")]
    heads = {f"decoder.dec_blocks.{i}.enc_y.{conv}" for i in range(4) for conv in convs}
    blocks = {f"encoder_y.enc_blocks.{i}.{conv}" for i in range(6) for conv in convs}
    new = heads | blocks | {"encoder_y.in_conv.weight", "encoder_y.in_conv.bias"}
    assert {name for name in names if "_y." in name} == new


def test_config_survives_json(config):
    assert CVDVAEConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ky": 0}, "within 1..8"),
        ({"ky": 9}, "within 1..8"),
        ({"ky": 7}, "blocks at 16"),
        ({"width_y": 8}, "differ in width"),
    ],
)
def test_refuses_inconsistent_configs(config, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **changes)
