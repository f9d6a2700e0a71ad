"""The coupled likelihood against its definition."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from vdsr_cli.models.causal import PixelsBefore
from vdsr_cli.models.colours import USUAL_TAIL, Colours
from vdsr_cli.models.compact import CompactVDVAESR
from vdsr_cli.models.compact_prior import CompactVDVAE, CompactVDVAESROnPrior
from vdsr_cli.models.distributions import discretized_logistic_log_prob, from_tails, to_tails
from vdsr_cli.models.logistic import (
    logistic_log_prob,
    logistic_pixels,
    negative_log_likelihood,
)
from vdsr_cli.models.registry import build_model, config_of
from vdsr_cli.models.widening import coupled

COUPLED = {"coupled": True, "neighbours": True}
LEVELS = 2 * torch.arange(256, dtype=torch.float64) / 255 - 1


def parameters(*values: float) -> torch.Tensor:
    """One pixel's (1, 9, 1, 1)."""
    return torch.tensor(values, dtype=torch.float64).view(1, 9, 1, 1)


CASES = [
    parameters(0.1, -0.2, 0.3, -3, -4, -5, 1.5, -0.4, 0.9),
    parameters(-0.98, 1.2, -1.4, -2, -1, -6, 5, 5, -5),
    parameters(0.5, 0.5, 0.5, -7, -7, 2, 0, 0, 0),
]


def raw_coefficient(value: float) -> float:
    """The network's output for a coefficient of ``value``."""
    return 2 * math.atanh(value / 2)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("colour", [0, 1, 2])
def test_each_colour_sums_to_one_given_those_before(case, colour):
    for red, green in product((0, 90, 255), (0, 131, 255)):
        grey = torch.tensor([red, green, 17], dtype=torch.float64).view(1, 3, 1, 1)
        hr = (grey / 127.5 - 1).expand(256, -1, -1, -1).clone()
        hr[:, colour, 0, 0] = LEVELS
        log_prob = logistic_log_prob(hr, case)
        assert log_prob.dtype == torch.float64 and log_prob.shape == (256, 3, 1, 1)
        assert log_prob[:, colour].exp().sum().item() == pytest.approx(1, abs=1e-12)
        assert (log_prob[:, :colour] == log_prob[:1, :colour]).all()


def test_every_colour_there_is_sums_to_one():
    """Explicitly, over 256 x 256 x 256 of them: narrow, so that few need be added up."""
    case, total = CASES[0], 0.0
    greens, blues = torch.meshgrid(LEVELS, LEVELS, indexing="ij")
    for red in LEVELS:
        hr = torch.stack([red.expand_as(greens), greens, blues]).unsqueeze(0)
        total += logistic_log_prob(hr, case.expand(-1, -1, 256, 256)).sum(1).exp().sum().item()
    assert total == pytest.approx(1, abs=1e-12)


def test_without_coefficients_it_is_the_independent_one():
    hr = torch.randint(0, 256, (2, 3, 4, 4)) / 127.5 - 1
    independent = torch.randn(2, 6, 4, 4)
    zero = torch.cat([independent, torch.zeros(2, 3, 4, 4)], dim=1)
    noise = torch.randn(2, 3, 4, 4)
    assert torch.equal(logistic_log_prob(hr, zero), logistic_log_prob(hr, independent))
    for drawn in (None, noise):
        assert torch.equal(logistic_pixels(zero, drawn), logistic_pixels(independent, drawn))


def test_a_draw_moves_green_and_blue_with_red():
    """Red comes out 0.05 above its mean, green therefore 0.04, and 0.01 by its own noise."""
    a, b, c = (raw_coefficient(value) for value in (0.8, 0.5, 1.2))
    case = parameters(0.1, 0.2, 0.3, math.log(0.01), math.log(0.01), math.log(0.01), a, b, c)
    noise = torch.tensor([5.0, 1.0, 0.0], dtype=torch.float64).view(1, 3, 1, 1)
    drawn = logistic_pixels(case, noise).flatten()
    expected = [0.15, 0.25, 0.3 + 0.5 * 0.05 + 1.2 * 0.05]
    assert drawn.tolist() == pytest.approx(expected, abs=1e-12)
    assert torch.equal(logistic_pixels(case, None), case[:, :3])


def test_draws_have_the_entropy_of_the_likelihood():
    """That of a logistic is log scale + 2, in each colour given those before."""
    case = parameters(0.1, -0.2, 0.3, -3, -3.5, -3, 1.5, -0.4, 0.9).expand(-1, -1, 400, 500)
    uniform = torch.rand(1, 3, 400, 500, generator=torch.Generator().manual_seed(0)).double()
    levels = (logistic_pixels(case, uniform.logit()) + 1) * 127.5
    hr = levels.round() / 127.5 - 1
    entropy = -logistic_log_prob(hr, case).sum(1)
    differential = sum(log_scale + 2 + math.log(127.5) for log_scale in (-3, -3.5, -3))
    error = 5 * entropy.std().item() / entropy.numel() ** 0.5
    assert entropy.mean().item() == pytest.approx(differential, abs=error + 0.003)


@pytest.fixture
def grainy():
    """Parameters of 2x2 blocks of 8x8 whose pixels depend on their neighbours."""
    drawn = torch.randn(1, 21, 16, 16, generator=torch.Generator().manual_seed(3)).double()
    scale = torch.tensor([0.3] * 3 + [0.2] * 3 + [0.5] * 15).view(1, 21, 1, 1)
    return drawn * scale - torch.tensor([0.0] * 3 + [3.5] * 3 + [0.0] * 15).view(1, 21, 1, 1)


@pytest.fixture(params=[0, 5], ids=["weights alone", "network"])
def before(request):
    """What looks at the pixels before, with a network of any weights or without one."""
    found = PixelsBefore(8, request.param).double().requires_grad_(False)
    generator = torch.Generator().manual_seed(4)
    for value in found.parameters():
        value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    return found


def random_levels(*shape):
    return (torch.randint(0, 256, shape) / 127.5 - 1).double()


@pytest.mark.parametrize(("y", "x"), [(0, 0), (3, 4), (7, 7), (8, 7), (9, 8), (15, 12)])
@pytest.mark.parametrize("colour", [0, 1, 2])
def test_each_pixel_sums_to_one_given_those_before_in_its_block(grainy, before, y, x, colour):
    hr = random_levels(1, 3, 16, 16).expand(256, -1, -1, -1).clone()
    hr[:, colour, y, x] = LEVELS
    log_prob = logistic_log_prob(hr, grainy.expand(256, -1, -1, -1), before)
    assert log_prob[:, colour, y, x].exp().sum().item() == pytest.approx(1, abs=1e-12)
    depends = (log_prob != log_prob[:1]).any(dim=0).any(dim=0)
    rows, columns = depends.nonzero().unbind(1)
    assert ((rows // 8 == y // 8) & (columns // 8 == x // 8)).all()
    assert ((rows > y) | ((rows == y) & (columns >= x))).all()
    if before.network is None:
        assert len(rows) == 1 + (x % 8 < 7) + (y % 8 < 7) * (1 + (x % 8 < 7) + (x % 8 > 0))
    else:
        assert len(rows) > 1 or (y % 8, x % 8) == (7, 7)


def test_blocks_looked_at_one_by_one_are_those_looked_at_together(grainy, before, monkeypatch):
    hr = random_levels(1, 3, 16, 16)
    together = logistic_log_prob(hr, grainy, before)
    monkeypatch.setattr("vdsr_cli.models.causal._AT_ONCE", 64)
    torch.testing.assert_close(logistic_log_prob(hr, grainy, before), together)


def test_a_draw_is_its_noise_away_from_where_the_pixels_before_put_it(grainy, before):
    grainy[:, :3] *= 0.2  # no draw is beyond white or black
    uniform = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    noise = (0.9 * uniform + 0.05).logit()
    drawn = logistic_pixels(grainy, noise, before)
    assert drawn.shape == (1, 3, 16, 16) and drawn.abs().max() < 1
    colours, pixels = before.colours(drawn, grainy), drawn.movedim(1, -1)
    off = pixels - colours.located(pixels)
    again = off / colours.scaled(off).exp()
    if colours.tail is not None:
        again = from_tails(again, colours.tail)
    torch.testing.assert_close(again.movedim(-1, 1), noise, rtol=0, atol=1e-10)
    assert torch.equal(logistic_pixels(grainy, None, before), grainy[:, :3])


def test_what_a_pixel_takes_over_dies_away(grainy):
    """The widest weights there are: far from the one that is off by 0.5 others are hardly so."""
    grainy[:, :3], grainy[:, 3:6], grainy[:, 6:9], grainy[:, 9:] = 0, -7, 0, 1e3
    noise = torch.zeros(1, 3, 16, 16).double()
    noise[..., 8, 8] = 0.5 * math.exp(7)
    off = logistic_pixels(grainy, noise, PixelsBefore(8, 0)).abs()
    assert off[..., 8, 8].min().item() == pytest.approx(0.5)
    assert off[..., 8:, 8:].max() <= 0.5 and 0 < off[..., 15, 15].max() < 0.1
    off[..., 8:, 8:] = 0
    assert not off.any()


def test_without_neighbours_weights_it_is_the_coupled_one(grainy, monkeypatch):
    monkeypatch.setattr("vdsr_cli.models.causal._COPY_COST", 1e3)  # no colour is copied
    grainy[:, 9:] = 0
    hr, noise = random_levels(1, 3, 16, 16), torch.randn(1, 3, 16, 16).double()
    tails = torch.full_like(noise, USUAL_TAIL)
    alone = Colours.of(grainy[:, :9].movedim(1, -1))
    tailed = alone._replace(tail=tails.movedim(1, -1))
    for fresh, same, stretched in (
        (PixelsBefore(8, 0), alone, noise),
        (PixelsBefore(8, 5).double(), tailed, to_tails(noise, tails)),
    ):
        expected = same.log_prob(hr.movedim(1, -1)).movedim(-1, 1)
        torch.testing.assert_close(logistic_log_prob(hr, grainy, fresh), expected)
        drawn = logistic_pixels(grainy, noise, fresh)
        torch.testing.assert_close(drawn, logistic_pixels(grainy[:, :9], stretched))


def trained(shade, parameters, *, steps, width=16):
    """Nats of each colour (B, 3, H, W), the mean over ten pictures, under a network that has seen
    so many: what ``shade`` returns is added to middle grey, in grey levels."""
    torch.manual_seed(0)
    found = PixelsBefore(16, width)
    optimizer = torch.optim.Adam(found.parameters(), 0.01)

    def nats():
        hr = (128 + shade()).round().clamp(0, 255) / 127.5 - 1
        return -logistic_log_prob(hr, parameters, found)

    for _ in range(steps):
        optimizer.zero_grad()
        nats().mean().backward()
        optimizer.step()
    with torch.no_grad():
        return torch.stack([nats() for _ in range(10)]).mean(0)


def test_the_network_learns_how_much_grain_there_is(grainy):
    """Of two pictures, one with a tenth of the other's grain, whose parameters are the same."""
    torch.manual_seed(0)
    parameters = grainy.new_zeros(2, 21, 16, 16)
    parameters[:, 3:6] = -3
    grain = torch.tensor([0.1, 1.0]).view(2, 1, 1, 1)
    found = PixelsBefore(16, 16)
    optimizer = torch.optim.Adam(found.parameters(), 0.01)
    losses = []
    for _ in range(200):
        noise = torch.rand(2, 3, 16, 16).clamp(1e-4, 1 - 1e-4).logit()
        hr = ((grain * math.exp(-3) * noise * 127.5).round() / 127.5).clamp(-1, 1)
        loss = negative_log_likelihood(hr, parameters.float(), found).sum() / hr.numel()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.4


def test_the_network_learns_that_colours_come_in_pairs():
    """Of grey grain with a colour for two pixels, green and blue follow from red where x is odd; in
    a picture whose every pixel has a colour of its own they do nowhere."""

    def paired():
        colour = torch.randint(-20, 21, (2, 3, 16, 16))
        colour[:, 1] = 0
        colour[0, :, :, 1::2] = colour[0, :, :, ::2]
        return torch.randint(-20, 21, (2, 1, 16, 16)) + colour

    parameters = torch.zeros(2, 21, 16, 16)
    parameters[:, 3:6] = -3
    nats = trained(paired, parameters, steps=500, width=32)
    even, odd = (nats[:, 1:, :, start::2].mean(dim=(1, 2, 3)).tolist() for start in (0, 1))
    assert odd[0] < 0.6 and even[0] > 3
    assert odd[1] == pytest.approx(even[1], abs=0.2)


def test_the_network_learns_that_a_red_speck_is_one_in_green_and_blue():
    """Where specks are that no pixel before tells of, all colours differ much, elsewhere little:
    green and blue take fewer nats than red, which is to say where. Scales alike take as many."""

    def specks():
        size = torch.where(torch.rand(4, 1, 16, 16) < 0.2, 30.0, 1.0)
        return size * torch.randn(4, 3, 16, 16)

    parameters = torch.zeros(4, 21, 16, 16)
    parameters[:, 3:6] = -3
    red, green, blue = trained(specks, parameters, steps=600).mean(dim=(0, 2, 3)).tolist()
    assert green < red - 0.1 and blue < red - 0.1


def test_the_network_learns_how_heavy_tails_are():
    """One pixel in thirty is anything, the others are within a level or two: a logistic pays for
    each that is far by the level, tails by its logarithm."""

    def rare():
        far = torch.rand(4, 3, 16, 16) < 1 / 30
        return torch.where(far, 200 * torch.rand(4, 3, 16, 16) - 100, torch.randn(4, 3, 16, 16))

    parameters = torch.zeros(4, 21, 16, 16)
    parameters[:, 3:6] = -4
    nats = trained(rare, parameters, steps=300).mean().item()
    values = rare().flatten() / 127.5
    fixed = [
        -discretized_logistic_log_prob(values, torch.zeros(1), torch.tensor(log_scale))
        .mean()
        .item()
        for log_scale in torch.arange(-6, 0, 0.1).tolist()
    ]
    assert nats < min(fixed) - 0.2


def test_over_a_palette_each_pixel_sums_to_one(grainy, before):
    palette = random_levels(7, 3)
    palette[0, 1], palette[1, 2] = -1, 1
    hr = palette[torch.randint(0, 7, (16, 16))].permute(2, 0, 1)[None]
    whole = logistic_log_prob(hr, grainy, before).sum().item()
    nats = negative_log_likelihood(hr, grainy, before, palette).item()
    sums = torch.stack(
        [
            before.colours(hr, grainy).log_prob(colour.expand(1, 16, 16, 3)).sum(-1)
            for colour in palette
        ]
    ).logsumexp(0)
    assert nats == pytest.approx(sums.sum().item() - whole, rel=1e-12)
    assert 0 < nats < -whole
    alone = negative_log_likelihood(hr[..., :1, :1], grainy[:, :9, :1, :1], None, hr[..., 0, 0])
    assert alone.item() == pytest.approx(0, abs=1e-12)


def test_neighbours_take_coupled_colours_and_a_context_neighbours(tiny_model):
    for values in ({"neighbours": True}, {"coupled": True, "context": 8}):
        with pytest.raises(ValueError, match="neighbours"):
            replace(tiny_model.config, **values)
    with pytest.raises(ValueError, match="wide"):
        replace(tiny_model.config, coupled=True, neighbours=True, context=10**6)


def test_a_model_of_either_kind_round_trips_by_its_header(tiny_model):
    for coupling in ({}, {"coupled": True}, COUPLED, COUPLED | {"context": 8}):
        model = CompactVDVAESR(replace(tiny_model.config, **coupling))
        again = build_model("compact-vdvae-sr", config_of(model))
        again.load_state_dict(model.state_dict(), strict=True)
        assert again.config == model.config


def test_a_header_of_before_has_independent_colours(tiny_model):
    header = config_of(tiny_model)
    for name in ("coupled", "neighbours", "context"):
        del header[name]
    model = build_model("compact-vdvae-sr", header)
    assert not model.config.coupled
    model.load_state_dict(tiny_model.state_dict(), strict=True)


@pytest.mark.parametrize("kind", [CompactVDVAESR, CompactVDVAE, CompactVDVAESROnPrior])
def test_coupling_an_old_model_changes_nothing_but_tails_at_first(kind, tiny_model, randomise):
    model = kind(tiny_model.config).requires_grad_(False)
    randomise(model)
    grown = coupled(model)
    assert grown.config.coupled and grown.config.neighbours and coupled(grown) is grown
    hr = torch.randint(0, 256, (1, 3, 32, 32)) / 127.5 - 1
    lr = torch.rand(1, 3, 8, 8)

    def noise(shape):
        generator = torch.Generator().manual_seed(shape.layer)
        size = (1, shape.channels, 32 // shape.cell, 32 // shape.cell)
        return torch.randn(size, generator=generator)

    grown.before.network = None
    inputs = ((hr + 1) / 2, noise) if kind is CompactVDVAE else (hr, lr, noise)
    (before, _), (after, _) = (m.elbo_and_mean(*inputs) for m in (model, grown))
    torch.testing.assert_close(after.rate, before.rate, rtol=0, atol=0)
    torch.testing.assert_close(after.distortion, before.distortion, rtol=1e-6, atol=0)
    sample = (1, (32, 32)) if kind is CompactVDVAE else (lr,)
    drawn = grown.sample(*sample, noise, 1.0)
    assert drawn.shape == (1, 21, 32, 32) and not drawn[:, 6:].any()
    torch.testing.assert_close(drawn[:, :6], model.sample(*sample, noise, 1.0))


def test_the_coefficients_train(tiny_model):
    model = coupled(tiny_model)
    hr = torch.randint(0, 256, (1, 3, 32, 32)) / 127.5 - 1
    noise = {
        s.layer: torch.randn(1, s.channels, 32 // s.cell, 32 // s.cell) for s in model.latent_shapes
    }
    elbo, _ = model.elbo_and_mean(hr, torch.rand(1, 3, 8, 8), lambda shape: noise[shape.layer])
    elbo.distortion.sum().backward()
    for head in (model.coupling, model.neighbours, model.before.network[-1]):
        assert head.weight.grad.any() and head.bias.grad.any()
