"""The use case of ``vdsr bench``: pictures with their ground truth in, a report out.

paths ─► datasets ─► scenes (HR, LR) ─► methods ─► samples ─► Scorer ─► scores ─► Report
                          └─► bicubic, verified on the sets that are known, before the rest
metrics ─► weights, at hand or downloaded ─────────────────────►┘
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from vdsr_cli.bench.crops import worst_crops
from vdsr_cli.bench.data import (
    Dataset,
    Failure,
    Protocol,
    Scene,
    discover,
    load_scenes,
)
from vdsr_cli.bench.fid import SetFeatures
from vdsr_cli.bench.methods import Bicubic, FolderMethod, Method, ModelMethod, row_names
from vdsr_cli.bench.report import (
    PictureScore,
    Report,
    SetScore,
    worst_pictures,
)
from vdsr_cli.bench.scoring import Scorer
from vdsr_cli.bench.verify import dataset_facts
from vdsr_cli.config import DEFAULT_TEMPERATURE, Temperature
from vdsr_cli.errors import InputError, OutputError, UsageError, VdsrError
from vdsr_cli.figures.contact_sheet import strip_of
from vdsr_cli.images import save_levels
from vdsr_cli.loading import LoadedModel
from vdsr_cli.metrics import FEWEST_PICTURES
from vdsr_cli.metrics.learned import LEARNED, Learned, LearnedMetric, load_learned
from vdsr_cli.models.protocol import refuse_unknown_levels
from vdsr_cli.outputs import Existing, check_outputs
from vdsr_cli.runtime import Runtime
from vdsr_cli.services.upscale import UpscaleRequest, check_request
from vdsr_cli.weights.fetch import Progress

_ARTICLE = (
    "the VDVAE-SR article does not state its protocol; whole pictures, Pillow's LR and no border"
    " are inferred from what they give EDSR"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """Methods, data sets and settings of a benchmark.

    Attributes:
        paths: pictures and folders; see :mod:`vdsr_cli.bench.data`.
        scale: super-resolution factor; a model of another one runs as ``vdsr upscale`` runs it.
        temperatures: each is a row of each model.
        seeds: of the noise; rows are means over them.
        samples: drawn of each picture under the diverse protocol.
        upscale: how the models run; its scale, temperature and seed are replaced.
        metrics: the learned ones to score, downloaded if need be; None for those at hand.
        against: folders of pictures that other tools have made.
        likelihood: whether bits per dimension are scored, of the models that have them.
        weights: importance weights of a tighter bound on them; 0 for none.
        verify: whether bicubic must come out as known on the sets that are known.
        worst: how many of the worst pictures are of interest.
        crops: folder for crops of those, or None.
    """

    paths: tuple[Path, ...]
    protocol: Protocol = Protocol.standard
    scale: int = 4
    temperatures: tuple[Temperature, ...] = (DEFAULT_TEMPERATURE,)
    seeds: tuple[int, ...] = (0,)
    samples: int = 5
    upscale: UpscaleRequest = field(default_factory=UpscaleRequest)
    metrics: tuple[LearnedMetric, ...] | None = None
    metric_weights: Path | None = None
    against: tuple[Path, ...] = ()
    likelihood: bool = False
    weights: int = 0
    verify: bool = True
    worst: int = 0
    crops: Path | None = None
    existing: Existing = Existing.refuse

    def __post_init__(self) -> None:
        if not (self.temperatures and self.seeds):
            raise UsageError("a benchmark needs a temperature and a seed")
        if self.protocol is Protocol.diverse and self.samples < 2:
            raise UsageError("--samples: diversity needs 2 samples or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Calls for those who want to see a benchmark proceed."""

    on_start: Callable[[str, int], None] = lambda dataset, steps: None
    on_score: Callable[[PictureScore], None] = lambda score: None
    on_failure: Callable[[Failure], None] = lambda failure: None
    on_download: Progress | None = None

    def fail(self, report: Report, failure: Failure) -> None:
        """Puts a failure into the report, and tells of it."""
        report.failures.append(failure)
        self.on_failure(failure)


def run_bench(
    request: BenchRequest, models: Sequence[LoadedModel], runtime: Runtime, events: Events
) -> Report:
    """Scores everything that is asked for.

    A picture that cannot be scored is a failure in the report; what concerns the whole run is
    raised.

    Raises:
        UsageError: a model of another scale under the diverse protocol, or without the latents
            that a temperature names; a scale that does not divide the protocol's pictures.
        InputError: a path without pictures.
        DeviceError: a model that does not run.
    """
    foreign = [loaded for loaded in models if loaded.model.scale != request.scale]
    if foreign and request.protocol is Protocol.diverse:
        raise UsageError(f"{foreign[0].name} is a model for scale {foreign[0].model.scale}")
    side = request.protocol.hr_side
    if side is not None and side % request.scale:
        raise UsageError(
            f"--scale {request.scale} does not divide the {side}x{side} pixels of"
            f" --protocol {request.protocol.value}"
        )
    for loaded in models:
        check_request(request.upscale, loaded)
        for temperature in request.temperatures:
            refuse_unknown_levels(temperature, loaded.model)
    datasets = discover(request.paths, request.scale)
    if request.crops is not None:
        _check_crops(datasets, request.crops, request.existing)
    methods = plan_methods(request, models, runtime)
    edges = str(request.upscale.settings.edges)
    report = Report(protocol=request.protocol.value, scale=request.scale, edges=edges)
    report.notes += [
        f"{loaded.name} is a model for scale {loaded.model.scale}; its row is what "
        f"vdsr upscale --scale {request.scale} makes of it"
        for loaded in foreign
    ]
    if request.protocol is Protocol.article:
        report.notes.append(_ARTICLE)
    learned = load_learned(request.metrics, request.metric_weights, progress=events.on_download)
    _tell_missing(learned, request, report, events)
    scorer = Scorer(request.protocol, learned, request.upscale.settings.edges)
    for method in methods:
        if isinstance(method, ModelMethod) and method.seed in (None, request.seeds[0]):
            method.warm_up()
    for dataset in datasets:
        report.notes += dataset.notes
        _run_dataset(dataset, methods, scorer, request, report, events)
    report.peak_memory_mib = peak_memory_mib(runtime)
    return report


def _tell_missing(learned: Learned, request: BenchRequest, report: Report, events: Events) -> None:
    """Reports missing metrics: those asked for as failures, which keep their columns, the others by
    a note that says how to have them."""
    if request.metrics is None:
        if names := [metric.name for metric in LEARNED if metric.key in learned.missing]:
            report.notes.append(
                f"not scored, no weights on this disk: {', '.join(names)}; name them in --metrics "
                "to download them, or give a folder with --metric-weights"
            )
        return
    for key, error in learned.missing.items():
        report.unscored[key] = "no weights"
        reason = f"{key} is not scored: {error}"
        failure = replace(Failure.of(error, dataset="*", picture="*"), error=reason)
        events.fail(report, failure)


def plan_methods(
    request: BenchRequest, models: Sequence[LoadedModel], runtime: Runtime
) -> list[Method]:
    """The rows but bicubic, one a seed: models by temperature, then other tools' folders."""
    samples = request.samples if request.protocol is Protocol.diverse else 1
    methods: list[Method] = []
    names = row_names([m.name for m in models] + [str(folder) for folder in request.against])
    for name, loaded in zip(names, models, strict=False):
        for temperature in request.temperatures:
            for seed in request.seeds if temperature else request.seeds[:1]:
                settings = replace(request.upscale.settings, temperature=temperature, seed=seed)
                upscale = replace(request.upscale, settings=settings)
                methods.append(
                    ModelMethod(
                        name=name,
                        loaded=loaded,
                        request=upscale,
                        runtime=runtime,
                        samples=samples,
                        has_likelihood=request.likelihood
                        and temperature == request.temperatures[0],
                        weights=request.weights,
                    )
                )
    for name, folder in zip(names[len(models) :], request.against, strict=True):
        if not folder.is_dir():
            raise InputError(f"{folder}: there is no such folder")
        methods.append(FolderMethod(folder=folder, name=name))
    return methods


def _run_dataset(
    dataset: Dataset,
    methods: Sequence[Method],
    scorer: Scorer,
    request: BenchRequest,
    report: Report,
    events: Events,
) -> None:
    """Bicubic over the whole set first, so that it can be verified; then the rest by picture."""
    fail = partial(events.fail, report)
    events.on_start(dataset.name, len(dataset.pairs) * (1 + len(methods)))
    baseline = Bicubic(protocol=request.protocol)
    wholes = SetFeatures(scorer.learned.inception)
    scores, sizes = [], []
    for scene in _scenes(dataset, request, fail):
        sizes.append(scene.source_size)
        scores.append(_scored(dataset, scene, baseline, scorer, wholes))
        events.on_score(scores[-1])
    try:
        facts = dataset_facts(
            dataset,
            sizes,
            scores,
            protocol=request.protocol,
            scale=request.scale,
            insist=request.verify,
        )
    except InputError as error:
        fail(Failure.of(error, dataset=dataset.name, picture="*"))
        return
    report.datasets.append(facts)
    report.pictures += scores
    for scene in _scenes(dataset, request):
        for method in methods:
            try:
                report.pictures.append(_scored(dataset, scene, method, scorer, wholes))
            except InputError as error:
                fail(_failure_of(dataset, scene, method, error))
            else:
                events.on_score(report.pictures[-1])
    _add_sets(dataset, wholes, request, report)
    if request.crops is not None and methods:
        save_crops(dataset, methods, request, report, request.crops, fail)


def _scenes(
    dataset: Dataset,
    request: BenchRequest,
    fail: Callable[[Failure], None] = lambda failure: None,
) -> Iterator[Scene]:
    """The scenes of a dataset, as the request has them made."""
    edges = request.upscale.settings.edges
    return load_scenes(dataset, request.protocol, request.scale, fail, edges)


def _add_sets(dataset: Dataset, wholes: SetFeatures, request: BenchRequest, report: Report) -> None:
    """FID of each row, or a note that there are too few pictures for it."""
    for (method, temperature, seed), fid in wholes.scores().items():
        report.sets.append(
            SetScore(
                dataset=dataset.name,
                method=method,
                temperature=temperature,
                seed=seed,
                scores={"fid": fid},
            )
        )
    if 0 < len(wholes.hr) < FEWEST_PICTURES:
        report.notes.append(
            f"{dataset.name}: FID needs {FEWEST_PICTURES} pictures, there are {len(wholes.hr)}"
        )
        if request.metrics is not None:
            report.unscored["fid"] = f"under {FEWEST_PICTURES} pictures"


def _check_crops(datasets: Sequence[Dataset], folder: Path, existing: Existing) -> None:
    """Refuses crops that are pictures of the run, there already, or of one name, before any is
    scored."""
    pairs = [pair for dataset in datasets for pair in dataset.pairs]
    crops = [_crop_path(folder, d.name, pair.name) for d in datasets for pair in d.pairs]
    pictures = [path for pair in pairs for path in (pair.hr, pair.lr) if path]
    check_outputs(crops, existing, inputs=pictures)


def _crop_path(folder: Path, dataset: str, picture: str) -> Path:
    return folder / f"{Path(dataset).name}_{picture}.png"


def save_crops(
    dataset: Dataset,
    methods: Sequence[Method],
    request: BenchRequest,
    report: Report,
    folder: Path,
    fail: Callable[[Failure], None],
) -> None:
    """Writes ``folder/dataset_picture.png`` for the first method's worst pictures; one that cannot
    be written, or whose name has been taken meanwhile, is a failure and keeps no score back."""
    first = methods[0]
    column = next(column for column in report.columns() if column.key.startswith("psnr"))
    key = (dataset.name, first.name, first.temperature)
    mine = [s for s in report.pictures if s.key == key]
    worst = {name for name, _ in worst_pictures(mine, column, request.worst)}
    shown = [
        replace(method, is_scored=False) if isinstance(method, ModelMethod) else method
        for method in methods
        if method.seed in (None, request.seeds[0])
    ]
    pairs = tuple(pair for pair in dataset.pairs if pair.name in worst)
    chosen = replace(dataset, pairs=pairs)
    for scene in _scenes(chosen, request):
        strip = strip_of(worst_crops(dataset.name, scene, shown))
        path = _crop_path(folder, dataset.name, scene.name)
        try:
            save_levels(path, strip, replace=request.existing.is_replaced)
        except OutputError as error:
            fail(_failure_of(dataset, scene, first, error))


def _failure_of(dataset: Dataset, scene: Scene, method: Method, error: VdsrError) -> Failure:
    return Failure.of(error, dataset=dataset.name, picture=scene.name, method=method.name)


@torch.inference_mode()
def _scored(
    dataset: Dataset, scene: Scene, method: Method, scorer: Scorer, wholes: SetFeatures
) -> PictureScore:
    drawn = method.draw(dataset.name, scene)
    wholes.add((method.name, method.temperature, method.seed), scene, drawn.samples)
    scores = {**scorer.score(scene, drawn.samples, drawn.unprojected), **drawn.scores}
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


def peak_memory_mib(runtime: Runtime) -> float | None:
    """The most memory that was in use so far: the GPU's, else the process's; None where unknown."""
    if runtime.device.type == "cuda":
        return torch.cuda.max_memory_allocated(runtime.device) / 2**20
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
