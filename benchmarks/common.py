"""Shared by the scripts of this folder: arguments, a picture of any size, peak memory."""

import argparse
import resource
import sys
from pathlib import Path

import numpy as np

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "photo.png"


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help begins with a script's docstring as it stands."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def mirrored(size: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) uint8: the example, repeated by mirroring up to the size."""
    from vdsr_cli.images import read_picture

    rgb = read_picture(EXAMPLE).rgb[0].permute(1, 2, 0).numpy()
    levels = (rgb * 255).round().astype(np.uint8)
    pad = [(0, max(0, want - have)) for want, have in zip(size, levels.shape, strict=False)]
    return np.pad(levels, [*pad, (0, 0)], mode="symmetric")[: size[0], : size[1]]


def peak_memory_bytes(usage: resource.struct_rusage | None = None) -> int:
    """Largest resident size of a child that has ended, or of this process so far."""
    usage = usage or resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
