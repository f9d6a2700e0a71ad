"""The use case of ``vdsr sample-diverse``: several pictures that one input may come from.

    Picture ─► engine, all samples in one pass ─► strips (samples, 3, rows, W)
                 └─► projection to the input, clipping and rounding minded
                       ├─► one Canvas a sample ─► files
                       ├─► their mean and standard deviation ─► files
                       └─► distances and LR-PSNR ─► figures
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdsr_cli.consistency import ClippedStripProjection, project_within, round_cells
from vdsr_cli.errors import InputError, OutputError, UsageError
from vdsr_cli.images import MAX_PIXELS, Canvas, Picture, read_picture, save_levels
from vdsr_cli.metrics import LPIPS
from vdsr_cli.noise import NoiseField
from vdsr_cli.runtime import Runtime
from vdsr_cli.services.diverse_files import Names, Pick, SampleResult, SetResult, plan_names
from vdsr_cli.services.engine import SampleNoise, SamplingSettings, plan_picture, sample_strips
from vdsr_cli.services.latents import (
    MaskedNoise,
    WalkNoise,
    latent_grid,
    layer_angles,
    load_latents,
    save_latents,
)
from vdsr_cli.services.loading import LoadedModel
from vdsr_cli.services.spread import (
    LrFidelity,
    PairwiseDistances,
    farthest,
    mean_of_pairs,
    medoid,
)
