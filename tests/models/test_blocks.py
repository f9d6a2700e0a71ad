"""One stochastic layer, against the same sums written out by hand."""

import pytest
import torch
import torch.nn.functional as F

from vdsr_cli.models.blocks import BlockStyle, Bottleneck, TopDownBlock
from vdsr_cli.models.distributions import gaussian_kl

WIDTH, LATENTS, SIDE = 12, 3, 6
BOTTLENECK, PLAIN = BlockStyle(kind="bottleneck"), BlockStyle(kind="plain")


@pytest.fixture
def block(randomise):
    block = TopDownBlock(WIDTH, LATENTS, BOTTLENECK, gated=True, lr_posterior=True).double()
    randomise(block)
    return block


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(3)
    return {
        "x": torch.randn(2, WIDTH, SIDE, SIDE, generator=generator, dtype=torch.float64),
        "activation": torch.randn(2, WIDTH, SIDE, SIDE, generator=generator, dtype=torch.float64),
        "lr": torch.randn(2, WIDTH, SIDE, SIDE, generator=generator, dtype=torch.float64),
        "epsilon": torch.randn(2, LATENTS, SIDE, SIDE, generator=generator, dtype=torch.float64),
    }


def by_hand(state, prefix, x):
    """A bottleneck written out: four convolutions, each behind GELU."""
    for name, pad in (("c1", 0), ("c2", 1), ("c3", 1), ("c4", 0)):
        gelu = 0.5 * x * (1 + torch.erf(x / 2**0.5))
        x = F.conv2d(
            gelu, state[f"{prefix}.{name}.weight"], state[f"{prefix}.{name}.bias"], padding=pad
        )
    return x


def next_state_by_hand(state, x, z):
    residual = by_hand(state, "prior", x)[:, 2 * LATENTS :]
    h = x + residual + F.conv2d(z, state["z_proj.weight"], state["z_proj.bias"])
    return h + by_hand(state, "resnet", h)


def test_infer_equals_the_sums_by_hand(block, maps):
    state, x = block.state_dict(), maps["x"]
    mean_q, log_std_q = by_hand(state, "enc", torch.cat([x, maps["activation"]], 1)).chunk(2, 1)
    mean_p, log_std_p = by_hand(state, "prior", x)[:, : 2 * LATENTS].chunk(2, 1)
    z = mean_q + torch.exp(log_std_q) * maps["epsilon"]
    kl = -0.5 + log_std_p - log_std_q
    kl = kl + (torch.exp(log_std_q) ** 2 + (mean_q - mean_p) ** 2) / (2 * torch.exp(log_std_p) ** 2)
    got_x, got_kl = block.infer(x, maps["activation"], maps["epsilon"])
    torch.testing.assert_close(got_x, next_state_by_hand(state, x, z), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got_kl.double(), kl, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_generate_equals_the_sums_by_hand(block, maps, temperature):
    state, x = block.state_dict(), maps["x"]
    mean, log_std = by_hand(state, "prior", x)[:, : 2 * LATENTS].chunk(2, 1)
    z = mean + temperature * torch.exp(log_std) * maps["epsilon"]
    got = block.generate(x, maps["epsilon"], temperature)
    torch.testing.assert_close(got, next_state_by_hand(state, x, z), rtol=1e-6, atol=1e-6)


def test_generate_lr_posterior_equals_the_sums_by_hand(block, maps):
    state, x = block.state_dict(), maps["x"]
    mean, log_std = by_hand(state, "enc_y", torch.cat([x, maps["lr"]], 1)).chunk(2, 1)
    z = mean + 0.7 * torch.exp(log_std) * maps["epsilon"]
    got = block.generate_lr_posterior(x, maps["lr"], maps["epsilon"], 0.7)
    torch.testing.assert_close(got, next_state_by_hand(state, x, z), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("style", [BOTTLENECK, PLAIN], ids=["bottleneck", "plain"])
def test_a_head_sees_the_state_and_the_activation_side_by_side(style, maps):
    head = style.head(2 * WIDTH, WIDTH, 5).double()
    expected = head(torch.cat([maps["x"], maps["lr"]], 1))
    torch.testing.assert_close(head.beside(maps["x"], head.context(maps["lr"])), expected)


@pytest.mark.parametrize("style", [BOTTLENECK, PLAIN], ids=["bottleneck", "plain"])
def test_one_activation_serves_all_samples_of_its_picture(style, maps, randomise):
    block = TopDownBlock(WIDTH, LATENTS, style, gated=True, lr_posterior=True).double()
    randomise(block)
    one, twice = maps["lr"][:1], maps["lr"][[0, 0]]
    noise = maps["epsilon"], 0.7
    for got, expected in (
        (block.condition(maps["x"], one), block.condition(maps["x"], twice)),
        (
            block.generate_lr_posterior(maps["x"], one, *noise),
            block.generate_lr_posterior(maps["x"], twice, *noise),
        ),
    ):
        torch.testing.assert_close(got, expected)


def test_infer_lr_posterior_goes_on_from_the_hr_posterior(block, maps):
    x, kl = block.infer_lr_posterior(maps["x"], maps["activation"], maps["lr"], maps["epsilon"])
    expected, _ = block.infer(maps["x"], maps["activation"], maps["epsilon"])
    hr = block.posterior_moments(maps["x"], maps["activation"])
    lr = block.lr_posterior_moments(maps["x"], maps["lr"])
    torch.testing.assert_close(x, expected)
    torch.testing.assert_close(kl, gaussian_kl(*hr, *lr))


def test_gate_is_closed_at_first_and_then_adds_the_lr_activation(maps):
    block = TopDownBlock(WIDTH, LATENTS, PLAIN, gated=True).double()
    assert torch.equal(block.condition(maps["x"], maps["lr"]), maps["x"])
    with torch.no_grad():
        block.gate_param[0, 1] = 2.0
    expected = maps["x"].clone()
    expected[:, 1] += 2 * maps["lr"][:, 1]
    torch.testing.assert_close(block.condition(maps["x"], maps["lr"]), expected)


def test_blocks_without_gate_or_lr_activation_pass_the_state_through(maps):
    gated, ungated = (TopDownBlock(WIDTH, LATENTS, PLAIN, gated=gated) for gated in (True, False))
    assert gated.condition(maps["x"], None) is maps["x"]
    assert ungated.condition(maps["x"], maps["lr"]) is maps["x"]


def test_block_without_lr_posterior_says_so(maps):
    block = TopDownBlock(WIDTH, LATENTS, PLAIN)
    with pytest.raises(ValueError, match="without lr_posterior"):
        block.lr_posterior_moments(maps["x"].float(), maps["lr"].float())


def test_log_std_is_kept_in_range(maps, randomise):
    style = BlockStyle(kind="plain", log_std_range=(-0.1, 0.1))
    block = TopDownBlock(WIDTH, LATENTS, style)
    randomise(block)
    x = 100 * maps["x"].float()
    for log_std in (block.prior_moments(x)[1], block.posterior_moments(x, x)[1]):
        assert log_std.abs().max().item() == pytest.approx(0.1)


def test_moments_are_float32_in_half_precision(maps):
    block = TopDownBlock(WIDTH, LATENTS, BOTTLENECK).bfloat16()
    x = maps["x"].bfloat16()
    state, kl = block.infer(x, maps["activation"], maps["epsilon"].float())
    assert kl.dtype == torch.float32
    assert state.dtype == torch.bfloat16


def test_kernel_one_sees_single_pixels():
    bottleneck = BOTTLENECK.residual(WIDTH, kernel=1)
    assert isinstance(bottleneck, Bottleneck)
    assert {tuple(conv.kernel_size) for conv in bottleneck.children()} == {(1, 1)}


def test_parameter_names_and_their_order_are_stable():
    """Optimiser states and the bundled weights rely on them."""
    convs = ("enc.c1", "enc.c2", "prior.c1", "prior.c2", "z_proj", "resnet.c1", "resnet.c2")
    expected = ["gate_param", *(f"{c}.{kind}" for c in convs for kind in ("weight", "bias"))]
    block = TopDownBlock(WIDTH, LATENTS, PLAIN, gated=True)
    assert [name for name, _ in block.named_parameters()] == expected
    names = [n for n, _ in TopDownBlock(8, 2, BOTTLENECK, lr_posterior=True).named_children()]
    assert names == ["enc", "prior", "z_proj", "resnet", "enc_y"]
