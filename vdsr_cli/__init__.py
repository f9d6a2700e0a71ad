"""vdsr: super-resolution that samples, on hierarchical variational autoencoders.

    import vdsr_cli as vdsr

    model = vdsr.load("vdvae-sr-x4")
    model.upscale("photo.jpg", temperature=0.8).save("photo_x4.png")

docs/library.md has the rest. Nothing heavy is imported until a name is used.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from vdsr_cli.api import (
        Likelihood,
        Model,
        Result,
        Samples,
        degrade,
        frames,
        load,
        lr_psnr,
        psnr_y,
        read,
        ssim_y,
    )
    from vdsr_cli.errors import VdsrError
    from vdsr_cli.images import Picture

__version__ = "0.1.0"

__all__ = [
    "Likelihood",
    "Model",
    "Picture",
    "Result",
    "Samples",
    "VdsrError",
    "__version__",
    "degrade",
    "frames",
    "load",
    "lr_psnr",
    "psnr_y",
    "read",
    "ssim_y",
]

_ELSEWHERE = {"Picture": "images", "VdsrError": "errors"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ELSEWHERE.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
