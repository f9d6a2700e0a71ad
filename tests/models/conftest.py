"""Shared by the tests of the models: golden vectors of the published code, seeded noise."""

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from published_vdvae import EIGHT_BIT
from safetensors import safe_open
from torch import Tensor, nn

from vdsr_cli.models.protocol import LatentShape, NoiseSource
from vdsr_cli.models.vdvae import VDVAEConfig

BUNDLED = Path(__file__).parents[1] / "data" / "golden"
FULL = Path(__file__).parents[2].parent / "shared" / "golden"
SAME_NAMES = {field.name for field in dataclasses.fields(VDVAEConfig)}


@dataclass
class Golden:
    """One golden file: tensors as stored, metadata, and our reading of its config."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def fields(self) -> dict:
        return json.loads(self.metadata["config"])

    @property
    def config(self) -> VDVAEConfig:
        shift, scale = re.fullmatch(
            r"\(image - ([\d.]+)\) / ([\d.]+)", self.metadata["input"]
        ).groups()
        return VDVAEConfig(
            **{name: value for name, value in self.fields.items() if name in SAME_NAMES},
            low_bit=self.fields["dataset"] == "ffhq_256",
            input_shift=-float(shift),
            input_scale=1 / float(scale),
        )

    @property
    def weights(self) -> dict[str, Tensor]:
        prefix = "weights."
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    def noise(self, name: str) -> NoiseSource:
        return lambda shape: self.tensors[f"{name}.eps.{shape.layer}"]


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    """Loads a golden file, bundled or full; skips where it is neither."""

    def load(name: str) -> Golden:
        paths = [folder / f"{name}.safetensors" for folder in (BUNDLED, FULL)]
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            pytest.skip(f"{name}.safetensors is not bundled; it lies beside the repository")
        with safe_open(path, "pt") as file:
            return Golden({k: file.get_tensor(k) for k in file.keys()}, file.metadata())  # noqa: SIM118

    return load


@pytest.fixture
def small() -> VDVAEConfig:
    """A VDVAE of 16x16 pictures that runs in milliseconds."""
    return replace(EIGHT_BIT, enc_blocks="16x2,16d2,8x2,8d2,4x1,4d4,1x1")


@pytest.fixture
def normals() -> Callable[..., NoiseSource]:
    """``normals(config, batch, seed=0)``: reproducible noise, each layer's its own."""

    def make(config: VDVAEConfig, batch: int, seed: int = 0) -> NoiseSource:
        def noise(shape: LatentShape) -> Tensor:
            side = config.image_size // shape.cell
            generator = torch.Generator().manual_seed(1000 * seed + shape.layer)
            return torch.randn(batch, shape.channels, side, side, generator=generator)

        return noise

    return make


@pytest.fixture
def randomise() -> Callable[[nn.Module], None]:
    """Gives every parameter a random value: fresh models hide the prior path behind zeros."""

    def fill(model: nn.Module, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                fan = parameter[0].numel() if parameter.dim() > 1 else 25
                value = torch.randn(parameter.shape, generator=generator) / fan**0.5
                parameter.copy_(value)

    return fill
