"""Small files of weights, and what a cache holds of them."""

import hashlib
import json
import os
import random
from pathlib import Path


class Marker:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def safetensors(seed: int = 0, numbers: int = 50_000) -> bytes:
    """A small weights file of ours, made without torch."""
    data = random.Random(seed).randbytes(4 * numbers)
    card = json.dumps({"architecture": "tiny", "config": {"width": 4}, "card": {"seed": seed}})
    entry = {"dtype": "F32", "shape": [numbers], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"vdsr": card}, "layer.weight": entry}).encode()
    return len(header).to_bytes(8, "little") + header + data


def left_in(folder: Path) -> list[str]:
    """Every file in a cache but for locks and the tag that says it is one."""
    files = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return sorted(p.name for p in files if p.suffix != ".lock" and p.name != "CACHEDIR.TAG")
