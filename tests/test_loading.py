"""One loader for every name: rows, files, and runs of training."""

from dataclasses import asdict, replace

import pytest
import torch
from loaded import CPU

from vdsr_cli.errors import UsageError, WeightsError
from vdsr_cli.loading import load, load_network
from vdsr_cli.models.compact import CompactVDVAESR
from vdsr_cli.models.protocol import Prior, Sampler
from vdsr_cli.training.run_folder import write_checkpoint
from vdsr_cli.weights.files import Checkpoint, write_safetensors


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


def test_the_home_of_a_run_is_found(run, monkeypatch):
    monkeypatch.setenv("HOME", str(run.parent))
    assert load(f"~/{run.name}", CPU, expects=Sampler).record is None
    assert load(f"~/{run.name}/last.pt", CPU, expects=Sampler).record is None


def test_a_name_that_ends_in_pt_may_be_published_or_far_away(tmp_path):
    torch.save({"decoder.dec_blocks.0.x": torch.zeros(2)}, tmp_path / "p.pt")
    with pytest.raises(WeightsError, match="the tensors are of no published VDVAE"):
        load(str(tmp_path / "p.pt"), CPU, expects=Prior)
    torch.save({"x": torch.zeros(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match="the tensors are of no published VDVAE"):
        load(str(tmp_path / "old.pt"), CPU, expects=Prior)
    with pytest.raises(WeightsError, match="is a pickle, which could run code"):
        load("hf://owner/repo/x.pt", CPU, expects=Prior)
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(WeightsError, match="not the checkpoint of a run"):
        load(str(tmp_path / "junk.pt"), CPU, expects=Prior)


def test_weights_that_are_no_numbers_are_refused(tiny_model, tmp_path):
    state = dict(tiny_model.state_dict())
    name = next(iter(state))
    state[name] = torch.full_like(state[name], torch.nan)
    good = Checkpoint(
        architecture="compact-vdvae-sr",
        config=asdict(tiny_model.config),
        state=dict(tiny_model.state_dict()),
        metadata={},
    )
    write_safetensors(tmp_path / "good.safetensors", good)
    assert load(str(tmp_path / "good.safetensors"), CPU, expects=Sampler).scale == 4
    config = {**good.config, "scale": 4.0}
    for changed, problem in (
        (replace(good, state=state), "no finite numbers"),
        (replace(good, config=config), "scale 4.0"),
    ):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        write_safetensors(path, changed)
        with pytest.raises(WeightsError, match=problem):
            load(str(path), CPU, expects=Sampler)


def test_another_kind_is_refused(tiny_path, tiny_prior_path):
    with pytest.raises(UsageError, match="is a compact-vdvae-sr, not an unconditional prior"):
        load(str(tiny_path), CPU, expects=Prior)
    with pytest.raises(UsageError, match="is a compact-vdvae, which does not upscale by itself"):
        load(str(tiny_prior_path), CPU, expects=Sampler)


@pytest.mark.parametrize(("lacking", "is_told_less"), [(2, False), (8, False), (8, True)])
def test_files_whose_likelihood_tells_less_are_read(tiny_model, tmp_path, lacking, is_told_less):
    """Their networks of the pixels before had no outputs for copied colours, older ones none for
    spread and tails, the oldest no inputs for pairs of pixels and odd columns: these are zero."""
    config = replace(tiny_model.config, coupled=True, neighbours=True, context=8)
    model = CompactVDVAESR(config).requires_grad_(False)
    for value in model.parameters():
        value.normal_()
    first, last = model.before.network[0], model.before.network[-1]
    last.weight[-lacking:], last.bias[-lacking:] = 0, 0
    state = model.state_dict()
    for name in ("before.network.6.weight", "before.network.6.bias"):
        state[name] = state[name][:-lacking]
    if is_told_less:
        first.weight[:, 216:243] = 0
        kept = first.weight[:, :216], first.weight[:, 243:]
        state["before.network.0.weight"] = torch.cat(kept, 1)
    path = tmp_path / "old.safetensors"
    write_safetensors(
        path, Checkpoint(architecture="compact-vdvae-sr", config=asdict(config), state=state)
    )
    found = load_network(str(path)).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(found[name], value), name
