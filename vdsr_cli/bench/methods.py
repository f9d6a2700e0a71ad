"""Methods that are scored: bicubic enlargement, our models, pictures that other tools have made.

A method takes a scene and returns its samples, uint8 (samples, 3, H, W); one unless the protocol
asks for more.
"""

import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol as Interface

import torch
from torch import Tensor

from vdsr_cli.bench.data import Protocol, Scene
from vdsr_cli.bench.likelihood import elbo_bits
from vdsr_cli.config import BICUBIC, Temperature
from vdsr_cli.errors import InputError
from vdsr_cli.images import Metadata, Picture, read_picture
from vdsr_cli.images.levels import to_levels
from vdsr_cli.images.resize import bicubic, pillow_resized
from vdsr_cli.loading import LoadedModel
from vdsr_cli.models.protocol import LikelihoodModel
from vdsr_cli.paths import INPUT_SUFFIXES, long_stem
from vdsr_cli.runtime import Runtime
from vdsr_cli.sampling.pipeline import draw_canvases
from vdsr_cli.sampling.tiling import DEFAULT_TILE
from vdsr_cli.services.upscale import UpscaleRequest, plan_picture

_SAMPLE = re.compile(r".*_s(\d+)")
"""The name of a sample: ``001_s3`` of ``vdsr sample-diverse`` and others."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """The samples that a method made of a scene.

    Attributes:
        samples: uint8 (k, 3, H, W).
        seconds: that one of them took, or None where somebody else made it.
        unprojected: the first sample before the consistency projection, uint8 (3, H, W); None
            where nothing is projected.
        scores: that only the method itself can know, by column key.
    """

    samples: Tensor
    seconds: float | None = None
    unprojected: Tensor | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


class Method(Interface):
    """One row of the table, for one seed."""

    @property
    def name(self) -> str:
        """Name of the row."""

    @property
    def temperature(self) -> Temperature | None:
        """That of a model that samples, else None."""

    @property
    def seed(self) -> int | None:
        """That of a model that samples, else None."""

    def draw(self, dataset: str, scene: Scene) -> Drawn:
        """The samples of a scene; raises VdsrError where there are none."""


def row_names(paths: Sequence[str]) -> list[str]:
    """Short names of models and folders: a file's stem, a folder's name; whole where they clash,
    and never the baseline's."""
    short = [_short_name(path) for path in paths]
    taken = Counter([BICUBIC, *short])
    pairs = zip(short, paths, strict=True)
    names = [name if taken[name] == 1 else path for name, path in pairs]
    return [os.path.abspath(name) if name == BICUBIC else name for name in names]


def _short_name(path: str) -> str:
    if path.endswith(".safetensors"):
        return Path(path).stem
    return Path(path).resolve().name if Path(path).is_dir() else path


def pillow_bicubic(lr: Tensor, scale: int) -> Tensor:
    """Pillow's enlargement, which the papers' tables use."""
    height, width = lr.shape[1:]
    return pillow_resized(lr, (height * scale, width * scale), "bicubic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bicubic:
    """The baseline of every table."""

    protocol: Protocol = Protocol.standard
    name: str = BICUBIC
    temperature: Temperature | None = None
    seed: int | None = None

    def draw(self, dataset: str, scene: Scene) -> Drawn:
        """The enlarged picture; ``dataset`` is not looked at."""
        enlarge = pillow_bicubic if self.protocol.reduces_by_pillow else bicubic
        started = time.perf_counter()
        sr = enlarge(scene.lr, scene.scale)
        return Drawn(samples=sr.unsqueeze(0), seconds=time.perf_counter() - started)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMethod:
    """A model at one temperature and seed, exactly as ``vdsr upscale`` runs it.

    Several samples are drawn as ``vdsr sample-diverse`` draws them. With ``is_scored`` unset
    their likelihood is not looked at.
    """

    name: str
    loaded: LoadedModel
    request: UpscaleRequest
    runtime: Runtime
    samples: int = 1
    has_likelihood: bool = False
    weights: int = 0
    is_scored: bool = True

    @property
    def temperature(self) -> Temperature | None:
        """Temperature of the latents."""
        return self.request.settings.temperature

    @property
    def seed(self) -> int | None:
        """Seed of the noise field; None at temperature 0, where it says nothing."""
        return self.request.settings.seed if self.request.settings.temperature else None

    def draw(self, dataset: str, scene: Scene) -> Drawn:
        """``samples`` samples of the noise field's; ``dataset`` is not looked at."""
        started = time.perf_counter()
        samples, unprojected = self._drawn(scene)
        seconds = (time.perf_counter() - started) / self.samples
        scores = self._likelihood(scene) if self.is_scored else {}
        return Drawn(samples=samples, seconds=seconds, unprojected=unprojected, scores=scores)

    def _likelihood(self, scene: Scene) -> dict[str, float]:
        model: object = self.loaded.model
        is_native = self.loaded.model.scale == scene.scale
        if not (self.has_likelihood and is_native and isinstance(model, LikelihoodModel)):
            return {}
        seed = self.request.settings.seed
        return elbo_bits(model, scene, seed=seed, runtime=self.runtime, weights=self.weights)

    def _drawn(self, scene: Scene) -> tuple[Tensor, Tensor | None]:
        """One as ``vdsr upscale`` makes it, several as ``vdsr sample-diverse`` draws them: the LR
        encoder sees each tile once. uint8 (samples, 3, H, W), and the first before it is projected,
        (3, H, W), where it is."""
        rgb = scene.lr.unsqueeze(0).float() / 255
        picture = Picture(rgb=rgb, metadata=Metadata(is_grey=scene.is_grey))
        settings = self.request.settings
        if self.samples > 1:
            settings = replace(settings, samples=tuple(range(self.samples)))
        request = replace(self.request, settings=settings, scale=float(scene.scale))
        plan = plan_picture(picture, self.loaded, request, self.runtime)
        raw: list[Tensor] = []
        canvases = draw_canvases(
            picture, plan, self.runtime, on_raw=lambda top, strip: raw.append(to_levels(strip[0]))
        )
        samples = torch.stack([canvas.planes8() for canvas in canvases])
        return samples, torch.cat(raw, dim=1).cpu() if raw else None

    def warm_up(self) -> None:
        """One tile, so that what is set up on first use is not counted."""
        side = self.loaded.model.fixed_tile or DEFAULT_TILE
        lr = torch.zeros(3, side, side, dtype=torch.uint8)
        scale = self.loaded.model.scale
        self._drawn(Scene(name="", hr=lr, lr=lr, scale=scale, source_size=(side, side)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderMethod:
    """Pictures that another tool has made: ``folder/001.png``, or ``folder/set5/001_x4.png``, or
    several samples of each, ``001_s0.png``, ``001_s1.png``."""

    folder: Path
    name: str
    temperature: Temperature | None = None
    seed: int | None = None

    def draw(self, dataset: str, scene: Scene) -> Drawn:
        """The picture of the scene's name, or its samples in the order of their numbers.

        Raises:
            InputError: there is none, or several that are no samples, or one has another size than
                HR.
        """
        return Drawn(
            samples=torch.stack([_of_size(p, scene) for p in self._find(dataset, scene.name)])
        )

    def _find(self, dataset: str, name: str) -> list[Path]:
        # A set whose name others have is called by its path, which must not lead out of the folder.
        below = self.folder / dataset.lstrip(os.sep)
        is_inside = below.is_dir() and ".." not in below.relative_to(self.folder).parts
        folder = below if is_inside else self.folder
        files = [p for p in folder.iterdir() if p.suffix.lower() in INPUT_SUFFIXES]
        whole = [p for p in files if p.name == name]
        has_suffix = Path(name).suffix.lower() in INPUT_SUFFIXES
        # The second is how vdsr upscale names what it makes where stems clash.
        stems = (name, long_stem(Path(name), 1)) if has_suffix else (name,)
        exact = whole or [p for p in files if p.stem in stems]
        found = sorted(exact or [p for p in files if any(_is_tagged(p.stem, s) for s in stems)])
        numbered = {int(m[1]): p for p in found if (m := _SAMPLE.fullmatch(p.stem))}
        if len(found) == 1 or len(numbered) == len(found) > 1:
            return [numbered[n] for n in sorted(numbered)] or found
        count = "several pictures" if found else "no picture"
        raise InputError(f"{folder}: {count} of the name {name}")


def _is_tagged(name: str, stem: str) -> bool:
    """Whether something that is no letter or digit follows the stem, and anything after it."""
    return name.startswith(stem) and name != stem and not name[len(stem)].isalnum()


def _of_size(path: Path, scene: Scene) -> Tensor:
    """A picture (3, H, W) uint8; raises InputError where it is of another size than HR."""
    sr = to_levels(read_picture(path).rgb[0])
    if sr.shape != scene.hr.shape:
        raise InputError(
            f"{path}: {sr.shape[2]}x{sr.shape[1]} where the HR picture is "
            f"{scene.hr.shape[2]}x{scene.hr.shape[1]}"
        )
    return sr
