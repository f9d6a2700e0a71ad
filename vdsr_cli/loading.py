"""From a model's name to a module that is ready to sample."""

from dataclasses import dataclass
from typing import Any, Protocol, cast

from vdsr_cli.errors import UsageError, WeightsError
from vdsr_cli.images import Picture
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.models.registry import build_model
from vdsr_cli.runtime import Runtime
from vdsr_cli.weights import WeightsRecord, read_safetensors, resolve
from vdsr_cli.weights.fetch import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A placed model and what its checkpoint says of itself.

    Attributes:
        name: as the user gave it.
        model: in evaluation mode, on the runtime's device, in its dtype.
        record: its row of weights.toml, or None for a file of the user's own.
        card: the free part of the checkpoint's header.
        parameters: how many numbers the model has.
    """

    name: str
    model: Sampler
    record: WeightsRecord | None
    card: dict[str, Any]
    parameters: int

    @property
    def scale(self) -> int:
        """Integer super-resolution factor."""
        return self.model.scale

    @property
    def is_bicubic(self) -> bool:
        """Whether it was trained on the degradation that the consistency projection inverts."""
        return self.card.get("degradation") == "bicubic"

    def choose(self, picture: Picture) -> "Choice":
        """Itself, whatever the picture."""
        return Choice(loaded=self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The model for a picture, and the words that follow "because of", where it was chosen."""

    loaded: LoadedModel
    reason: str | None = None


class ModelSource(Protocol):
    """What gives each picture its model: a loaded one, or ``services.auto.AutoModel``."""

    @property
    def name(self) -> str:
        """As the user gave it."""

    @property
    def scale(self) -> int:
        """Integer super-resolution factor of the models."""

    def choose(self, picture: Picture) -> Choice:
        """The model for a picture, loaded. Raises WeightsError."""


def load_model(name: str, runtime: Runtime, *, progress: Progress | None = None) -> LoadedModel:
    """Resolves, verifies, builds, loads strictly and places a super-resolution model.

    Raises:
        WeightsError: no such model, a damaged file, or weights that do not fit their config.
        UsageError: weights that cannot upscale, such as an unconditional prior.
    """
    resolved = resolve(name, progress=progress)
    checkpoint = read_safetensors(resolved.path)
    model = build_model(checkpoint.architecture, checkpoint.config, stored=checkpoint.numbers)
    try:
        model.load_state_dict(checkpoint.state, strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise WeightsError(
            f"{name}: the weights do not fit their configuration: {reason}"
        ) from error
    if not hasattr(model, "lr_multiple"):
        raise UsageError(
            f"{name} is a {checkpoint.architecture}, which does not upscale by itself",
            hint="vdsr weights list shows the models that do",
        )
    parameters = sum(p.numel() for p in model.parameters())
    return LoadedModel(
        name=name,
        model=cast(Sampler, runtime.place(model)),
        record=resolved.record,
        card=checkpoint.metadata,
        parameters=parameters,
    )
