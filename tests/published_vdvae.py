"""Published VDVAEs in small, for tests: configurations, and files laid out like OpenAI's."""

import io
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from vdsr_cli.models.vdvae import VDVAE
from vdsr_cli.models.vdvae_config import VDVAEConfig
from vdsr_cli.training.start import model_on_prior

EIGHT_BIT = VDVAEConfig(
    image_size=16,
    enc_blocks="16x2,16d2,8x2,8d2,4x1,4d4,1x2",
    dec_blocks="1x1,4m1,4x1,8m4,8x2,16m8,16x1",
    width=16,
    zdim=4,
    num_mixtures=2,
    no_bias_above=8,
    input_shift=-120.0,
    input_scale=1 / 64,
)
LOW_BIT = replace(EIGHT_BIT, dec_blocks="1x1,4m1,8m4,8x1,16m8,16x1", low_bit=True)
SMALLEST = VDVAEConfig(
    image_size=16,
    enc_blocks="16x1,16d2,8x1,8d2,4x1,4d4,1x1",
    dec_blocks="1x1,4m1,4x1,8m4,16m8",
    width=16,
    zdim=2,
    num_mixtures=2,
    no_bias_above=8,
    input_shift=-112.9,
    input_scale=1 / 69.8,
)
"""One layer at most a resolution."""
TABLE = {"imagenet64": EIGHT_BIT, "ffhq256": LOW_BIT}
"""Stands for the published table."""


def published_state(name: str = "ffhq256", *, prefix: str = "") -> "OrderedDict[str, Tensor]":
    """Every tensor of one of ``TABLE``, random, under the names of a published file."""
    generator = torch.Generator().manual_seed(0)
    state = OrderedDict()
    for key, like in VDVAE(TABLE[name]).state_dict().items():
        fan = like[0].numel() if key.endswith(".weight") else 25
        state[prefix + key] = torch.randn(like.shape, generator=generator) * 0.7 / fan**0.5
    return state


def published_model(name: str = "ffhq256") -> VDVAE:
    """One of ``TABLE`` with those tensors, in evaluation mode."""
    model = VDVAE(TABLE[name])
    model.load_state_dict(published_state(name))
    return model.eval()


def on_smallest_prior(objective: str) -> nn.Module:
    """A new x4 model on ``SMALLEST``, whose weights are random."""
    torch.manual_seed(0)
    prior = VDVAE(SMALLEST)
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.5 / max(1, parameter[0].numel()) ** 0.5)
    return model_on_prior(objective, prior, 4)


def cut(state: "OrderedDict[str, Tensor]", *names: str) -> "OrderedDict[str, Tensor]":
    """A state without the tensors below these modules."""
    return OrderedDict((k, v) for k, v in state.items() if not k.startswith(names))


def pickled(state: object, *, is_legacy: bool = False) -> bytes:
    """The bytes that ``torch.save`` writes, in its present or in its older format."""
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=not is_legacy)
    return buffer.getvalue()


def write_published(path: Path, state: object) -> Path:
    """A pickle on this disk."""
    path.write_bytes(pickled(state))
    return path
