"""The start of a training run."""

from dataclasses import replace

import pytest
import torch

from vdsr_cli.errors import UsageError
from vdsr_cli.loading import load_network, read_weights
from vdsr_cli.models.compact import CompactVDVAESR
from vdsr_cli.models.presets import PRESETS
from vdsr_cli.models.widening import can_widen, widen_into
from vdsr_cli.training.start import model_of_preset, new_model, transferred
from vdsr_cli.training.validation import fixed_noise
from vdsr_cli.weights.files import write_safetensors


def test_a_preset_takes_what_fits_of_a_model_of_another_scale():
    source = model_of_preset("vdvae-sr", "vdvae-sr-x4-large")
    model = transferred(source, model_of_preset("vdvae-sr", "vdvae-sr-x2"))
    taken = model.state_dict()
    for name, value in source.state_dict().items():
        if name.startswith(("lr_encoder.", "levels.0.", "levels.1.", "levels.2.")):
            assert torch.equal(taken[name], value), name
    assert model.scale == 2
    assert model.head.out_channels == 6 * 2**2


def test_the_bundled_model_starts_one_of_another_scale():
    model = new_model("vdvae-sr", preset="vdvae-sr-x8", prior=None, start_from="vdvae-sr-x4")
    lr = torch.rand(1, 3, 8, 8)
    assert model.mean_path(lr).shape == (1, 3, 64, 64)


def test_nothing_in_common_is_refused():
    with pytest.raises(UsageError, match="no tensor in common"):
        transferred(torch.nn.Linear(2, 2), model_of_preset("vdvae-sr", "vdvae-sr-x4"))


@torch.no_grad()
def of_one_picture(*models):
    """ELBO and mean path of each model, for the same random picture and noise."""
    hr, lr = torch.rand(1, 3, 32, 32) * 2 - 1, torch.rand(1, 3, 8, 8)
    noise = fixed_noise(1, (32, 32), torch.device("cpu"))
    return [model.elbo_and_mean(hr, lr, noise) for model in models]


@pytest.mark.parametrize("deeper", [0, 2])
@pytest.mark.parametrize("factor", [(3, 2), (2, 1)])
def test_a_wider_network_begins_as_the_narrower_one(make_tiny, factor, deeper):
    narrow = make_tiny(config=PRESETS["vdvae-sr-x4-tiny"])
    levels = (
        replace(
            level,
            width=level.width * factor[0] // factor[1],
            lr_blocks=level.lr_blocks + deeper * (level.cell >= 4),
            hr_blocks=level.hr_blocks + deeper,
        )
        for level in narrow.config.levels
    )
    wide = CompactVDVAESR(replace(narrow.config, levels=tuple(levels)))
    transferred(narrow, wide)
    (elbo, mean), (wide_elbo, wide_mean) = of_one_picture(narrow, wide)
    torch.testing.assert_close(wide_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(wide_elbo.rate, elbo.rate, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(wide_elbo.distortion, elbo.distortion, rtol=1e-5, atol=1e-2)


def test_a_larger_preset_is_coupled_where_the_weights_are():
    bundled = load_network("vdvae-sr-x4")
    assert bundled.config.coupled
    larger = new_model("vdvae-sr", preset="vdvae-sr-x4-real", prior=None, start_from="vdvae-sr-x4")
    (elbo, mean), (larger_elbo, larger_mean) = of_one_picture(bundled, larger)
    torch.testing.assert_close(larger_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(larger_elbo.distortion, elbo.distortion, rtol=1e-4, atol=1e-1)


def test_a_preset_is_of_no_network_on_a_prior():
    with pytest.raises(UsageError, match="not built on a --prior"):
        new_model("vdvae-sr", preset="vdvae-sr-x4", prior="vdvae-x4-prior", start_from=None)


def test_deeper_encoders_begin_as_the_shallower_ones(make_tiny):
    shallow = make_tiny(config=PRESETS["vdvae-sr-x4-tiny"])
    levels = (
        replace(level, lr_blocks=2 * level.lr_blocks, hr_blocks=3)
        for level in shallow.config.levels
    )
    deep = CompactVDVAESR(replace(shallow.config, levels=tuple(levels)))
    transferred(shallow, deep)
    (elbo, mean), (deep_elbo, deep_mean) = of_one_picture(shallow, deep)
    torch.testing.assert_close(deep_mean, mean)
    torch.testing.assert_close(deep_elbo.rate, elbo.rate)
    torch.testing.assert_close(deep_elbo.distortion, elbo.distortion)


def test_a_narrower_or_deeper_network_is_not_the_same_one_wider():
    tiny = PRESETS["vdvae-sr-x4-tiny"]
    deeper = replace(tiny, levels=(replace(tiny.levels[0], blocks=2), *tiny.levels[1:]))
    wider = replace(tiny, levels=tuple(replace(v, width=2 * v.width) for v in tiny.levels))
    assert can_widen(tiny, wider) and can_widen(tiny, tiny)
    assert not can_widen(wider, tiny) and not can_widen(tiny, deeper)
    real = PRESETS["vdvae-sr-x4-real"]
    assert can_widen(PRESETS["vdvae-sr-x4-deep"], real)
    assert not can_widen(real, PRESETS["vdvae-sr-x4-deep"])
    with pytest.raises(ValueError, match="narrower"):
        widen_into(CompactVDVAESR(tiny), CompactVDVAESR(wider))


def test_a_cvdvae_moves_to_another_prior_with_its_lr_encoder(tmp_path):
    prior = read_weights("vdvae-x4-prior")
    state = {name: value.clone() for name, value in prior.state.items()}
    state["hr_encoder.downs.0.bias"] += 1
    write_safetensors(tmp_path / "prior.safetensors", replace(prior, state=state))
    moved = new_model(
        "cvdvae", preset=None, prior=str(tmp_path / "prior.safetensors"), start_from="cvdvae-x4"
    )
    lr_encoder = {name for name, value in moved.named_parameters() if value.requires_grad}
    before = read_weights("cvdvae-x4").state
    assert lr_encoder
    for name, value in moved.state_dict().items():
        expected = before[name] if name in lr_encoder else state.get(name, value)
        assert torch.equal(value, expected.to(value.dtype)), name
