"""Steps that are recorded for a card do nothing that a recording cannot hold.

A CUDA graph has kernels alone: no copy from the processor, no number read back. On the meta device,
which has shapes and no numbers, any of them shows.
"""

import copy
from contextlib import nullcontext

import pytest
import torch
from published_vdvae import on_smallest_prior
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vdsr_cli.training.objectives import objective_of
from vdsr_cli.training.start import model_on_prior, prepared

META = torch.device("meta")
READ_BACK = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal"}


class OnDeviceAlone(TorchDispatchMode):
    """Refuses operations that mix the processor's tensors with the device's, or read a number."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split(".")[0]
        assert name not in READ_BACK, f"{name} waits for the device"
        out = func(*args, **(kwargs or {}))
        devices = {
            leaf.device.type
            for leaf in tree_leaves((args, kwargs, out))
            if isinstance(leaf, torch.Tensor) and leaf.dim()
        }
        assert len(devices) < 2, f"{func} goes between {devices}"
        return out


def noise_for(model, batch: int, side: int) -> dict[int, torch.Tensor]:
    """Noise of pictures of ``side`` HR pixels."""
    sides = {s.layer: 1 if s.is_global else side // s.cell for s in model.latent_shapes}
    return {
        s.layer: torch.empty(batch, s.channels, sides[s.layer], sides[s.layer], device=META)
        for s in model.latent_shapes
    }


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch):
    """The meta device has none."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())


@pytest.fixture(params=["compact", "compact cvdvae", "cvdvae", "vdvae-sr"])
def sampler(request, make_tiny, tiny_prior):
    """A model that upscales and the side of its LR tile."""
    if request.param == "compact":
        return make_tiny(), 16
    if request.param == "compact cvdvae":
        return model_on_prior("cvdvae", copy.deepcopy(tiny_prior)), 16
    return on_smallest_prior(request.param), 4


def test_the_watch_sees_what_a_recording_cannot_hold():
    x = torch.empty(3, device=META)
    with OnDeviceAlone():
        (x + 1).relu()
        with pytest.raises(AssertionError, match="between"):
            x + torch.ones(3).to(META)
        with pytest.raises(AssertionError, match="waits"):
            x.sum().item()


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_sample_stays_on_its_device(sampler, temperature):
    model, side = sampler
    model = model.to(META, torch.bfloat16).requires_grad_(False)
    lr = torch.empty(2, 3, side, side, device=META)
    noise = noise_for(model, 6, 4 * side)
    source = (lambda shape: noise[shape.layer]) if temperature else None
    with torch.inference_mode(), OnDeviceAlone():
        found = model.sample(lr, source, temperature, repeats=3)
    assert found.shape[0] == 6 and found.shape[2:] == (4 * side, 4 * side)


@pytest.mark.parametrize("mean_alone", [False, True])
def test_a_training_step_stays_on_its_device(make_tiny, tiny_prior, mean_alone):
    prior = copy.deepcopy(tiny_prior)
    models = [make_tiny(), model_on_prior("vdvae-sr", prior)]
    if not mean_alone:
        models += [copy.deepcopy(tiny_prior), model_on_prior("cvdvae", prior)]
    for model in models:
        model = prepared(model).to(META)
        hr = torch.empty(2, 3, 64, 64, device=META, dtype=torch.uint8)
        lr = torch.empty(2, 3, 16, 16, device=META, dtype=torch.uint8)
        noise = noise_for(model, 2, 64)
        source = None if mean_alone else lambda shape, noise=noise: noise[shape.layer]
        with OnDeviceAlone():
            losses = objective_of(model)(model, hr, lr, source, 60.0)
            losses.loss.backward()
            torch.stack(list(losses.figures.values()))
