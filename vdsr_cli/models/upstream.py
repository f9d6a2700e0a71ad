"""State dicts as others published them: which published VDVAE they are of, and whether they fit.

All are names and shapes of tensors; nothing here reads a file. A state that does not fit is refused
with a :class:`~vdsr_cli.errors.WeightsError` before any tensor of the model is touched.

Of a published prior the decoder alone generates; the encoder is wanted for likelihoods and for
training. A file whose decoder is whole is therefore of use without a whole encoder.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vdsr_cli.errors import UsageError, WeightsError
from vdsr_cli.models import vdvae_config
from vdsr_cli.models.registry import build_model

Shapes = Mapping[str, tuple[int, ...]]
"""A state without its numbers."""

ENCODER = "encoder."


def identify_published(shapes: Shapes) -> str:
    """The published configuration that a state is of: the one with as many stochastic layers.

    Whether everything else fits is for :func:`check_published`. Raises WeightsError for none.
    """
    layers = {name.split(".")[2] for name in shapes if name.startswith("decoder.dec_blocks.")}
    for name, config in vdvae_config.PUBLISHED.items():
        if len(config.decoder_layers) == len(layers):
            return name
    raise WeightsError(
        f"the tensors are of no published VDVAE: {len(layers)} stochastic layers",
        hint=f"known: {', '.join(vdvae_config.PUBLISHED)}",
    )


def published_layout(name: str) -> dict[str, tuple[int, ...]]:
    """Every tensor of a published configuration and its shape; raises UsageError for no such."""
    if name not in vdvae_config.PUBLISHED:
        raise UsageError(
            f"there is no published configuration {name!r}",
            hint=f"known: {', '.join(vdvae_config.PUBLISHED)}",
        )
    with torch.device("meta"):
        model = build_model("openai-vdvae", {"published": name})
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def check_published(name: str, shapes: Shapes) -> tuple[str, ...]:
    """Checks a state against a published configuration; returns what its encoder lacks.

    Returns:
        Tensors of the encoder that are missing or of another shape; none, of a whole file.

    Raises:
        WeightsError: anything else does not fit, so that the file cannot even generate.
    """
    layout = published_layout(name)
    lacking = [key for key in layout if key.startswith(ENCODER) and shapes.get(key) != layout[key]]
    own = {key: shape for key, shape in layout.items() if key not in lacking}
    check_fit(own, {key: shape for key, shape in shapes.items() if key not in lacking})
    return tuple(lacking)


def encoder_defect(lacking: Iterable[str]) -> str:
    """Words for what :func:`check_published` found: the blocks concerned and what follows."""
    parts = dict.fromkeys(".".join(key.split(".")[:3]) for key in lacking)
    return (
        f"its encoder is not whole ({_brief(list(parts), 4)}): it can generate, "
        "but neither score likelihoods nor be trained on"
    )


def published_defect(architecture: str, config: Mapping[str, Any], shapes: Shapes) -> str | None:
    """Words for the part that a published prior's file lacks; None of a whole one, or of another.

    Raises:
        WeightsError: a file that cannot even generate.
    """
    published = config.get("published")
    if architecture != "openai-vdvae" or published is None:
        return None
    lacking = check_published(published, shapes)
    return encoder_defect(lacking) if lacking else None


def check_state(
    name: str, model: nn.Module, state: Mapping[str, Tensor], *, published: str | None = None
) -> None:
    """Refuses weights that do not fit; where a published encoder is all that fails, says so.

    Args:
        name: what the message calls the weights.
        published: the configuration's name, if it has one.

    Raises:
        WeightsError: a tensor is missing, unexpected or of another shape.
    """
    shapes = _shapes(state)
    try:
        check_fit(_shapes(model.state_dict()), shapes)
    except WeightsError as error:
        if published is not None and (lacking := check_published(published, shapes)):
            raise WeightsError(
                f"{name}: {encoder_defect(lacking)}", hint="vdsr generate can use it"
            ) from error
        raise WeightsError(f"{name}: {error}", hint=error.hint) from error


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def check_fit(own: Shapes, state: Shapes) -> None:
    """Refuses a state that is not tensor for tensor a model's own; raises WeightsError."""
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    misshapen = [
        f"{key} {state[key]} for {own[key]}"
        for key in own
        if key in state and state[key] != own[key]
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    found = [f"{len(v)} {k}: {_brief(v)}" for k, v in problems.items() if v]
    if found:
        raise WeightsError(
            f"the weights do not fit the model; {'; '.join(found)}",
            hint="are they of another model, or of another version of it?",
        )


def _brief(names: list[str], limit: int = 3) -> str:
    shown = ", ".join(names[:limit])
    return f"{shown}, …" if len(names) > limit else shown
