"""Published state dicts: which prior they are of; what does not fit is refused."""

import re

import pytest
import torch

from vdsr_cli.errors import WeightsError
from vdsr_cli.models.upstream import (
    check_published,
    check_state,
    encoder_defect,
    identify_published,
    published_layout,
)
from vdsr_cli.models.vdvae import PUBLISHED, VDVAE


@pytest.fixture
def state(small, randomise):
    """A published VDVAE's state in its bare form (NAME-model-ema.th)."""
    model = VDVAE(small)
    randomise(model)
    return model.state_dict()


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


def test_refuses_missing_keys_briefly(small, state):
    cut = {name: value for name, value in state.items() if "enc_blocks" not in name}
    with pytest.raises(
        WeightsError, match=r"missing: encoder\.enc_blocks\.0\.c1\.weight"
    ) as caught:
        check_state("m", VDVAE(small), cut)
    assert len(str(caught.value)) < 250
    assert caught.value.hint


def test_refuses_unexpected_keys_and_other_shapes(small, state):
    bad = {**state, "decoder.extra": torch.zeros(1), "decoder.gain": torch.zeros(1, 3, 1, 1)}
    with pytest.raises(WeightsError) as caught:
        check_state("m", VDVAE(small), bad)
    assert "1 unexpected: decoder.extra" in str(caught.value)
    assert "decoder.gain (1, 3, 1, 1) for (1, 16, 1, 1)" in str(caught.value)
