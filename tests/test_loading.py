"""One loader for every name: rows, files, and runs of training."""

from dataclasses import asdict

import pytest
from loaded import CPU

from vdsr_cli.errors import UsageError
from vdsr_cli.loading import load
from vdsr_cli.models.protocol import Prior, Sampler
from vdsr_cli.training.run_folder import write_checkpoint


@pytest.fixture
def run(tmp_path, monkeypatch, tiny_model):
    """The folder of a run, named like a bundled model."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "vdvae-sr-x4-tiny"
    folder.mkdir()
    state = {"model": {}, "ema": tiny_model.state_dict(), "step": 1, "kind": "compact-vdvae-sr"}
    state |= {"architecture": asdict(tiny_model.config), "config": {"degradation": "bicubic"}}
    write_checkpoint(folder, state)
    return folder


def test_a_run_samples_as_its_export_does(run, tiny_model):
    for name in (run, run / "last.pt"):
        loaded = load(str(name), CPU, expects=Sampler)
        assert loaded.record is None and loaded.is_bicubic and loaded.scale == tiny_model.scale
        own = loaded.model.state_dict()
        assert all(own[key].equal(value) for key, value in tiny_model.state_dict().items())


def test_a_folder_does_not_hide_the_model_of_its_name(run):
    assert load(run.name, CPU, expects=Sampler).record.name == run.name


def test_another_kind_is_refused(tiny_path, tiny_prior_path):
    with pytest.raises(UsageError, match="is a compact-vdvae-sr, not an unconditional prior"):
        load(str(tiny_path), CPU, expects=Prior)
    with pytest.raises(UsageError, match="is a compact-vdvae, which does not upscale by itself"):
        load(str(tiny_prior_path), CPU, expects=Sampler)
