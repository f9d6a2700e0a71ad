"""From a model's name to a module in its place: the one loader.

name, file, pickle, run ──► read_weights ──► load_network ──► load
                            Checkpoint       float32, CPU     of the kind asked for, placed
"""

from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, cast

from torch import nn

from vdsr_cli.errors import UsageError, WeightsError
from vdsr_cli.images import Picture
from vdsr_cli.models.causal import as_now
from vdsr_cli.models.cnn_vae import CNNVAE
from vdsr_cli.models.protocol import Prior, Sampler
from vdsr_cli.models.registry import ARCHITECTURES, build_empty
from vdsr_cli.models.srvae import SRVAE, Autoencoder
from vdsr_cli.models.upstream import ENCODER, check_state
from vdsr_cli.models.vdvae import VDVAE
from vdsr_cli.runtime import Runtime
from vdsr_cli.weights import (
    Checkpoint,
    WeightsRecord,
    expanded,
    load_records,
    read_header,
    read_safetensors,
    resolve,
)
from vdsr_cli.weights.runs import averaged_weights, run_checkpoint

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)

_REFUSALS: dict[type, tuple[str, str]] = {
    Sampler: (
        "which does not upscale by itself",
        "vdsr weights list shows the models that do",
    ),
    Prior: (
        "not an unconditional prior",
        "vdvae-x4-prior, the openai/ models and runs of vdsr train vdvae are;"
        " an srVAE's pictures: vdsr srvae generate",
    ),
    SRVAE: ("not an srVAE", "vdsr train srvae makes one"),
    Autoencoder: (
        "not an srVAE, nor the VAE that it is compared with",
        "vdsr train srvae makes both",
    ),
    CNNVAE: ("not a CNN-VAE", "cnn-vae-x2 is one, and what vdsr train cnn-vae makes"),
}
"""Why a model is not what was expected, and which ones are."""


@dataclass(frozen=True, kw_only=True)  # slots do not go with Loaded[Sampler](...)
class Loaded(Generic[M_co]):
    """A placed model and what its checkpoint says of itself.

    Attributes:
        name: as the user gave it.
        model: in evaluation mode, on the runtime's device, in its dtype.
        record: its row of weights.toml, or None for a file of the user's own.
        card: the free part of the checkpoint's header.
    """

    name: str
    model: M_co
    record: WeightsRecord | None
    card: dict[str, Any]
    parameters: int

    @property
    def scale(self: "Loaded[Sampler]") -> int:
        """Integer super-resolution factor."""
        return self.model.scale

    @property
    def is_bicubic(self) -> bool:
        """Whether it was trained on the degradation that the consistency projection inverts."""
        return self.card.get("degradation") == "bicubic"

    def projects(self, consistency: bool | None) -> bool:
        """Whether results are projected to degrade to their input: as asked, or, for None, where
        the model was trained on that degradation."""
        return self.is_bicubic if consistency is None else consistency

    def choose(self: "Loaded[Sampler]", picture: Picture) -> "Choice":
        """Itself, whatever the picture."""
        return Choice(loaded=self)


LoadedModel = Loaded[Sampler]
LoadedPrior = Loaded[Prior]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The model for a picture, and the words that follow "because of", where it was chosen."""

    loaded: LoadedModel
    reason: str | None = None


class ModelSource(Protocol):
    """Gives each picture its model: a loaded one, or ``services.auto.AutoModel``."""

    @property
    def name(self) -> str:
        """As the user gave it."""

    @property
    def scale(self) -> int:
        """Integer super-resolution factor of the models."""

    def choose(self, picture: Picture) -> Choice:
        """The model for a picture, loaded. Raises WeightsError."""


def load(
    name: str,
    runtime: Runtime,
    *,
    expects: type[M],
    has_encoder: bool = True,
) -> Loaded[M]:
    """Resolves, verifies, builds, loads strictly and places a model.

    Args:
        name: a row of weights.toml, a file, a published pickle, a run folder or its checkpoint.
        expects: the class that it is of, or the protocol that it keeps.
        has_encoder: False leaves the encoder of a published prior out, which drawing does not need.

    Raises:
        WeightsError: no such model, a damaged file, or weights that do not fit their configuration.
        UsageError: a model of another kind.
    """
    record, checkpoint = _read(name)
    model = _empty(checkpoint)
    if not isinstance(model, expects):
        refusal, hint = _REFUSALS[expects]
        raise UsageError(f"{name} is a {checkpoint.architecture}, {refusal}", hint=hint)
    _fill(model, checkpoint, name, has_encoder=has_encoder)
    return Loaded(
        name=name,
        model=cast(M, runtime.place(model)),
        record=record,
        card=checkpoint.metadata,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def load_network(name: str) -> nn.Module:
    """The whole float32 network of a name, on the CPU, to be trained.

    Raises:
        WeightsError: missing, damaged, or not of its own configuration.
    """
    checkpoint = read_weights(name)
    model = _empty(checkpoint)
    _fill(model, checkpoint, name)
    return model


def read_weights(name: str) -> Checkpoint:
    """The tensors and the configuration of a name, a file, a run folder or its ``last.pt``.

    Raises:
        WeightsError: missing or damaged.
    """
    return _read(name)[1]


def is_prior(name: str) -> bool:
    """Whether a name, a file or a run is of an unconditional prior; fetches nothing.

    An address, which cannot be told without a download, is taken for none.
    """
    record, path = load_records().get(name), expanded(name)
    if record is not None:
        architecture = record.architecture
    elif path.suffix == ".safetensors" and path.is_file():
        architecture = read_header(path).architecture
    elif path.exists():
        architecture = read_weights(name).architecture
    else:
        return False
    return architecture in ARCHITECTURES and ARCHITECTURES[architecture].is_prior


def _read(name: str) -> tuple[WeightsRecord | None, Checkpoint]:
    run = run_checkpoint(name)
    if run is not None:
        record, checkpoint = None, averaged_weights(run)
    else:
        resolved = resolve(name)
        record, checkpoint = resolved.record, read_safetensors(resolved.path)
    return record, replace(checkpoint, state=as_now(checkpoint.state))


def _empty(checkpoint: Checkpoint) -> nn.Module:
    return build_empty(checkpoint.architecture, checkpoint.config, stored=checkpoint.numbers)


def _fill(model: nn.Module, checkpoint: Checkpoint, name: str, *, has_encoder: bool = True) -> None:
    """Gives an empty model the checkpoint's numbers as its own, in float32; raises WeightsError."""
    state = {key: value.float() for key, value in checkpoint.state.items()}
    if isinstance(model, VDVAE) and not has_encoder:
        del model.encoder
        state = {key: value for key, value in state.items() if not key.startswith(ENCODER)}
    check_state(name, model, state, published=checkpoint.config.get("published"))
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise WeightsError(f"{name}: some of its weights are no finite numbers")
    model.load_state_dict(state, strict=True, assign=True)
