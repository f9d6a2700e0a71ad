"""Everything that an output's bytes depend on, as one hash: a run resumes files that have it."""

import hashlib
import json
import zlib
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor, nn

import vdsr_cli
from vdsr_cli.images import Picture
from vdsr_cli.loading import LoadedModel
from vdsr_cli.runtime import Runtime


def fingerprint(
    picture: Picture, loaded: LoadedModel, runtime: Runtime, settings: dict[str, Any]
) -> str:
    """sha256 of the input's pixels and metadata, of the model's numbers, of ``settings`` (fit for
    JSON), and of what computes with them."""
    digest = hashlib.sha256()
    software = [vdsr_cli.__version__, torch.__version__, zlib.ZLIB_RUNTIME_VERSION]
    facts = [software, str(runtime.device), str(runtime.dtype), settings]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    digest.update(repr(sorted(asdict(picture.metadata).items())).encode())
    _add(digest, "rgb", picture.rgb)
    if picture.alpha is not None:
        _add(digest, "alpha", picture.alpha)
    for name, tensor in cast(nn.Module, loaded.model).state_dict().items():
        _add(digest, name, tensor)
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", name: str, tensor: Tensor) -> None:
    digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
    values = tensor.detach().cpu().contiguous().view(-1)
    digest.update(values.view(torch.uint8).numpy().data)
