"""Published state dicts: every known form loads strictly, everything else is refused."""

import re

import pytest
import torch

from vdsr_cli.errors import WeightsError
from vdsr_cli.models.cvdvae import CVDVAE, CVDVAEConfig
from vdsr_cli.models.upstream import (
    adapt_vdvae_sr,
    check_published,
    encoder_defect,
    identify_published,
    load_published_state,
    published_layout,
    strip_prefixes,
)
from vdsr_cli.models.vdvae import PUBLISHED, VDVAE, EncoderConfig
from vdsr_cli.models.vdvae_sr import VDVAESR, VDVAESRConfig


@pytest.fixture
def state(small, randomise):
    """A published VDVAE's state in its bare form (NAME-model-ema.th)."""
    model = VDVAE(small)
    randomise(model)
    return model.state_dict()


def prefixed(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


def assert_equal_states(model, state):
    own = model.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[name], value) for name, value in state.items())


@pytest.mark.parametrize("prefix", ["", "module.", "cvae.", "module.cvae."])
def test_loads_both_published_forms(small, state, prefix):
    model = VDVAE(small)
    load_published_state(model, prefixed(state, prefix))
    assert_equal_states(model, state)


@pytest.fixture(scope="module")
def script(load_script):
    """benchmarks/published_checkpoints.py, which writes the published layouts out by itself."""
    return load_script("benchmarks/published_checkpoints.py")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_layout_name_for_name_in_its_order(script, name):
    shapes = script.shapes_of(script.LAYOUTS[name])
    assert list(published_layout(name).items()) == list(shapes.items())
    assert identify_published(shapes) == name
    assert check_published(name, shapes) == ()


def test_the_published_ffhq1024_file_can_generate(script):
    """openai/vdvae issue 3: the file lacks the encoder's blocks 68 and 69."""
    is_cut = re.compile(r"encoder\.enc_blocks\.(68|69)\.").match
    whole = script.shapes_of(script.LAYOUTS["ffhq1024"])
    shapes = {key: shape for key, shape in whole.items() if not is_cut(key)}
    lacking = check_published(identify_published(shapes), shapes)
    assert len(lacking) == 16 and all(map(is_cut, lacking))
    assert "(encoder.enc_blocks.68, encoder.enc_blocks.69)" in encoder_defect(lacking)


def test_loads_into_a_model_without_memory(small, state):
    with torch.device("meta"):
        model = VDVAE(small)
    load_published_state(model, state, assign=True)
    assert_equal_states(model, state)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_refuses_missing_keys_briefly(small, state):
    cut = {name: value for name, value in state.items() if "enc_blocks" not in name}
    with pytest.raises(
        WeightsError, match=r"missing: encoder\.enc_blocks\.0\.c1\.weight"
    ) as caught:
        load_published_state(VDVAE(small), cut)
    assert len(str(caught.value)) < 250
    assert caught.value.hint


def test_refuses_unexpected_keys_and_other_shapes(small, state):
    bad = {**state, "decoder.extra": torch.zeros(1), "decoder.gain": torch.zeros(1, 3, 1, 1)}
    with pytest.raises(WeightsError) as caught:
        load_published_state(VDVAE(small), bad)
    assert "1 unexpected: decoder.extra" in str(caught.value)
    assert "decoder.gain (1, 3, 1, 1) for (1, 16, 1, 1)" in str(caught.value)


def test_refusal_leaves_the_model_untouched(small, state):
    model = VDVAE(small)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError):
        load_published_state(model, {**state, "decoder.extra": torch.zeros(1)})
    assert_equal_states(model, before)


def test_refuses_a_prefix_on_some_keys_only(small, state):
    mixed = {(f"module.{k}" if "gain" in k else k): v for k, v in state.items()}
    with pytest.raises(WeightsError, match=r"unexpected: module\.decoder\.gain"):
        load_published_state(VDVAE(small), mixed)


def test_refuses_what_is_no_state_dict(small):
    with pytest.raises(WeightsError, match="no tensor at epoch"):
        load_published_state(VDVAE(small), {"epoch": 3})


def test_strips_nothing_from_an_empty_state():
    assert strip_prefixes({}) == {}


# --- CVDVAE's Lightning checkpoints -------------------------------------------------------------


@pytest.fixture
def cvdvae(small):
    config = CVDVAEConfig(
        prior=small, image_size_y=8, enc_blocks_y="8x2,8d2,4d4,1x1", ky=4, width_y=16
    )
    return CVDVAE(config)


def lightning(state, shift=-120.0, scale=1 / 64):
    buffers = {"shift": torch.full((1, 1, 1), shift), "scale": torch.full((1, 1, 1), scale)}
    return {"epoch": 7, "state_dict": prefixed({**buffers, **state}, "cvae.")}


def test_loads_a_lightning_checkpoint(cvdvae, randomise):
    expected = CVDVAE(cvdvae.config)
    randomise(expected)
    load_published_state(cvdvae, lightning(expected.state_dict()))
    assert_equal_states(cvdvae, expected.state_dict())


@pytest.mark.parametrize("buffers", [{"shift": -112.9}, {"scale": 1 / 70}])
def test_refuses_another_normalisation(cvdvae, buffers):
    with pytest.raises(WeightsError, match="another input normalisation"):
        load_published_state(cvdvae, lightning(cvdvae.state_dict(), **buffers))


# --- VDVAE-SR's checkpoints ---------------------------------------------------------------------


@pytest.fixture
def vdvae_sr(small):
    lr = EncoderConfig(
        image_size=8, enc_blocks="8x1,8d2,4d4,1x1", width=16, input_shift=0.0, input_scale=1.0
    )
    return VDVAESR(VDVAESRConfig(prior=small, lr=lr, gate_below=8))


def released_vdvae_sr(model, offset=0.0):
    """What the released wrapper saves: two whole models, each twice, a gate in every block."""
    own = model.state_dict()
    main = {k: v + offset for k, v in own.items() if not k.startswith("lr_encoder.")}
    for index, block in enumerate(model.decoder.blocks):
        if block.gate_param is None:
            main[f"decoder.dec_blocks.{index}.gate_param"] = torch.zeros(1, 16, 1, 1)
    lr = {k.removeprefix("lr_"): v + offset for k, v in own.items() if k.startswith("lr_encoder.")}
    lr["decoder.gain"] = torch.ones(1, 16, 1, 1)
    last = prefixed(main, "vae.module.") | prefixed(lr, "vae_sr.module.")
    averaged = {
        k: v + 1 for k, v in (prefixed(main, "ema_vae.") | prefixed(lr, "ema_vae_sr.")).items()
    }
    return last | averaged


def test_loads_the_averages_of_a_vdvae_sr_checkpoint(vdvae_sr, randomise):
    randomise(vdvae_sr)
    expected = {name: value + 1 for name, value in vdvae_sr.state_dict().items()}
    load_published_state(vdvae_sr, released_vdvae_sr(vdvae_sr))
    assert_equal_states(vdvae_sr, expected)


def test_adapts_the_last_weights_on_request(vdvae_sr):
    adapted = adapt_vdvae_sr(released_vdvae_sr(vdvae_sr), ema=False)
    own = vdvae_sr.state_dict()
    assert all(torch.equal(adapted[name], value) for name, value in own.items())


def test_refuses_other_strangers_in_a_vdvae_sr_checkpoint(vdvae_sr):
    state = {**released_vdvae_sr(vdvae_sr), "ema_vae.decoder.extra": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"1 unexpected: decoder\.extra"):
        load_published_state(vdvae_sr, state)
