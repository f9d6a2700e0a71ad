"""The use case of ``vdsr bench``: pictures with their ground truth in, a report out.

    paths ─► datasets ─► scenes (HR, LR) ─► methods ─► samples ─► Judge ─► scores ─► Report
                              └─► bicubic, verified on the sets that are known, before the rest
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from vdsr_cli.errors import InputError, UsageError, VdsrError
from vdsr_cli.metrics import (
    LPIPS,
    average_pairwise,
    lr_psnr,
    mse_unit,
    ntire_diversity,
    psnr_rgb,
    psnr_y,
    ssim_rgb,
    ssim_y,
)
from vdsr_cli.metrics.lpips import Features
from vdsr_cli.runtime import Runtime
from vdsr_cli.services.bench_data import (
    Dataset,
    Failure,
    Protocol,
    Scene,
    discover,
    load_scenes,
)
from vdsr_cli.services.bench_methods import Bicubic, FolderMethod, Method, ModelMethod
from vdsr_cli.services.bench_published import BicubicFigure, KnownSet, load_known_sets
from vdsr_cli.services.bench_report import DatasetFacts, PictureScore, Report, mean_row
from vdsr_cli.services.loading import LoadedModel
from vdsr_cli.services.upscale import UpscaleRequest

PSNR_TOLERANCE_DB = 0.02
SSIM_TOLERANCE = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """What to score and how.

    Attributes:
        paths: pictures and folders; see :mod:`vdsr_cli.services.bench_data`.
        protocol: standard, paper or diverse.
        scale: super-resolution factor, that of every model.
        temperatures: each is a row of each model.
        seeds: of the noise; rows are means over them.
        samples: drawn of each picture under the diverse protocol.
        upscale: how the models run; its scale, temperature and seed are replaced.
        metric_weights: folder with the weights of the learned metrics, or None.
        against: folders of pictures that other tools have made.
        verify: whether bicubic must come out as known on the sets that are known.
    """

    paths: tuple[Path, ...]
    protocol: Protocol = Protocol.standard
    scale: int = 4
    temperatures: tuple[float, ...] = (0.8,)
    seeds: tuple[int, ...] = (0,)
    samples: int = 5
    upscale: UpscaleRequest = field(default_factory=UpscaleRequest)
    metric_weights: Path | None = None
    against: tuple[Path, ...] = ()
    verify: bool = True

    def __post_init__(self) -> None:
        if not (self.temperatures and self.seeds):
            raise UsageError("a benchmark needs a temperature and a seed")
        if self.protocol is Protocol.diverse and self.samples < 2:
            raise UsageError("--samples: diversity needs 2 samples or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What a caller may want to see on the way."""

    on_start: Callable[[str, int], None] = lambda dataset, steps: None
    on_score: Callable[[PictureScore], None] = lambda score: None
    on_failure: Callable[[Failure], None] = lambda failure: None


class Judge:
    """Scores samples of a scene under a protocol.

    Args:
        protocol: decides on the colour space and the border.
        weights: folder with the weights of the learned metrics, or None.
    """

    def __init__(self, protocol: Protocol, weights: Path | None) -> None:
        self.protocol = protocol
        self.nets = {net: LPIPS(path, net) for net, path in find_lpips(weights).items()}
        self._reference: tuple[Scene, dict[str, Features]] | None = None

    def score(self, scene: Scene, samples: Tensor) -> dict[str, float]:
        """Scores by column key: means over the samples, uint8 (k, 3, H, W)."""
        each = [self._fidelity(scene, sr) for sr in samples]
        scores = {key: sum(one[key] for one in each) / len(each) for key in each[0]}
        scores["lr_psnr_worst"] = min(one["lr_psnr"] for one in each)
        features = {net: [lpips.features(sr) for sr in samples] for net, lpips in self.nets.items()}
        reference = self._features_of(scene)
        for net, lpips in self.nets.items():
            distances = [lpips.distance(f, reference[net]) for f in features[net]]
            scores[f"lpips_{net}"] = sum(distances) / len(distances)
        if self.protocol is Protocol.diverse:
            scores |= self._diversity(scene, samples, features.get("alex"))
        return scores

    def _fidelity(self, scene: Scene, sr: Tensor) -> dict[str, float]:
        shave, hr = self.protocol.shave_px(scene.scale), scene.hr
        scores = {"psnr_rgb": psnr_rgb(sr, hr, shave=shave)}
        if self.protocol is not Protocol.diverse:
            scores["psnr_y"] = psnr_y(sr, hr, shave=shave)
        if self.protocol is Protocol.standard:
            scores["ssim_y"] = ssim_y(sr, hr, shave=shave)
        else:
            scores["ssim_rgb"] = ssim_rgb(sr, hr, shave=shave)
        scores["lr_psnr"] = lr_psnr(sr, scene.lr, scene.scale)
        return scores

    def _features_of(self, scene: Scene) -> dict[str, Features]:
        """The HR picture's features, kept for the next method."""
        if self._reference is None or self._reference[0] is not scene:
            made = {net: lpips.features(scene.hr) for net, lpips in self.nets.items()}
            self._reference = (scene, made)
        return self._reference[1]

    def _diversity(
        self, scene: Scene, samples: Tensor, features: list[Features] | None
    ) -> dict[str, float]:
        scores = {"apd_mse": 1e4 * average_pairwise(list(samples), mse_unit)}
        if features is None:
            return scores
        alex, hr = self.nets["alex"], self._features_of(scene)["alex"]
        size = (scene.hr.shape[1], scene.hr.shape[2])
        scores["apd_lpips"] = 1e3 * average_pairwise(features, alex.distance)
        scores["diversity"] = ntire_diversity([alex.distance_map(f, hr, size) for f in features])
        return scores


def find_lpips(folder: Path | None) -> dict[str, Path]:
    """The LPIPS weights in a folder, by network.

    Raises:
        InputError: there is no such folder.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder of metric weights")
    paths = {net: folder / f"lpips_{net}.safetensors" for net in ("alex", "squeeze")}
    return {net: path for net, path in paths.items() if path.is_file()}


def run_bench(
    request: BenchRequest, models: Sequence[LoadedModel], runtime: Runtime, events: Events
) -> Report:
    """Scores everything that is asked for.

    A picture that cannot be scored is a failure in the report; what concerns the whole run is
    raised.

    Raises:
        UsageError: a model of another scale.
        InputError: a path without pictures.
        DeviceError: a model that does not run.
    """
    for loaded in models:
        if loaded.model.scale != request.scale:
            raise UsageError(f"{loaded.name} is a model for scale {loaded.model.scale}")
    datasets = discover(request.paths, request.scale)
    methods = plan_methods(request, models, runtime)
    judge = Judge(request.protocol, request.metric_weights)
    report = Report(protocol=request.protocol.value, scale=request.scale)
    report.notes += _notes(judge, request)
    for method in methods:
        if isinstance(method, ModelMethod) and method.seed in (None, request.seeds[0]):
            method.warm_up()
    for dataset in datasets:
        _run_dataset(dataset, methods, judge, request, report, events)
    return report


def plan_methods(
    request: BenchRequest, models: Sequence[LoadedModel], runtime: Runtime
) -> list[Method]:
    """The rows but bicubic, one a seed: models by temperature, then other tools' folders."""
    samples = request.samples if request.protocol is Protocol.diverse else 1
    methods: list[Method] = []
    for loaded in models:
        for temperature in request.temperatures:
            for seed in request.seeds if temperature else request.seeds[:1]:
                settings = replace(request.upscale.settings, temperature=temperature, seed=seed)
                upscale = replace(request.upscale, settings=settings)
                methods.append(
                    ModelMethod(loaded=loaded, request=upscale, runtime=runtime, samples=samples)
                )
    for folder in request.against:
        if not folder.is_dir():
            raise InputError(f"{folder}: there is no such folder")
        methods.append(FolderMethod(folder=folder, name=folder.resolve().name))
    return methods


def _notes(judge: Judge, request: BenchRequest) -> list[str]:
    if judge.nets:
        return []
    if request.metric_weights is None:
        return ["LPIPS is not scored: its weights are not given (--metric-weights DIR)"]
    return [f"LPIPS is not scored: {request.metric_weights} has no lpips_alex.safetensors"]


def _run_dataset(
    dataset: Dataset,
    methods: Sequence[Method],
    judge: Judge,
    request: BenchRequest,
    report: Report,
    events: Events,
) -> None:
    """Bicubic over the whole set first, so that it can be verified; then the rest by picture."""

    def fail(failure: Failure) -> None:
        report.failures.append(failure)
        events.on_failure(failure)

    events.on_start(dataset.name, len(dataset.pairs) * (1 + len(methods)))
    baseline = Bicubic(protocol=request.protocol)
    scores, sizes = [], []
    for scene in load_scenes(dataset, request.protocol, request.scale, fail):
        sizes.append(scene.source_size)
        scores.append(_scored(dataset, scene, baseline, judge))
        events.on_score(scores[-1])
    known = next((s for s in load_known_sets() if s.is_made_of(sizes, request.scale)), None)
    try:
        verified = _verify(known, scores, request)
    except VdsrError as error:
        fail(Failure(dataset=dataset.name, picture="*", error=str(error), hint=error.hint))
        return
    report.datasets.append(
        DatasetFacts(
            name=dataset.name,
            path=str(dataset.path),
            pictures=len(scores),
            known_as=known.name if known else None,
            verified=verified,
        )
    )
    report.pictures += scores
    for scene in load_scenes(dataset, request.protocol, request.scale, lambda failure: None):
        for method in methods:
            try:
                score = _scored(dataset, scene, method, judge)
            except InputError as error:
                fail(_failure_of(dataset, scene, method, error))
                continue
            report.pictures.append(score)
            events.on_score(score)


def _failure_of(dataset: Dataset, scene: Scene, method: Method, error: VdsrError) -> Failure:
    return Failure(
        dataset=dataset.name,
        picture=scene.name,
        error=str(error),
        hint=error.hint,
        method=method.name,
        exit_code=error.exit_code,
    )


@torch.inference_mode()
def _scored(dataset: Dataset, scene: Scene, method: Method, judge: Judge) -> PictureScore:
    drawn = method.draw(dataset.name, scene)
    scores = judge.score(scene, drawn.samples)
    if drawn.seconds is not None:
        scores["seconds_per_megapixel"] = drawn.seconds / scene.megapixels
    return PictureScore(
        dataset=dataset.name,
        picture=scene.name,
        method=method.name,
        temperature=method.temperature,
        seed=method.seed,
        megapixels=scene.megapixels,
        scores=scores,
    )


def _verify(
    known: KnownSet | None, scores: Sequence[PictureScore], request: BenchRequest
) -> bool | None:
    """Whether bicubic came out as known; None where nothing is known.

    Raises:
        InputError: no picture was left, or bicubic came out differently.
    """
    if not scores:
        raise InputError("none of the pictures can be scored")
    figures = [
        figure
        for figure in (known.bicubic if known else ())
        if (figure.protocol, figure.scale) == (request.protocol.value, request.scale)
    ]
    if known is None or not figures:
        return None
    row = {key: estimate.mean for key, estimate in mean_row(scores).scores.items()}
    if any(_agree(row, figure) for figure in figures):
        return True
    if not request.verify:
        return False
    got = ", ".join(f"{key} {row[key]:.4f}" for key in figures[0].scores)
    wanted = ", ".join(f"{key} {value:g}" for key, value in figures[0].scores.items())
    raise InputError(
        f"{known.name}: bicubic gives {got}, where the set's own files give {wanted}",
        hint="the files are not the usual ones; --no-verify scores them all the same",
    )


def _agree(row: Mapping[str, float], figure: BicubicFigure) -> bool:
    return all(
        abs(row[key] - value)
        <= (PSNR_TOLERANCE_DB if key.startswith("psnr") else SSIM_TOLERANCE)
        for key, value in figure.scores.items()
    )
