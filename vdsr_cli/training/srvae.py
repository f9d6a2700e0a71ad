"""The data-dependent initialisation of a new srVAE or VAE: one pass over a batch of pictures."""

import torch

from vdsr_cli.config import torch_seed
from vdsr_cli.models.flow_vae import FlowVAE
from vdsr_cli.models.protocol import LatentShape
from vdsr_cli.models.srvae import SRVAE
from vdsr_cli.models.srvae_layers import data_dependent_initialisation
from vdsr_cli.training.config import TrainConfig
from vdsr_cli.training.data import CropSpec, PictureStore
from vdsr_cli.training.objectives import to_unit_range

INITIAL_BATCH = 32


@torch.no_grad()
def initialise_from_data(model: SRVAE | FlowVAE, store: PictureStore, config: TrainConfig) -> None:
    """Initialises every convolution on one batch of crops, the same for one seed."""
    generator = torch.Generator().manual_seed(torch_seed(config.seed))
    spec = CropSpec(batch=INITIAL_BATCH, lr_size=config.lr_size, scale=store.scale)
    hr, lr = (to_unit_range(pixels) for pixels in store.batch(spec, generator))

    def noise(shape: LatentShape) -> torch.Tensor:
        sides = (side // shape.cell for side in hr.shape[2:])
        return torch.randn(len(hr), shape.channels, *sides, generator=generator)

    with data_dependent_initialisation(model, model.config.first_deviation):
        model.bound(hr, lr, noise)
