"""Weights: a row of ``weights.toml`` -> a verified file -> its header and tensors.

    weights.toml ──► records ──► store ──┬──► bundled file
                                         ├──► hub ────► the hub's own cache ──┐
                                         └──► fetch ──► cache ◄── pickles ◄───┘
                                                          │
                                           files: read_header, read_safetensors

Nothing here imports torch or huggingface_hub before a function needs it.
"""

from vdsr_cli.weights.cache import expanded
from vdsr_cli.weights.files import (
    Checkpoint,
    Header,
    read_header,
    read_safetensors,
    write_safetensors,
)
from vdsr_cli.weights.pickles import PUBLISHED_ARCHITECTURE, convert
from vdsr_cli.weights.records import Score, WeightsRecord, find_record, load_records
from vdsr_cli.weights.sources import Bundled
from vdsr_cli.weights.store import REINSTALL, ResolvedWeights, check, locate, resolve

__all__ = [
    "PUBLISHED_ARCHITECTURE",
    "REINSTALL",
    "Bundled",
    "Checkpoint",
    "Header",
    "ResolvedWeights",
    "Score",
    "WeightsRecord",
    "check",
    "convert",
    "expanded",
    "find_record",
    "load_records",
    "locate",
    "read_header",
    "read_safetensors",
    "resolve",
    "write_safetensors",
]
