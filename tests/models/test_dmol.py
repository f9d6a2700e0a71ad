"""The discretised mixture of logistics, against the published code and against its definition."""

import itertools
import math

import pytest
import torch

from vdsr_cli.models.dmol import (
    LOW_BIT_OFFSET,
    clipped_logistic_mean,
    dmol_log_prob,
    dmol_mean,
    dmol_nll,
    dmol_sample,
    logistic_bin_log_prob,
    split_mixture,
    to_image,
    to_levels,
)

LEVELS = torch.arange(256) / 127.5 - 1
LOW_LEVELS = torch.arange(0, 256, 8) / 127.5 - 1


def channels_first(tensor):
    return tensor.permute(0, 3, 1, 2)


def mixture_parameters(*, logits, mean, log_scale, coefficient):
    """One pixel's parameters from lists: logits (K), the others (3, K), coefficients as used."""
    rest = torch.stack(
        [torch.tensor(mean), torch.tensor(log_scale), torch.atanh(torch.tensor(coefficient))], dim=1
    )
    return torch.cat([torch.tensor(logits), rest.flatten()])[None, :, None, None]


@pytest.mark.parametrize("name", ["dmol_8bit", "vdvae_widths_lowbit", "vdvae_small"])
def test_reproduces_the_published_likelihood(golden, name):
    vectors = golden(name)
    parameters = channels_first(vectors["posterior.logits"])
    target = channels_first(vectors["target"])
    low_bit = vectors.metadata["low_bit"] == "true"
    nats = dmol_nll(target, parameters, low_bit=low_bit) / target[0].numel()
    torch.testing.assert_close(nats, vectors["posterior.distortion"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["dmol_8bit", "vdvae_widths_lowbit", "vdvae_small"])
def test_reproduces_the_published_draw(golden, name):
    vectors = golden(name)
    names = ("prior.logits", "dmol.u_component", "dmol.u_value")
    draw = dmol_sample(*(channels_first(vectors[name]) for name in names))
    torch.testing.assert_close(draw, channels_first(vectors["dmol.draw"]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["dmol_8bit", "vdvae_widths_lowbit"])
def test_levels_are_the_published_targets(golden, name):
    vectors = golden(name)
    image = channels_first(vectors["image"]) / 255
    levels = to_levels(image, low_bit=vectors.metadata["low_bit"] == "true")
    torch.testing.assert_close(levels, channels_first(vectors["target"]), rtol=1e-6, atol=1e-6)


def nats_by_hand(grey, parameters, levels):
    """-log p of one pixel, three grey levels, in Python's double precision: PixelCNN++'s formulas.

    ``parameters`` are the 10 K numbers of the pixel, in the published order.
    """
    count = len(parameters) // 10
    logits, rest = parameters[:count], parameters[count:]
    red, green, blue = ((level - 127.5) / 127.5 for level in grey)
    total = 0.0
    for k in range(count):
        mean, log_scale, coefficient = (
            [rest[3 * count * colour + count * kind + k] for colour in range(3)]
            for kind in range(3)
        )
        weights = [math.tanh(value) for value in coefficient]
        centres = [
            mean[0],
            mean[1] + weights[0] * red,
            mean[2] + weights[1] * red + weights[2] * green,
        ]
        likelihood = math.exp(logits[k]) / sum(math.exp(logit) for logit in logits)
        for value, centre, log in zip((red, green, blue), centres, log_scale, strict=True):
            likelihood *= mass_by_hand(value, centre, math.exp(max(log, -7.0)), levels)
        total += likelihood
    return -math.log(total)


def mass_by_hand(value, centre, scale, levels):
    """The logistic's mass in a bin of width 2 / (levels - 1); all beyond it at either end."""

    def below(edge):
        return 1 / (1 + math.exp((centre - edge) / scale))

    half = 1 / (levels - 1)
    if value < -0.999:
        return below(value + half)
    if value > 0.999:
        return 1 - below(value - half)
    mass = below(value + half) - below(value - half)
    if mass > 1e-5:
        return mass
    return below(value) * (1 - below(value)) / scale * 2 * half


GREYS = [(0, 0, 255), (255, 128, 0), (127, 128, 129), (8, 250, 77), (96, 96, 96), (200, 3, 0)]


@pytest.mark.parametrize(("low_bit", "levels"), [(False, 256), (True, 32)])
@pytest.mark.parametrize(("spread", "tolerance"), [(1.0, 1e-5), (8.0, 1e-3)])
def test_one_pixel_equals_the_sums_by_hand(low_bit, levels, spread, tolerance):
    """Near the components' centres; and far out, where single precision cancels a little."""
    generator = torch.Generator().manual_seed(0)
    for grey in GREYS:
        seen = [level // 8 * 8 if low_bit else level for level in grey]
        red, green, _ = values = [(level - 127.5) / 127.5 for level in seen]
        logits, *rest = torch.randn(10, 3, generator=generator, dtype=torch.float64)
        mean, log_scale, coefficient = torch.stack(rest).view(3, 3, 3).unbind(1)
        log_scale = log_scale - 3
        first, second, third = torch.tanh(coefficient)
        shift = torch.stack([0 * first, first * red, second * red + third * green])
        mean = torch.tensor(values)[:, None] - shift + spread * log_scale.exp() * mean
        rest = torch.stack([mean, log_scale, coefficient], dim=1)
        parameters = torch.cat([logits, rest.flatten()])
        target = to_levels(torch.tensor(grey)[None, :, None, None] / 255, low_bit=low_bit)
        nats = dmol_nll(target, parameters[None, :, None, None], low_bit=low_bit).item()
        by_hand = nats_by_hand(seen, parameters.tolist(), levels)
        assert nats == pytest.approx(by_hand, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("log_scale", [-7.0, -5.0, -3.0, -1.0, 1.0])
@pytest.mark.parametrize("location", [-1.3, -0.999, 0.0, 0.1, 0.7, 2.0])
def test_one_colour_sums_to_one(location, log_scale):
    log_prob = logistic_bin_log_prob(LEVELS, torch.tensor(location), torch.tensor(log_scale))
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_one_pixel_sums_to_one_over_all_colours():
    parameters = mixture_parameters(
        logits=[0.3, -0.5],
        mean=[[0.0, 0.02], [0.01, -0.02], [-0.01, 0.0]],
        log_scale=[[-5.5, -5.7], [-5.6, -5.4], [-5.5, -5.9]],
        coefficient=[[0.5, -0.4], [0.3, 0.1], [-0.6, 0.2]],
    )
    values = LEVELS[128 - 20 : 128 + 20]
    colours = torch.tensor(list(itertools.product(values.tolist(), repeat=3)))
    log_prob = dmol_log_prob(colours[:, :, None, None], parameters.expand(len(colours), -1, 1, 1))
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("log_scale", "location", "total"), [(-2.0, 0.0, 1.027), (-7.0, 0.1, 1.19)]
)
def test_low_bit_bins_overlap_as_documented(log_scale, location, total):
    log_prob = logistic_bin_log_prob(
        LOW_LEVELS, torch.tensor(location), torch.tensor(log_scale), low_bit=True
    )
    # The largest target is 248, so the last bin is an ordinary one and the right tail is lost.
    assert log_prob.exp().sum().item() == pytest.approx(total, abs=0.02)


def test_extreme_parameters_stay_finite_with_their_gradients():
    parameters = (
        50 * torch.randn(2, 30, 4, 4, generator=torch.Generator().manual_seed(0))
    ).requires_grad_()
    target = LEVELS[torch.randint(256, (2, 3, 4, 4), generator=torch.Generator().manual_seed(1))]
    loss = dmol_nll(target, parameters).sum()
    loss.backward()
    assert loss.isfinite()
    assert parameters.grad.isfinite().all()


def test_mean_takes_each_components_own_red():
    weight, red, green_mean, coefficient = (0.25, 0.75), (-0.4, 0.5), (0.1, -0.2), (0.6, -0.5)
    parameters = mixture_parameters(
        logits=[math.log(w) for w in weight],
        mean=[list(red), list(green_mean), [0.0, 0.0]],
        log_scale=[[-6.0, -6.0]] * 3,
        coefficient=[list(coefficient), [0.3, 0.2], [-0.1, 0.4]],
    )
    green = [m + c * r for m, c, r in zip(green_mean, coefficient, red, strict=True)]
    blue = [0.3 * red[0] - 0.1 * green[0], 0.2 * red[1] + 0.4 * green[1]]
    expected = [weight[0] * c[0] + weight[1] * c[1] for c in (red, green, blue)]
    torch.testing.assert_close(
        dmol_mean(parameters).flatten(), torch.tensor(expected), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("centre", [0.0, 0.9])
def test_mean_is_the_mean_of_draws(centre):
    draws = 200_000
    generator = torch.Generator().manual_seed(0)
    parameters = mixture_parameters(
        logits=[0.2, 0.0],
        mean=[[centre, -0.2], [0.1, 0.3], [2.0 if centre else 0.2, 0.0]],
        log_scale=[[-3.0, -2.5], [-3.0, -4.0], [-3.5, -2.5]],
        coefficient=[[0.5, -0.4], [0.3, 0.1], [-0.6, 0.2]],
    )
    sample = dmol_sample(
        parameters.expand(1, -1, 1, draws),
        torch.rand(1, 2, 1, draws, generator=generator),
        torch.rand(1, 3, 1, draws, generator=generator),
    )
    error = dmol_mean(parameters).flatten() - sample.mean(dim=3).flatten()
    assert (error.abs() < 4 * sample.std(dim=3).flatten() / draws**0.5 + 2e-3).all()


def test_mean_near_black_and_white_is_that_of_draws_in_float64():
    """Where clipped colours move others: the mean at the expected colours is levels off."""
    pixels, draws = 60, 40_000
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(3, 3, pixels, generator=generator, dtype=torch.float64)
    mean, log_scale, coefficient = 2.4 * uniform[0] - 1.2, -4 + 2 * uniform[1], 2 * uniform[2] - 1
    noise = torch.logit(torch.rand(3, draws, pixels, generator=generator, dtype=torch.float64))
    values = mean[:, None] + log_scale.exp()[:, None] * noise
    red = values[0].clamp(-1, 1)
    green = (values[1] + coefficient[0] * red).clamp(-1, 1)
    blue = (values[2] + coefficient[1] * red + coefficient[2] * green).clamp(-1, 1)
    drawn = torch.stack([red, green, blue])
    rest = torch.stack([mean, log_scale, torch.atanh(coefficient)], dim=1)
    parameters = torch.cat([torch.zeros(1, pixels), rest.float().view(9, pixels)])[None, :, None]
    error = (dmol_mean(parameters)[0, :, 0] - drawn.mean(1)).abs() * 127.5
    chance = 4 * drawn.std(1) / draws**0.5 * 127.5
    assert (error < 0.2 + chance).all()
    at_red = mean[1] + coefficient[0] * clipped_logistic_mean(mean[0], log_scale[0])
    at_expected = clipped_logistic_mean(at_red, log_scale[1])
    assert ((at_expected - drawn[1].mean(0)).abs() * 127.5).max() > 3


def test_the_mean_has_gradients():
    parameters = torch.randn(1, 20, 2, 2, requires_grad=True)
    dmol_mean(parameters).sum().backward()
    assert torch.isfinite(parameters.grad).all() and parameters.grad.abs().sum() > 0


def test_clipped_mean_of_a_sure_component_saturates():
    location = torch.tensor([-3.0, -0.5, 0.0, 0.25, 7.0])
    mean = clipped_logistic_mean(location, torch.full((5,), -7.0))
    torch.testing.assert_close(mean, location.clamp(-1, 1), rtol=0, atol=1e-5)


def test_draws_stay_in_range_at_the_ends_of_the_uniforms():
    parameters = torch.zeros(1, 20, 2, 2)
    for end in (0.0, 1.0):
        draw = dmol_sample(parameters, torch.full((1, 2, 2, 2), end), torch.full((1, 3, 2, 2), end))
        assert draw.isfinite().all()
        assert draw.abs().max() <= 1


def test_half_precision_parameters_are_computed_in_float32():
    parameters = torch.zeros(1, 20, 2, 2, dtype=torch.bfloat16)
    assert dmol_mean(parameters).dtype == torch.float32
    assert dmol_nll(torch.zeros(1, 3, 2, 2), parameters).dtype == torch.float32


def test_refuses_channels_that_are_no_mixture():
    with pytest.raises(ValueError, match="10 for each component"):
        split_mixture(torch.zeros(1, 25, 2, 2))


def test_image_and_levels_are_inverse_on_the_grey_levels():
    image = torch.arange(256) / 255
    torch.testing.assert_close(to_image(to_levels(image)), image)


def test_low_bit_offset_centres_the_five_bit_pictures():
    image = torch.arange(256) / 255
    dark = to_image(to_levels(image, low_bit=True))
    centred = to_image(to_levels(image, low_bit=True) + 2 * LOW_BIT_OFFSET)
    assert (image - dark).mean().item() == pytest.approx(LOW_BIT_OFFSET, abs=1e-6)
    assert (image - centred).mean().item() == pytest.approx(0, abs=1e-6)
