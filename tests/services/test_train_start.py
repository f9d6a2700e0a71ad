"""What a training run starts from."""

import pytest
import torch

from vdsr_cli.errors import UsageError
from vdsr_cli.services.train_start import model_of_preset, new_model, transferred


def test_a_preset_takes_what_fits_of_a_model_of_another_scale():
    source = model_of_preset("vdvae-sr", "vdvae-sr-x4")
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
