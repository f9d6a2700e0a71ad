"""Temperatures by level: what they are called, and which latents they reach."""

import pickle
from copy import deepcopy

import pytest
import torch

from vdsr_cli.config import Temperatures, parse_temperature, parse_temperatures, with_conditional
from vdsr_cli.errors import UsageError
from vdsr_cli.models import blocks
from vdsr_cli.models.compact import CompactConfig, CompactVDVAESR, Level
from vdsr_cli.models.compact_prior import CompactCVDVAE, CompactVDVAE
from vdsr_cli.models.cvdvae import CVDVAE, CVDVAEConfig
from vdsr_cli.models.protocol import Prior, refuse_unknown_levels
from vdsr_cli.models.vdvae import VDVAE, EncoderConfig
from vdsr_cli.models.vdvae_sr import VDVAESR, VDVAESRConfig

KINDS = ("compact", "compact prior", "compact cvdvae", "vdvae", "vdvae-sr", "cvdvae")
COMPACT = CompactConfig(
    scale=4,
    levels=tuple(
        Level(cell=cell, width=8, blocks=2, latent_channels=2, lr_blocks=int(cell >= 4))
        for cell in (16, 8, 4, 2)
    ),
)


@pytest.fixture
def build(small, randomise):
    """``build(kind)``: a small model of random weights, and the side of its pictures."""
    lr = EncoderConfig(
        image_size=8,
        enc_blocks="8x2,8d2,4x1,4d4,1x1",
        width=16,
        input_shift=-100.0,
        input_scale=1 / 50,
    )
    cvdvae = CVDVAEConfig(
        prior=small, image_size_y=8, enc_blocks_y="8x2,8d2,4x1,4d4,1x1", ky=4, width_y=16
    )

    def make(kind):
        model = {
            "compact": lambda: CompactVDVAESR(COMPACT),
            "compact prior": lambda: CompactVDVAE(COMPACT),
            "compact cvdvae": lambda: CompactCVDVAE.from_prior(CompactVDVAE(COMPACT), 4),
            "vdvae": lambda: VDVAE(small),
            "vdvae-sr": lambda: VDVAESR(VDVAESRConfig(prior=small, lr=lr)),
            "cvdvae": lambda: CVDVAE(cvdvae),
        }[kind]()
        randomise(model)
        return model.eval(), 32 if kind.startswith("compact") else 16

    return make


def drawn(model, side, temperature):
    """A sample of one picture, its noise by layer alone."""

    def noise(shape):
        generator = torch.Generator().manual_seed(shape.layer)
        cells = side // shape.cell
        return torch.randn(1, shape.channels, cells, cells, generator=generator)

    with torch.no_grad():
        if isinstance(model, Prior):
            return model.sample(1, (side, side), noise, temperature)
        lr = torch.rand(1, 3, side // model.scale, side // model.scale, generator=torch.Generator())
        return model.sample(lr, noise, temperature)


@pytest.mark.parametrize("kind", KINDS)
def test_one_temperature_for_every_level_is_that_temperature_bit_for_bit(build, kind):
    model, side = build(kind)
    cells = {shape.cell for shape in model.latent_shapes}
    uniform = Temperatures("0," + ",".join(f"{cell}:0.6" for cell in cells))
    assert torch.equal(drawn(model, side, uniform), drawn(model, side, 0.6))


@pytest.mark.parametrize("kind", KINDS)
def test_each_latent_has_the_temperature_of_its_level(build, kind, monkeypatch):
    """Against mean + t std noise in float64, the levels coarse to fine at 0.2, 0.4, ..."""
    model, side = build(kind)
    cells = sorted({shape.cell for shape in model.latent_shapes}, reverse=True)
    expected = {cell: 0.2 * (1 + place) for place, cell in enumerate(cells)}
    latents = []

    def recorded(mean, log_std, epsilon, temperature=1.0):
        z = sample(mean, log_std, epsilon, temperature)
        latents.append((mean, log_std, epsilon, z))
        return z

    sample = blocks.gaussian_sample
    monkeypatch.setattr(blocks, "gaussian_sample", recorded)
    drawn(model, side, Temperatures(",".join(f"{cell}:{t}" for cell, t in expected.items())))
    assert len(latents) == len(model.latent_shapes)
    for shape, (mean, log_std, epsilon, z) in zip(model.latent_shapes, latents, strict=True):
        factor = expected[shape.cell]
        exact = mean.double() + factor * log_std.double().exp() * epsilon.double()
        torch.testing.assert_close(z.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_one_level_alone_is_random(build, kind):
    model, side = build(kind)
    still = drawn(model, side, 0.0)
    assert torch.equal(drawn(model, side, Temperatures("0,1:0,2:0")), still)
    for cell in {shape.cell for shape in model.latent_shapes}:
        assert not torch.equal(drawn(model, side, Temperatures(f"0,{cell}:1")), still)


@pytest.mark.parametrize("kind", ["compact cvdvae", "cvdvae"])
def test_the_latents_given_lr_have_their_own_temperature(build, kind):
    model, side = build(kind)
    levels = {shape.cell for shape in model.latent_shapes[:4]}
    assert not levels & {shape.cell for shape in model.latent_shapes[4:]} or kind == "cvdvae"
    one = drawn(model, side, Temperatures("0.5,lr:0.5"))
    assert torch.equal(one, drawn(model, side, 0.5))
    released = drawn(model, side, with_conditional(0.5, 1.0))
    assert not torch.allclose(released, one)
    given = [f"{shape.cell}:1" for shape in model.latent_shapes[:4]]
    if kind == "compact cvdvae":
        by_level = Temperatures("0.5," + ",".join(dict.fromkeys(given)))
        assert torch.equal(released, drawn(model, side, by_level))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("16:0.2,8:0.5", "0.8,16:0.2,8:0.5"),
        ("8:0.5, 16:0.2,0.8", "0.8,16:0.2,8:0.5"),
        ("0,256:1", "0,256:1"),
        ("lr:1", "0.8,lr:1"),
        ("0.123456789,4:1e-3", "0.123456789,4:0.001"),
    ],
)
def test_temperatures_are_their_written_form(text, written):
    parsed = parse_temperature(text)
    assert parsed == written and f"{parsed:g}" == written
    for again in (Temperatures(written), deepcopy(parsed), pickle.loads(pickle.dumps(parsed))):
        assert (again, again.by_cell, again.rest) == (written, parsed.by_cell, parsed.rest)


def test_they_are_false_where_nothing_is_random():
    assert not Temperatures("0,16:0,lr:0")
    assert all(map(Temperatures, ("0,16:0.1", "0,lr:0.1", "16:0")))


def test_several_are_parted_by_commas_or_semicolons():
    assert parse_temperatures("0,0.8") == (0.0, 0.8)
    assert parse_temperatures("16:0.2,8:0.5") == ("0.8,16:0.2,8:0.5",)
    assert parse_temperatures("0.8;0,16:0.2") == (0.8, "0,16:0.2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("warm", "neither a number"),
        ("16:", "neither a number"),
        ("0:0.5", "neither a number"),
        ("16:0.2,16:0.3", "neither a number"),
        ("0.2,0.3", "neither a number"),
        ("16x:0.2", "neither a number"),
        ("", "neither a number"),
        ("16:3", "temperature 3 is outside 0 to 2"),
        ("16:nan", "temperature nan is outside"),
        ("-1", "temperature -1 is outside"),
    ],
)
def test_other_text_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parse_temperature(text)


def test_levels_that_a_model_lacks_are_refused(build):
    model, _ = build("compact")
    refuse_unknown_levels(Temperatures("16:0.2,2:0.5"), model)
    with pytest.raises(UsageError, match="cells of 32 pixels") as refused:
        refuse_unknown_levels(Temperatures("32:0.2"), model)
    assert refused.value.hint == "it has 16, 8, 4, 2"
    with pytest.raises(UsageError, match="nothing from"):
        refuse_unknown_levels(Temperatures("lr:1"), model)
    refuse_unknown_levels(Temperatures("lr:1"), build("cvdvae")[0])
