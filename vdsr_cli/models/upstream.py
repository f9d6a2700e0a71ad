"""State dicts as others published them -> the names of our modules.

    file                              keys                                  adapted by
    openai NAME-model-ema.th          encoder.… decoder.…                   nothing to do
    openai NAME-model.th              module.encoder.…                      strip "module."
    srvdvae (CVDVAE) Lightning .ckpt  state_dict: cvae.encoder_y.… shift    strip, check, drop
    VDVAE-SR .h5                      ema_vae.… vae.module.… vae_sr.…       pick one, rename

All are names of tensors; nothing here reads a file. A state that does not fit is refused with a
:class:`~vdsr_cli.errors.WeightsError` before any tensor of the model is touched.

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
from vdsr_cli.models.vdvae import Encoder

Shapes = Mapping[str, tuple[int, ...]]
"""A state without its numbers."""

ENCODER = "encoder."

PREFIXES = ("module.", "cvae.")
"""Wrappers' prefixes, stripped from the front in this order as long as all keys have them."""


def load_published_state(
    model: nn.Module, state: Mapping[str, Any], *, assign: bool = False
) -> None:
    """Loads a published state strictly into a VDVAE, VDVAE-SR or CVDVAE.

    Args:
        model: as its config describes it.
        state: a published state dict in any of the forms of the module's table.
        assign: take the state's tensors over instead of copying (for a model built on "meta").

    Raises:
        WeightsError: a key is missing, unexpected or of another shape, something is no tensor, or
            the file was made for an input normalisation other than the model's.
    """
    tensors = _only_tensors(_unwrap(state))
    if is_vdvae_sr_checkpoint(tensors):
        tensors = _without_unused_gates(adapt_vdvae_sr(tensors), model.state_dict())
    else:
        tensors = strip_prefixes(tensors)
    _check_normalisation(model, tensors)
    tensors = {k: v for k, v in tensors.items() if k not in ("shift", "scale")}
    check_fit(_shapes(model.state_dict()), _shapes(tensors))
    model.load_state_dict(tensors, strict=True, assign=assign)


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
        model: what they are for.
        state: all of them.
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


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes "module." (DistributedDataParallel) and "cvae." (Lightning) if all keys have it."""
    stripped = dict(state)
    for prefix in PREFIXES:
        if stripped and all(key.startswith(prefix) for key in stripped):
            stripped = {key.removeprefix(prefix): value for key, value in stripped.items()}
    return stripped


def is_vdvae_sr_checkpoint(state: Iterable[str]) -> bool:
    """Whether these keys are those of a file that the released VDVAE-SR code saves."""
    return any(key.startswith(("vae.module.", "ema_vae.")) for key in state)


def adapt_vdvae_sr(state: Mapping[str, Tensor], *, ema: bool = True) -> dict[str, Tensor]:
    """The released VDVAE-SR wrapper's state -> keys of :class:`~vdsr_cli.models.vdvae_sr.VDVAESR`.

    Keeps the HR model and the LR model's encoder (its decoder is never used), both from their
    moving averages or both as last trained. The code stores a gate in every block though it reads
    only those below resolution 32; the others come along and :func:`load_published_state` drops
    those that the model has not.
    """
    main, lr = ("ema_vae.", "ema_vae_sr.") if ema else ("vae.module.", "vae_sr.module.")
    adapted = {k.removeprefix(main): v for k, v in state.items() if k.startswith(main)}
    for key, value in state.items():
        if key.startswith(f"{lr}encoder."):
            adapted[f"lr_{key.removeprefix(lr)}"] = value
    return adapted


def _unwrap(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict inside a Lightning checkpoint, or the state itself."""
    inner = state.get("state_dict", state)
    return inner if isinstance(inner, Mapping) else state


def _only_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    strangers = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if strangers:
        raise WeightsError(f"not a state dict: no tensor at {_brief(strangers)}")
    return dict(state)


def _without_unused_gates(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if k in own or not k.endswith(".gate_param")}


def _check_normalisation(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Compares CVDVAE's buffers ``shift`` and ``scale`` with the constants of the config."""
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, Encoder):
        return
    expected = {"shift": encoder.config.input_shift, "scale": encoder.config.input_scale}
    for name, number in expected.items():
        value = state.get(name)
        if value is None:
            continue
        if not torch.allclose(value.double().cpu(), torch.tensor(number).double(), rtol=1e-4):
            raise WeightsError(
                f"made for another input normalisation: {name} is {value.flatten().tolist()[:3]},"
                f" the model's is {number:.6g}"
            )


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
