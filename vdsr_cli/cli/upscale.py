"""``vdsr upscale``."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from vdsr_cli.batch.listing import FolderListing, Work, joined, work_on
from vdsr_cli.cli.command import is_typed
from vdsr_cli.cli.console import (
    TileProgress,
    bring,
    print_choice,
    print_error,
    print_line,
    print_note,
    tile_progress,
)
from vdsr_cli.cli.options import (
    ConditionalTemperatureOption,
    DebugOption,
    DryRunOption,
    MachineOptions,
    ModelOption,
    OutputOptions,
    QuietOption,
    ReadingOptions,
    SamplingOptions,
    refuse_prior,
    temperature_option,
)
from vdsr_cli.config import (
    AUTO_MODEL,
    TargetSize,
    check_scale,
    parse_temperature,
    with_conditional,
)
from vdsr_cli.errors import InputError, UsageError
from vdsr_cli.files import exists_error
from vdsr_cli.outputs import Existing, is_taken, refuse_inputs
from vdsr_cli.paths import (
    MANIFEST_NAME,
    Naming,
    drop_own_outputs,
    expand_inputs,
    is_url,
    may_be_several,
    plan_naming,
    plan_outputs,
    scale_tag,
)

if TYPE_CHECKING:
    from vdsr_cli.batch.processes import InProcess, Job, WorkerProcesses
    from vdsr_cli.batch.run import Outcome
    from vdsr_cli.batch.store_listing import StoreListing
    from vdsr_cli.services.upscale import UpscaleResult


@dataclass(frozen=True, kw_only=True)
class SizeOptions:
    """How large outputs become."""

    scale: Annotated[
        float | None,
        typer.Option("--scale", "-s", help="Factor from 1 to 16.", show_default="4"),
    ] = None
    width: Annotated[
        int | None, typer.Option(min=1, help="Of the output, in pixels, in place of --scale.")
    ] = None
    height: Annotated[
        int | None, typer.Option(min=1, help="Likewise; with --width, what fits into both.")
    ] = None
    longest: Annotated[
        int | None, typer.Option(min=1, help="Longer side of the output, in pixels.")
    ] = None
    megapixels: Annotated[
        float | None, typer.Option(min=0.0001, help="Area of the output, in millions of pixels.")
    ] = None

    def target(self) -> TargetSize | None:
        """The size that is asked for in place of a scale. Raises UsageError."""
        sides = {name: value for name, value in asdict(self).items() if name != "scale"}
        if not any(sides.values()):
            return None
        if self.scale is not None:
            raise UsageError("--scale and a size exclude each other", hint="leave one of them out")
        return TargetSize(**sides)


@dataclass(frozen=True, kw_only=True)
class ManyOptions:
    """Who works on many pictures, and what is recorded of them."""

    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            help="Worker processes, which share cores and cards; with ray, pictures in work at"
            " once.",
            show_default="this process; all of the cluster",
        ),
    ] = None
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="This machine, or a running Ray cluster.")
    ] = "local"
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Head of the cluster.", show_default="RAY_ADDRESS, or that of this machine"
        ),
    ] = None
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="Record each picture as a JSON line.",
            show_default="of one folder, OUT/vdsr-manifest.jsonl",
        ),
    ] = None
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Only what the manifest says has failed.")
    ] = False

    @property
    def is_elsewhere(self) -> bool:
        """Whether other processes do the work."""
        return self.jobs is not None or self.engine != "local"


def upscale(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(help="Pictures, folders, quoted patterns, or - for standard input."),
    ],
    *,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="Output file, folder, or - for standard output.",
            show_default="beside the input",
        ),
    ] = None,
    model: ModelOption = AUTO_MODEL,
    size: SizeOptions,
    temperature: Annotated[
        str, temperature_option("0: one smooth answer; 0.8: texture; 1: all of it.")
    ] = "0.8",
    conditional_temperature: ConditionalTemperatureOption = None,
    sampling: SamplingOptions,
    machine: MachineOptions,
    output: OutputOptions,
    depth: Annotated[
        int | None,
        typer.Option(
            help="Bits a sample of the output, 8 or 16: rounded to them once, at the end.",
            show_default="the input's",
        ),
    ] = None,
    suffix: Annotated[
        str | None,
        typer.Option(
            help="Stands behind the name of the input; may be empty, with -o.",
            show_default="_x4",
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Look below folders too.")
    ] = False,
    reading: ReadingOptions,
    keep_times: Annotated[
        bool,
        typer.Option("--keep-times", help="Outputs get the file times of their inputs."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a picture on stdout.")
    ] = False,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
    many: ManyOptions,
) -> None:
    """Upscale pictures.

    Examples:

        vdsr upscale photo.png --scale 4 --temperature 0.8
        vdsr upscale photo.png -t 0 -o smooth.png
        vdsr upscale -r photos -o large --skip-existing
    """
    store = out.rstrip("/") if out is not None and is_url(out) else None
    target = size.target()
    scale = 4.0 if size.scale is None else size.scale
    naming = plan_naming(
        f"{store}/" if store else out,
        tag=scale_tag(scale) if target is None else target.tag,
        format=output.format,
        is_several=may_be_several(inputs),
        takes_videos=True,
    )
    naming = replace(naming, text=_checked_suffix(suffix, naming))
    unknown: set[str] = set()
    unread: list[InputError] = []
    works = _plan_works(
        inputs,
        naming,
        store,
        recursive=recursive,
        quiet=quiet,
        on_unknown=unknown.add,
        on_unread=unread.append,
    )
    if isinstance(works, list):
        _refuse_streams(works, as_json=as_json, elsewhere=many.is_elsewhere)
    elif many.manifest is None and store is None and naming.folder is not None:
        many = replace(many, manifest=naming.folder / MANIFEST_NAME)
    if keep_times and (store is not None or any(map(is_url, inputs))):
        raise UsageError("--keep-times is for files: stores set times themselves")
    if many.retry_failed and many.manifest is None:
        raise UsageError("--retry-failed needs a manifest", hint="give --manifest FILE")
    if many.engine != "ray" and is_typed(context, "ray_address"):
        raise UsageError("--ray-address is of a cluster", hint="give --engine ray too")
    check_scale(scale)
    tempered = with_conditional(parse_temperature(temperature), conditional_temperature)
    if dry_run:
        planned = _failed_before(works, many.manifest) if many.retry_failed else works
        codes = [_show_plan(work, output.existing, as_json=as_json) for work in planned]
        raise typer.Exit(max([*codes, _tell_unread(unread)]))
    refuse_prior(model)
    if many.engine == "local":
        bring(model, quiet=quiet)

    from vdsr_cli.batch.processes import Job
    from vdsr_cli.services.upscale import UpscaleRequest

    request = UpscaleRequest(
        scale=scale,
        size=target,
        depth=_checked_depth(depth),
        settings=sampling.settings(tempered),
        consistency=sampling.consistency,
        existing=output.existing,
        format=output.format,
        quality=output.quality,
        reading=reading.reading(),
        keeps_times=keep_times,
    )
    job = Job(
        model=model,
        request=request,
        device=machine.device,
        dtype=machine.dtype,
        is_hashed=many.manifest is not None,
    )
    show = partial(_show_outcome, as_json=as_json, quiet=quiet, debug=debug)
    worst, summary = _run(works, job, many, unknown, show, quiet=quiet)
    if not isinstance(works, list):
        _tell_own_outputs(works.own_outputs, quiet=quiet)
    if summary is not None and not quiet:
        print_note(summary)
    raise typer.Exit(max(worst, _tell_unread(unread)))


def _run(
    works: "list[Work] | FolderListing | StoreListing",
    job: "Job",
    many: ManyOptions,
    unknown: set[str],
    show: "Callable[[UpscaleResult, TextIO], None]",
    *,
    quiet: bool,
) -> tuple[int, str | None]:
    """Makes the pictures -> the worst exit code, and a tally where there was more than one."""
    from vdsr_cli.batch.manifest import Manifest
    from vdsr_cli.batch.ray import RayCluster
    from vdsr_cli.batch.run import only_failed, record_unknown, run_works

    worst = 0
    total = len(works) if isinstance(works, list) and not many.retry_failed else None
    with (
        nullcontext() if many.manifest is None else Manifest(many.manifest) as records,
        tile_progress(total, quiet=quiet) as bars,
    ):
        results = sys.stdout
        if records is not None:
            for path in sorted(unknown):
                record_unknown(records, path)
        if isinstance(works, FolderListing) and not many.retry_failed:
            bars.expect(works.count())
            if records is not None:
                works.on_unknown = partial(record_unknown, records)

        def end(outcome: "Outcome") -> None:
            nonlocal worst
            worst = max(worst, outcome.result.exit_code)
            name = PurePath(outcome.work.input).name if many.is_elsewhere else None
            bars.finish(outcome.result.status, name)
            with bars.cleared():
                show(outcome.result, results)

        on_ray = many.engine == "ray"
        # Ray tells of dead workers on standard output, which is for results.
        with redirect_stdout(sys.stderr) if on_ray else nullcontext():
            run_works(
                only_failed(works, records) if many.retry_failed and records is not None else works,
                RayCluster(job=job, address=many.ray_address, limit=many.jobs)
                if on_ray
                else _local_engine(job, many.jobs, bars),
                job.request,
                manifest=records,
                on_outcome=end,
            )
    passed = works.unknown if isinstance(works, FolderListing) else len(unknown)
    return worst, bars.summary(passed) if bars.ended.total() != 1 or passed else None


def _checked_depth(depth: int | None) -> Literal[8, 16] | None:
    if depth not in (None, 8, 16):
        raise UsageError(f"--depth {depth} is neither 8 nor 16")
    return 8 if depth == 8 else 16 if depth == 16 else None


def _checked_suffix(suffix: str | None, naming: Naming) -> str | None:
    """Refuses one that leads elsewhere, or by which outputs are called as their inputs are."""
    if suffix and set(suffix) & {"/", "\\", "\0"}:
        raise UsageError("--suffix is a part of a file's name", hint="-o names the folder")
    if suffix == "" and naming.folder is None and naming.file is None and not naming.is_stdout:
        raise UsageError("without a suffix outputs need a folder of their own", hint="give -o")
    return suffix


def _plan_works(
    inputs: list[str],
    naming: Naming,
    store: str | None,
    *,
    recursive: bool,
    quiet: bool,
    on_unknown: Callable[[str], None],
    on_unread: Callable[[InputError], None],
) -> "list[Work] | FolderListing | StoreListing":
    """The pictures and their outputs: a stream for one folder or its URL, else a list."""

    def address(output: Path) -> str:
        if store is None or naming.folder is None:
            return str(output)
        return joined(store, output.relative_to(naming.folder).as_posix())

    is_one = len(inputs) == 1 and naming.file is None and not naming.is_stdout
    if any(map(is_url, inputs)):
        if not is_one or naming.folder is None:
            raise UsageError(
                "a URL goes alone, to a folder or another URL", hint="give -o one of the two"
            )
        from vdsr_cli.batch.store_listing import StoreListing

        stored = StoreListing(
            folder=inputs[0], naming=naming, address=address, out=store, recursive=recursive
        )
        picture = stored.picture()
        return stored if picture is None else [picture]
    if is_one and os.path.isdir(inputs[0]):
        folder = Path(inputs[0])
        return FolderListing(
            folder=folder,
            naming=naming,
            address=address,
            recursive=recursive,
            on_unread=on_unread,
        )

    def pass_unknown(path: Path) -> None:
        if not naming.is_left(path.name):
            on_unknown(str(path))

    found = expand_inputs(inputs, recursive=recursive, on_unknown=pass_unknown, on_unread=on_unread)
    sources, own = drop_own_outputs(found, naming)
    _tell_own_outputs(len(own), quiet=quiet)
    outputs = plan_outputs(sources, naming)
    if store is None:
        refuse_inputs(outputs, [source.path for source in sources if not source.is_stdin])
    return [work_on(source, path, address) for source, path in zip(sources, outputs, strict=True)]


def _tell_own_outputs(count: int, *, quiet: bool) -> None:
    if count and not quiet:
        print(f"vdsr: {count} earlier outputs are not upscaled again", file=sys.stderr)


def _refuse_streams(works: list[Work], *, as_json: bool, elsewhere: bool) -> None:
    """Refuses standard streams where they have another use, or the work is done elsewhere."""
    is_to_stdout = any(work.output is None for work in works)
    if is_to_stdout and as_json:
        raise UsageError("--json and a picture cannot share standard output", hint="give -o a file")
    if elsewhere and (is_to_stdout or any(work.is_stdin for work in works)):
        raise UsageError(
            "standard input and output are for one process", hint="leave --jobs and --engine out"
        )


def _local_engine(
    job: "Job", jobs: int | None, bars: TileProgress
) -> "InProcess | WorkerProcesses":
    from vdsr_cli.batch.processes import InProcess, Upscaler, WorkerProcesses

    if jobs is not None:
        return WorkerProcesses(job=job, count=jobs)
    return InProcess(
        upscaler=Upscaler(job),
        stdin=sys.stdin.buffer,
        stdout=sys.stdout.buffer,
        on_start=lambda work, tiles: bars.start(PurePath(work.input).name, tiles),
        on_tiles=bars.advance,
    )


def _failed_before(works: Iterable[Work], manifest: Path | None) -> Iterator[Work]:
    """The works that --retry-failed makes again; it was refused without a manifest."""
    from vdsr_cli.batch.manifest import Manifest
    from vdsr_cli.batch.run import only_failed

    return iter(()) if manifest is None else only_failed(works, Manifest(manifest))


def _show_plan(work: Work, existing: Existing, *, as_json: bool) -> int:
    """Shows what would become of a picture -> the exit code that a run would have for it."""
    row: dict[str, Any] = {"input": work.input, "output": work.output, "status": "planned"}
    line, error = f"{work.input} -> {work.output or 'standard output'}", None
    if work.output is not None and not existing.is_replaced and _exists(work.output):
        row["status"], line = "skipped", f"{work.output} (exists, skipped)"
        if existing is Existing.refuse:
            error = exists_error(work.output)
            row |= {"status": "failed", "error": str(error), "exit_code": error.exit_code}
            print_error(str(error), error.hint)
    if as_json:
        print(json.dumps(row))
    elif error is None:
        print_line(line)
    return 0 if error is None else error.exit_code


def _exists(output: str) -> bool:
    if not is_url(output):
        return is_taken(output)
    from vdsr_cli.batch.storage import exists

    return exists(output)


def _tell_unread(unread: list[InputError]) -> int:
    """Tells of folders that could not be listed -> the exit code of that."""
    for error in unread:
        print_error(str(error), error.hint)
    return max((error.exit_code for error in unread), default=0)


def _show_outcome(
    result: "UpscaleResult", stdout: TextIO, *, as_json: bool, quiet: bool, debug: bool
) -> None:
    """The result on stdout; notes and failures on stderr."""
    if result.error:
        print_error(result.error, result.hint)
    if not quiet:
        print_choice(result.input, result.model, result.model_reason)
    for note in result.notes:
        print_note(f"{result.input}: {note}")
    if as_json:
        print(json.dumps(result.as_json()), file=stdout)
    elif result.status == "done" and result.output and not quiet:
        size = f"{result.width}x{result.height}"
        size += f", {result.frames} pictures" if result.frames else ""
        print_line(f"{result.output} ({size}, {result.seconds} s)", file=stdout)
    elif result.status == "skipped" and not quiet:
        print_line(f"{result.output} (exists, skipped)", file=stdout)
    stdout.flush()
    if debug and result.traceback:
        print(result.traceback, file=sys.stderr, end="")
