"""The VDVAE: published numbers, published shapes, and what sampling promises."""

import dataclasses
import gc
import math
import weakref

import pytest
import torch

from vdsr_cli.models.vdvae import (
    PUBLISHED,
    VDVAE,
    Encoder,
    EncoderConfig,
    VDVAEConfig,
    distortion,
    set_trainable,
)
from vdsr_cli.models.vdvae_config import Layer, parse_layers, parse_widths

FACTS = {
    # name: encoder blocks, decoder blocks, encoder, decoder, posterior heads, tensors, latents
    "cifar10": (33, 43, 7_497_888, 31_647_812, 10_301_888, 1393, 412_432),
    "imagenet32": (48, 78, 18_931_712, 100_349_156, 33_054_400, 2423, 765_216),
    "imagenet64": (65, 75, 26_450_816, 98_555_044, 31_762_912, 2482, 1_451_040),
    "ffhq256": (68, 66, 27_993_600, 86_881_252, 27_888_448, 2272, 4_470_816),
    "ffhq1024": (70, 70, 23_759_288, 85_607_616, 27_482_260, 2392, 27_588_640),
}

SIZE = (16, 16)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def model(small, randomise):
    model = VDVAE(small)
    randomise(model)
    return model.eval()


@pytest.fixture(scope="module")
def ffhq256():
    with torch.device("meta"):
        return VDVAE(PUBLISHED["ffhq256"])


@pytest.fixture(params=["vdvae_widths_lowbit", "vdvae_small"])
def reference(request, golden):
    vectors = golden(request.param)
    model = VDVAE(vectors.config)
    model.load_state_dict(vectors.weights, strict=True)
    return vectors, model.eval()


def finish(model, x):
    """The state as the published code records it: behind the final gain and bias."""
    return x * model.decoder.gain + model.decoder.bias


def assert_close(got, expected):
    scale = expected.abs().max().item()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * scale)


# --- the published code's numbers ---------------------------------------------------------------


@torch.no_grad()
def test_reproduces_the_published_activations(reference):
    vectors, model = reference
    activations = model.encoder(vectors["image"].permute(0, 3, 1, 2) / 255)
    assert sorted(activations) == [1, 4, 8, 16]
    for resolution, activation in activations.items():
        assert_close(activation, vectors[f"activation.{resolution}"])


@torch.no_grad()
def test_normalises_as_the_published_code(reference):
    vectors, model = reference
    image = vectors["image"].permute(0, 3, 1, 2) / 255
    assert_close(model.encoder.config.normalise(image), vectors["input"].permute(0, 3, 1, 2))


@torch.no_grad()
def test_reproduces_the_published_elbo(reference):
    vectors, model = reference
    image = vectors["image"].permute(0, 3, 1, 2) / 255
    elbo = model(image, vectors.noise("posterior"))
    expected = torch.stack([vectors[f"posterior.kl.{i}"] for i in range(len(elbo.rate))])
    torch.testing.assert_close(elbo.rate, expected, rtol=1e-5, atol=1e-5)
    nats_per_dim = elbo.distortion / image[0].numel()
    torch.testing.assert_close(nats_per_dim, vectors["posterior.distortion"], rtol=1e-5, atol=0)


@torch.no_grad()
def test_reproduces_the_published_sample(reference):
    vectors, model = reference
    temperature = float(vectors.metadata["temperature"])
    parameters = model.sample(2, SIZE, vectors.noise("prior"), temperature)
    assert_close(parameters.permute(0, 2, 3, 1), vectors["prior.logits"])


@torch.no_grad()
def test_reproduces_the_published_states(reference):
    vectors, model = reference
    noise, activations = (
        vectors.noise("posterior"),
        model.encoder(vectors["image"].permute(0, 3, 1, 2) / 255),
    )
    posterior = model.decoder.run(
        2, lambda block, shape, x: block.infer(x, activations[x.shape[-1]], noise(shape))[0]
    )
    assert_close(finish(model, posterior), vectors["posterior.px"])
    noise = vectors.noise("prior")
    prior = model.decoder.run(2, lambda block, shape, x: block.generate(x, noise(shape), 0.7))
    assert_close(finish(model, prior), vectors["prior.px"])


# --- the published models' shapes ---------------------------------------------------------------


@pytest.mark.parametrize("name", FACTS)
def test_published_models_have_the_published_sizes(name):
    config = PUBLISHED[name]
    with torch.device("meta"):
        model = VDVAE(config)
    heads = sum(count(block.enc) for block in model.decoder.blocks)
    latents = sum(s.channels * (config.image_size // s.cell) ** 2 for s in model.latent_shapes)
    assert (
        len(model.encoder.enc_blocks),
        len(model.decoder.dec_blocks),
        count(model.encoder),
        count(model.decoder),
        heads,
        len(model.state_dict()),
        latents,
    ) == FACTS[name]


def test_ffhq256_has_the_published_keys_and_shapes(ffhq256):
    shapes = {name: tuple(tensor.shape) for name, tensor in ffhq256.state_dict().items()}
    inner = {i: 1 if i < 2 else 3 for i in range(66)}
    expected = {
        "encoder.in_conv.weight": (512, 3, 3, 3),
        "encoder.in_conv.bias": (512,),
        "decoder.gain": (1, 512, 1, 1),
        "decoder.bias": (1, 512, 1, 1),
        "decoder.out_net.out_conv.weight": (100, 512, 1, 1),
        "decoder.out_net.out_conv.bias": (100,),
    }
    for i, resolution in enumerate((1, 4, 8, 16, 32, 64)):
        expected[f"decoder.bias_xs.{i}"] = (1, 512, resolution, resolution)
    for i in range(68):
        expected |= bottleneck_shapes(f"encoder.enc_blocks.{i}", 512, 512, 3 if i <= 63 else 1)
    for i, kernel in inner.items():
        prefix = f"decoder.dec_blocks.{i}"
        expected |= bottleneck_shapes(f"{prefix}.enc", 1024, 32, kernel)
        expected |= bottleneck_shapes(f"{prefix}.prior", 512, 544, kernel)
        expected |= bottleneck_shapes(f"{prefix}.resnet", 512, 512, kernel)
        expected |= {f"{prefix}.z_proj.weight": (512, 16, 1, 1), f"{prefix}.z_proj.bias": (512,)}
    assert shapes == expected


def bottleneck_shapes(prefix, channels_in, channels_out, kernel, mid=128):
    convs = {
        "c1": (mid, channels_in, 1, 1),
        "c2": (mid, mid, kernel, kernel),
        "c3": (mid, mid, kernel, kernel),
        "c4": (channels_out, mid, 1, 1),
    }
    shapes = {f"{prefix}.{name}.weight": shape for name, shape in convs.items()}
    return shapes | {f"{prefix}.{name}.bias": shape[:1] for name, shape in convs.items()}


def test_parameters_come_in_the_published_order(ffhq256):
    """The published optimiser states number the parameters."""
    groups = [".".join(name.split(".")[:2]) for name, _ in ffhq256.named_parameters()]
    assert list(dict.fromkeys(groups)) == [
        "encoder.in_conv",
        "encoder.enc_blocks",
        "decoder.gain",
        "decoder.bias",
        "decoder.dec_blocks",
        "decoder.bias_xs",
        "decoder.out_net",
    ]


def test_ffhq256_blocks_lie_where_published(ffhq256):
    resolutions = [layer.resolution for layer in ffhq256.decoder.layers]
    first = {r: resolutions.index(r) for r in sorted(set(resolutions))}
    assert first == {1: 0, 4: 2, 8: 6, 16: 11, 32: 21, 64: 43, 128: 57, 256: 65}
    assert ffhq256.latent_shapes[-1].cell == 1


def test_published_normalisation_and_likelihood():
    assert PUBLISHED["ffhq256"].low_bit
    assert not PUBLISHED["imagenet64"].low_bit
    grey = torch.full((1, 3, 1, 1), 0.4387)
    assert PUBLISHED["ffhq1024"].encoder.normalise(grey).abs().max().item() < 1e-6
    grey = torch.full((1, 3, 1, 1), (112.8666757481 + 69.84780273) / 255)
    torch.testing.assert_close(PUBLISHED["ffhq256"].encoder.normalise(grey), torch.ones(1, 3, 1, 1))


# --- initialisation -----------------------------------------------------------------------------


def test_fresh_model_starts_as_published(small, normals):
    torch.manual_seed(0)
    model = VDVAE(small)
    state = model.state_dict()
    biases = [v for k, v in state.items() if k.endswith(".bias") and v.dim() == 1]
    assert all((bias == 0).all() for bias in biases)
    assert all((block.prior.c4.weight == 0).all() for block in model.decoder.blocks)
    assert (model.decoder.gain == 1).all()
    assert all((bias == 0).all() for bias in model.decoder.bias_xs)
    bound = math.sqrt(1 / small.zdim) * math.sqrt(1 / len(model.decoder.blocks))
    largest = max(block.z_proj.weight.abs().max().item() for block in model.decoder.blocks)
    assert 0.9 * bound < largest <= bound
    x = torch.randn(1, 16, 8, 8)
    mean, log_std, state = model.decoder.blocks[3].prior_moments(x)
    assert mean.abs().max() == log_std.abs().max() == 0
    assert torch.equal(state, x)


# --- training -----------------------------------------------------------------------------------


def test_every_parameter_gets_a_gradient(model, small, normals):
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    elbo = model(image, normals(small, 2))
    assert elbo.distortion.shape == (2,)
    assert elbo.rate.shape == (len(small.decoder_layers), 2)
    assert (elbo.rate > 0).all()
    (elbo.distortion + elbo.rate.sum(0)).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_pictures_of_a_batch_do_not_mix(model, small, normals):
    image = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    noise = normals(small, 3)
    together = model(image, noise)
    alone = model(image[1:2], lambda shape: noise(shape)[1:2])
    torch.testing.assert_close(together.distortion[1:2], alone.distortion)
    torch.testing.assert_close(together.rate[:, 1:2], alone.rate)


def test_low_bit_scores_floored_targets(small):
    config = dataclasses.replace(small, low_bit=True)
    parameters = torch.randn(1, 20, 16, 16, generator=torch.Generator().manual_seed(0))
    image = torch.full((1, 3, 16, 16), 103 / 255)
    floored = torch.full((1, 3, 16, 16), 96 / 255)
    assert distortion(image, parameters, config) == distortion(floored, parameters, config)
    assert distortion(image, parameters, small) != distortion(floored, parameters, small)


def test_set_trainable_counts_what_trains(model):
    trained = set_trainable(model, lambda name: name.startswith("encoder."))
    assert trained == count(model.encoder)
    assert not any(parameter.requires_grad for parameter in model.decoder.parameters())


# --- sampling -----------------------------------------------------------------------------------


@torch.no_grad()
def test_temperature_zero_is_the_mean_path_and_asks_for_no_noise(model):
    def no_noise(shape):
        raise AssertionError("asked for noise")

    expected = model.sample(2, SIZE, None)
    assert torch.equal(model.sample(2, SIZE, no_noise, 0.0), expected)
    assert torch.equal(expected[0], expected[1])


@torch.no_grad()
def test_same_noise_same_picture_other_noise_another(model, small, normals):
    first = model.sample(2, SIZE, normals(small, 2), 0.8)
    assert torch.equal(first, model.sample(2, SIZE, normals(small, 2), 0.8))
    assert not torch.allclose(first, model.sample(2, SIZE, normals(small, 2, seed=1), 0.8))


@torch.no_grad()
def test_temperature_multiplies_the_noise(model, small, normals):
    noise = normals(small, 1)
    tempered = model.sample(1, SIZE, noise, 0.3)
    scaled = model.sample(1, SIZE, lambda shape: 0.3 * noise(shape), 1.0)
    torch.testing.assert_close(tempered, scaled)


@torch.no_grad()
def test_noise_is_asked_for_once_a_layer_in_order(model, small, normals):
    asked = []
    noise = normals(small, 1)
    model.sample(1, SIZE, lambda shape: (asked.append(shape), noise(shape))[1])
    assert asked == model.latent_shapes
    assert [shape.cell for shape in asked] == [16, 4, 4, 2, 2, 2, 1, 1]


@torch.no_grad()
def test_states_of_finished_resolutions_are_freed(model):
    produced: dict[int, list[weakref.ref]] = {}

    def step(block, shape, x):
        if shape.layer == len(model.latent_shapes) - 1:
            gc.collect()
            alive = {r for r, refs in produced.items() if any(ref() is not None for ref in refs)}
            assert alive == {16}
        x = block.generate(x, None, 1.0)
        produced.setdefault(x.shape[-1], []).append(weakref.ref(x))
        return x

    model.decoder.run(1, step)
    assert sorted(produced) == [1, 4, 8, 16]


@torch.no_grad()
def test_half_precision_keeps_the_likelihood_in_float32(model, small, normals):
    expected = model.sample(1, SIZE, normals(small, 1), 0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.sample(1, SIZE, normals(small, 1), 0.5)
        assert model(torch.rand(1, 3, 16, 16), normals(small, 1)).rate.dtype == torch.float32
    half = model.bfloat16().sample(1, SIZE, normals(small, 1), 0.5)
    for parameters in (mixed, half):
        assert parameters.dtype == torch.float32
        assert (parameters - expected).std() < 0.1 * expected.std()


# --- configuration ------------------------------------------------------------------------------


def test_parses_layer_strings():
    assert parse_layers("8x2,8d4,2,4m2") == (
        Layer(resolution=8),
        Layer(resolution=8),
        Layer(resolution=8, down_rate=4),
        Layer(resolution=2),
        Layer(resolution=4, mixin=2),
    )
    assert parse_widths("8:24,4:32") == {8: 24, 4: 32}
    assert parse_widths("") == {}


@pytest.mark.parametrize("text", ["", "8x", "x8", "8x2,", "8y2", "8x2x3", "-8", "08", "8x0"])
def test_refuses_malformed_layer_strings(text):
    with pytest.raises(ValueError, match="layer string"):
        parse_layers(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"enc_blocks": "16x2,8x2"}, "follows an output"),
        ({"enc_blocks": "16d3,5x1"}, "does not divide"),
        ({"enc_blocks": "16m8"}, "has no m"),
        ({"enc_blocks": "16x2,16d2,8x2"}, "no activation at resolution 1"),
        ({"custom_width_str": "8:8"}, "shrinks"),
        ({"custom_width_str": "16:8"}, "must hold at image_size"),
        ({"dec_blocks": "1x1,4m1,8m4"}, "must end at image_size"),
        ({"dec_blocks": "1x1,8m4,16m8"}, "comes later"),
        ({"dec_blocks": "1x1,4d2,16x1"}, "has no d"),
    ],
)
def test_refuses_inconsistent_configs(small, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(small, **changes)


def test_config_survives_a_dictionary(small):
    assert VDVAEConfig(**dataclasses.asdict(small)) == small


def test_encoder_refuses_another_size():
    config = EncoderConfig(
        image_size=8, enc_blocks="8x1", width=4, input_shift=0.0, input_scale=1.0
    )
    with pytest.raises(ValueError, match=r"expected \(B, 3, 8, 8\)"):
        Encoder(config)(torch.zeros(1, 3, 8, 9))
