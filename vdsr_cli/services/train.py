"""The use case of ``vdsr train``: pictures in, a checkpoint out."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vdsr_cli.config import torch_seed
from vdsr_cli.errors import OutputError, UsageError, WeightsError
from vdsr_cli.files import write_text_atomic
from vdsr_cli.loading import read_weights
from vdsr_cli.metrics import LPIPS
from vdsr_cli.models.compact import COEFFICIENTS, CompactHierarchy
from vdsr_cli.models.cvdvae import CVDVAE
from vdsr_cli.models.flow_vae import FlowVAE
from vdsr_cli.models.registry import COMPACT_VDVAE_SR
from vdsr_cli.models.srvae import SRVAE
from vdsr_cli.models.vdvae import VDVAE
from vdsr_cli.models.vdvae_sr import VDVAESR
from vdsr_cli.outputs import Existing, check_outputs
from vdsr_cli.runtime import Runtime, choose_runtime
from vdsr_cli.training.adversarial_start import adversarial_phase
from vdsr_cli.training.cards import (
    MEASURED,
    card_facts,
    command_line,
    hardware_of,
    markdown_card,
)
from vdsr_cli.training.config import Row, RunPlan, check_crop
from vdsr_cli.training.curves import save_curves
from vdsr_cli.training.data import CropSpec, PictureStore, find_pictures, origin_of
from vdsr_cli.training.loop import Trainer
from vdsr_cli.training.request import TrainRequest
from vdsr_cli.training.run_folder import CURVES, alone_in, read_log, run_files
from vdsr_cli.training.srvae import initialise_from_data
from vdsr_cli.training.start import (
    check_scale_of,
    model_of_run,
    new_model,
    select_fine_layers,
    select_likelihood,
)
from vdsr_cli.training.validation import Validator
from vdsr_cli.training.world import World, join_world, leave_world
from vdsr_cli.weights import Checkpoint, write_safetensors
from vdsr_cli.weights.runs import find_checkpoint, read_checkpoint
from vdsr_cli.weights.sources import is_pickle


def train(request: TrainRequest) -> Trainer:
    """Runs to ``config.steps`` or the end of the leg; a run in the folder is resumed.

    Raises:
        UsageError, InputError, WeightsError, DeviceError, OutputError: see :class:`Trainer` and
            :func:`~vdsr_cli.training.start.new_model`.
    """
    if request.config.schedule == "plateau" and not (request.val and request.val_every):
        raise UsageError(
            "--schedule plateau goes by validations", hint="give --val and --val-every"
        )
    plan = request.plan()
    world, device = join_world(request.device)
    try:
        with alone_in(request.out) if world.is_first else nullcontext():
            runtime = _runtime(device, request.dtype)
            trainer = _trainer(request, world, runtime)
            validate = _validator(request, trainer, runtime) if request.val_every else None
            trainer.run(_with_validation(plan, request, validate))
            if world.is_first:
                save_curves(read_log(request.out), request.out / CURVES)
            world.wait()  # a process that leaves while others still talk can bring them down
    finally:
        leave_world()
    return trainer


def _runtime(device: str, dtype: str) -> Runtime:
    """Device and dtype; on a GPU convolutions are tried out once for their fastest kernels."""
    runtime = choose_runtime(device, dtype)
    if runtime.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    return runtime


def _trainer(request: TrainRequest, world: World, runtime: Runtime) -> Trainer:
    """The trainer at the step that the run folder, or its source, has reached."""
    start = find_checkpoint(request.out) or request.branch_from
    torch.manual_seed(torch_seed(request.config.seed))
    model = model_of_run(request.objective, start) if start else _new_model(request)
    if request.config.likelihood_only:
        select_likelihood(model, request.config)
    if request.config.fine_layers:
        select_fine_layers(model, request.config)
    check_scale_of(model, request.scale)
    fixed = getattr(model, "fixed_tile", None)
    check_crop(request.config.lr_size, model.latent_shapes, model.scale, fixed)  # type: ignore[arg-type]
    adversarial = adversarial_phase(request, model, runtime.device)
    if isinstance(model, VDVAESR | VDVAE):
        is_cpu = runtime.device.type == "cpu"
        model.recompute = is_cpu if request.recompute is None else request.recompute
    store = _open_store(request, model, world)
    if isinstance(model, SRVAE | FlowVAE) and not (start or request.start_from):
        initialise_from_data(model, store, request.config)
    trainer = Trainer(
        model,
        store,
        request.config,
        request.out,
        device=runtime.device,
        compute=runtime.dtype,
        world=world,
        compiled=request.compiled,
        replayed=_is_replayed(request, model, runtime),
        keep_previous=True,
        adversarial=adversarial,
        leg=_leg(request, world, runtime),
    )
    if start:
        trainer.resume(start)
    return trainer


def _is_replayed(request: TrainRequest, model: nn.Module, runtime: Runtime) -> bool:
    """Whether a step is recorded as a CUDA graph. Raises UsageError where it cannot be."""
    if runtime.device.type != "cuda":
        if request.graph:
            raise UsageError("--graph records CUDA kernels", hint="leave it out, or --device cuda")
        return False
    if request.graph is None:
        return isinstance(model, CompactHierarchy) and not request.compiled
    return request.graph


def _leg(request: TrainRequest, world: World, runtime: Runtime) -> dict[str, Any]:
    """Facts of this leg for the model card."""
    started_from = request.start_from or request.prior
    return {
        "command": command_line(),
        "hardware": f"{world.size} x {hardware_of(runtime.device)}",
        "data": ", ".join(map(str, request.sources)),
        **({"started_from": started_from} if started_from else {}),
    }


def _new_model(request: TrainRequest) -> nn.Module:
    return new_model(
        request.objective,
        preset=request.preset,
        prior=request.prior,
        start_from=request.start_from,
        scale=request.scale,
        is_coupled=request.coupled,
        variant=request.variant,
        conditioned_layers=request.conditioned_layers,
    )


def _open_store(request: TrainRequest, model: nn.Module, world: World) -> PictureStore:
    """The decoded pictures. Of several processes that share a file the first one makes it."""
    if request.store is None:
        return _decoded(request, request.sources, model, world)
    check_outputs([request.store, *run_files(request.out)], Existing.skip)
    if world.is_first and not request.store.exists():
        _decoded(request, request.sources, model, world).save(request.store)
    world.wait()
    store = PictureStore.load(request.store)
    least, side = int(store.sizes.min()), request.config.lr_size
    is_fitted = request.config.fit == "whole"
    is_uncut = is_fitted and int(store.sizes.max()) > side
    hint = "delete it, or name another file"
    if store.scale != model.scale or least < side or is_uncut:
        raise UsageError(
            f"{request.store} was made for another scale or for other crops", hint=hint
        )
    origin = origin_of(_pictures(request), _rescales(request), is_fitted=is_fitted)
    if other := [name for name in origin if store.origin.get(name, origin[name]) != origin[name]]:
        raise UsageError(f"{request.store} was made of other {' and '.join(other)}", hint=hint)
    return store


def _decoded(
    request: TrainRequest, sources: Sequence[Path], model: nn.Module, world: World
) -> PictureStore:
    is_fitted, is_trained_on = request.config.fit == "whole", sources is request.sources
    # Several processes, each with its own copy, must not leave out different pictures.
    leaves_out = is_trained_on and world.size == 1
    return PictureStore(
        _pictures(request) if is_trained_on else find_pictures(sources),
        scale=model.scale,  # type: ignore[arg-type]
        rescales=_rescales(request) if is_trained_on else (1.0,),
        is_fitted=is_fitted,
        min_lr_size=request.config.lr_size,
        workers=request.workers,
        on_read=request.on_read,
        on_left_out=request.on_left_out if leaves_out else None,
    )


def _pictures(request: TrainRequest) -> list[Path]:
    """The pictures to train on, without what the run itself has drawn among them."""
    own = request.out.absolute()
    return [p for p in find_pictures(request.sources) if own not in p.absolute().parents]


def _rescales(request: TrainRequest) -> Sequence[float]:
    """The sizes at which pictures to train on are kept: those that stay whole at one."""
    return (1.0,) if request.config.fit == "whole" else request.rescale


def _validator(request: TrainRequest, trainer: Trainer, runtime: Runtime) -> Validator | None:
    """Scores and draws the model on validation pictures, or only draws the training's."""
    if not trainer.world.is_first:
        return None
    world, model = trainer.world, trainer.model
    store = _decoded(request, request.val, model, world) if request.val else trainer.store
    config = request.config
    weights = request.metric_weights and request.metric_weights / "lpips_alex.safetensors"
    if weights and config.adversarial and not weights.is_file():
        weights = None  # the folder is there for the perceptual term
    is_large = isinstance(trainer.model, VDVAESR | CVDVAE | VDVAE)
    batch = config.batch if is_large else max(config.batch, 4)
    return Validator(
        store,
        CropSpec(
            batch=batch,
            lr_size=config.lr_size,
            scale=store.scale,
            symmetries=config.symmetries,
        ),
        request.out,
        device=runtime.device,
        compute=runtime.dtype,
        lpips=LPIPS(weights) if weights else None,
        limit=request.val_limit if request.val else 0,
        kl=config.kl,
    )


def _with_validation(plan: RunPlan, request: TrainRequest, validator: Validator | None) -> RunPlan:
    writer = _tensorboard(request.out) if request.tensorboard else None

    def on_log(row: Row) -> None:
        request.on_log(row)
        if writer is not None:
            for key, value in row.items():
                writer.add_scalar(key, value, int(row["step"]))

    def validate(model: nn.Module, step: int) -> Row:
        if rows := read_log(request.out):
            save_curves(rows, request.out / CURVES)
        return validator(model, step) if validator else {}

    return replace(
        plan,
        on_log=on_log,
        validate_every=request.val_every,
        validate=validate,
        validates_start=bool(request.val and request.val_every) and not read_log(request.out),
    )


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("TensorBoard is not installed", hint="pip install tensorboard") from error
    return SummaryWriter(folder / "tensorboard")


def export(
    checkpoint: Path,
    out: Path,
    *,
    card: dict[str, Any],
    blend: Mapping[str, float] | None = None,
    existing: Existing = Existing.refuse,
) -> None:
    """Writes a run's averaged weights as a checkpoint that ``--model`` takes, in bfloat16.

    The card goes into its header and, as Markdown, beside it.

    Args:
        checkpoint: a run's ``last.pt``.
        card: facts to add; the run's own come along.
        blend: names, files or runs of the same network, and the share of each in the weights;
            the run's coupling of colours and neighbours stays whole where another has none.

    Raises:
        UsageError: a fact of the run's own, shares that leave nothing of the run, or ``out`` is
            what is exported, or has the name of a pickle.
        WeightsError: no checkpoint of a run, or others that do not fit it.
        OutputError: a file cannot be written.
    """
    page_path = out.with_suffix(".md")
    check_outputs([out, page_path], existing, inputs=[checkpoint, *map(Path, blend or {})])
    if is_pickle(out.name):
        raise UsageError(
            f"{out} has a name that --model takes for a pickle", hint="name it .safetensors"
        )
    told = sorted(set(card) & {*MEASURED, "blend"})
    if told:
        raise UsageError(f"--card {told[0]} is told by the run itself")
    run = read_checkpoint(checkpoint)
    facts = {**card_facts(run, read_log(checkpoint.parent), blend or {}), **card}
    architecture = run.get("kind", COMPACT_VDVAE_SR)
    blended = _blended(run["ema"], blend or {})
    state = {name: value.to(torch.bfloat16) for name, value in blended.items()}
    write_safetensors(
        out,
        Checkpoint(
            architecture=architecture, config=run["architecture"], state=state, metadata=facts
        ),
        replace=existing.is_replaced,
    )
    page = markdown_card(
        out.stem, architecture, sum(value.numel() for value in state.values()), facts
    )
    try:
        write_text_atomic(page_path, page, replace=existing.is_replaced)
    except OSError as error:
        raise OutputError(f"cannot write {page_path}: {error.strerror}") from error


def _blended(state: Mapping[str, Tensor], blend: Mapping[str, float]) -> dict[str, Tensor]:
    """The weighted mean of a state and of others, whose shares are given."""
    rest = 1 - sum(blend.values())
    if not (rest > 0 and all(share > 0 for share in blend.values())):
        raise UsageError("the shares of --blend must be above 0 and leave some for the run itself")
    mixed = {name: rest * value.float() for name, value in state.items()}
    for other, share in blend.items():
        coefficients = {n: v for n, v in state.items() if n.startswith(COEFFICIENTS)}
        found = coefficients | dict(read_weights(other).state)
        if {n: v.shape for n, v in found.items()} != {n: v.shape for n, v in mixed.items()}:
            raise WeightsError(f"{other} is of another network than the run")
        for name, value in mixed.items():
            value.add_(found[name].to(value), alpha=share)
    return mixed
