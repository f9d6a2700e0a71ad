"""The use cases of CNN-VAE: train it, score it on the test set, draw the paper's figures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsr_cli.config import torch_seed
from vdsr_cli.figures.contact_sheet import Entry, contact_sheet, enlarged
from vdsr_cli.images.levels import to_levels
from vdsr_cli.images.resize import bicubic
from vdsr_cli.metrics import mean_psnr, psnr_rgb
from vdsr_cli.models.cnn_vae import CNNVAE, HR_SIZE, SCALE, CNNVAEConfig
from vdsr_cli.runtime import choose_runtime
from vdsr_cli.training.cards import command_line, hardware_of
from vdsr_cli.training.cnn_vae import CNNVAETrainConfig, CNNVAETrainer
from vdsr_cli.training.idx import TEST_IMAGES, TRAIN_IMAGES, IdxStore, find_idx
from vdsr_cli.training.objectives import to_unit_range
from vdsr_cli.training.request import LegRequest
from vdsr_cli.training.run_folder import alone_in
from vdsr_cli.training.start import model_of_run
from vdsr_cli.weights.runs import find_checkpoint

_BATCH = 500
_SHOWN_PX = 112


@dataclass(frozen=True, slots=True, kw_only=True)
class CNNVAETrainRequest(LegRequest):
    """A training run of a CNN-VAE: data, network of a new run, settings."""

    data: Path
    architecture: CNNVAEConfig
    config: CNNVAETrainConfig


def train_cnn_vae(request: CNNVAETrainRequest) -> CNNVAETrainer:
    """Runs to ``config.steps`` or the end of the leg; a run in the folder is resumed.

    Raises:
        UsageError: the folder's run is of another model.
        InputError, DeviceError, OutputError: see :class:`~vdsr_cli.training.loop.Trainer`.
    """
    with alone_in(request.out):
        return _train(request)


def _train(request: CNNVAETrainRequest) -> CNNVAETrainer:
    plan = request.plan()
    runtime = choose_runtime(request.device, request.dtype)
    store = _store(request.data, TRAIN_IMAGES)
    start = find_checkpoint(request.out)
    torch.manual_seed(torch_seed(request.config.seed))
    model = model_of_run("cnn-vae", start) if start else CNNVAE(request.architecture)
    trainer = CNNVAETrainer(
        model,
        store,
        request.config,
        request.out,
        device=runtime.device,
        compute=runtime.dtype,
        leg={
            "command": command_line(),
            "hardware": hardware_of(runtime.device),
            "data": str(request.data),
        },
    )
    if start:
        trainer.resume(start)
    trainer.run(plan)
    return trainer


@torch.inference_mode()
def score_cnn_vae(model: CNNVAE, data: Path, *, limit: int | None = None) -> dict[str, Any]:
    """Mean PSNR over the test pictures, in dB, of 8-bit grey pictures without a shave.

    Args:
        limit: how many pictures, the first ones; None for all.

    Returns:
        ``pictures`` and by method: ``bicubic`` of the LR picture, ``super_resolution`` by the
        decoder alone, ``reconstruction`` of the HR picture through the whole network; and
        ``better_than_bicubic``, the share of pictures on which super-resolution is.
    """
    store = _store(data, TEST_IMAGES)
    count = min(limit or len(store), len(store))
    figures: dict[str, list[float]] = {"bicubic": [], "super_resolution": [], "reconstruction": []}
    for index in torch.split(torch.arange(count), _BATCH):
        hr, lr = store.pictures(index)
        made = pictures_of(model, hr, lr)
        for name, pictures in made.items():
            pairs = zip(pictures, hr, strict=True)
            figures[name] += [psnr_rgb(picture, true, shave=0) for picture, true in pairs]
    pairs = zip(figures["super_resolution"], figures["bicubic"], strict=True)
    means = {name: mean_psnr(values) for name, values in figures.items()}
    return {"pictures": count, **means, "better_than_bicubic": sum(a > b for a, b in pairs) / count}


@torch.inference_mode()
def pictures_of(model: CNNVAE, hr: Tensor, lr: Tensor) -> dict[str, Tensor]:
    """Pictures made of a batch, by method, each (B, 1, 28, 28) uint8; see :func:`score_cnn_vae`."""
    return {
        "bicubic": torch.stack([bicubic(picture, SCALE) for picture in lr]),
        "super_resolution": to_levels(model.decode(to_unit_range(lr))),
        "reconstruction": to_levels(model.reconstruct(to_unit_range(hr))),
    }


def draw_figure(model: CNNVAE, data: Path, *, count: int, seed: int) -> NDArray[np.uint8]:
    """The paper's figures 5 and 6 side by side on random test pictures: (H, W, 3) uint8."""
    store = _store(data, TEST_IMAGES)
    generator = torch.Generator().manual_seed(torch_seed(seed))
    index = torch.randperm(len(store), generator=generator)[:count]
    hr, lr = store.pictures(index)
    made = pictures_of(model, hr, lr)
    columns = {
        "HR": hr,
        "network": made["reconstruction"],
        "LR": lr,
        "SR": made["super_resolution"],
        "bicubic": made["bicubic"],
    }
    rows = [
        [_entry(name, pictures[row], hr[row]) for name, pictures in columns.items()]
        for row in range(len(index))
    ]
    return contact_sheet(rows, title=f"CNN-VAE, the {model.config.reading} reading: PSNR in dB")


def _entry(name: str, picture: Tensor, hr: Tensor) -> Entry:
    is_made = picture.shape == hr.shape and name != "HR"
    label = f"{name} {psnr_rgb(picture, hr, shave=0):.1f}" if is_made else name
    rgb = picture.expand(3, -1, -1).permute(1, 2, 0).numpy()
    return Entry(label=label, rgb=enlarged(rgb, _SHOWN_PX, _SHOWN_PX))


def _store(data: Path, name: str) -> IdxStore:
    return IdxStore(find_idx(data, name), scale=SCALE, size_px=HR_SIZE)
