"""``vdsr weights``: the table of models, their files on this disk, and conversions."""

import json
import shutil
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vdsr_cli.cli.command import App
from vdsr_cli.cli.console import download_progress, print_error, print_line
from vdsr_cli.cli.options import NoProgressOption, ReplaceOption, complete_model, existing_of
from vdsr_cli.errors import UsageError, VdsrError, WeightsError
from vdsr_cli.outputs import check_outputs
from vdsr_cli.weights import (
    PUBLISHED_ARCHITECTURE,
    REINSTALL,
    Bundled,
    Header,
    WeightsRecord,
    check,
    convert,
    find_record,
    load_records,
    locate,
    read_header,
    resolve,
)

app = App(
    name="weights",
    help="List, download, verify and convert the weights of the models.",
)

_HEADER = {"config", "config_in_file", "card", "tensors"}
"""Facts that ``info`` shows of a file with ``--header`` alone."""

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help="Name from `vdsr weights list`, or hf://owner/repo\\[@revision]/file, "
        "or https://host/file#sha256=HASH.",
        show_default=False,
        autocompletion=complete_model,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List every model, and whether its file is on this disk.

    Examples:

        vdsr weights list
        vdsr weights list --json
        vdsr weights list --json > models.json
    """
    rows = [_summary(record) for record in load_records().values()]
    if as_json:
        _print_json(rows)
        return
    cells = [("NAME", "SCALE", "SIZE", "HERE", "PURPOSE")]
    for row in rows:
        scale = f"x{row['scale']}" if row["scale"] else "-"
        here = "yes" if row["path"] else "no"
        cells.append((row["name"], scale, _megabytes(row["bytes"]), here, row["summary"]))
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    for name, scale, size, here, purpose in cells:
        start = (
            f"{name:{widths[0]}}  {scale:{widths[1]}}  {size:>{widths[2]}}  {here:{widths[3]}}  "
        )
        for line in _fitted(purpose, len(start)):
            typer.echo(start + line)
            start = " " * len(start)


def _fitted(text: str, indent: int) -> list[str]:
    """The text in lines that a terminal has room for beside an indent; elsewhere one line."""
    if not sys.stdout.isatty():
        return [text]
    return textwrap.wrap(text, max(20, shutil.get_terminal_size().columns - indent))


@app.command()
def info(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Name of a model, or path of a weights file.",
            autocompletion=complete_model,
        ),
    ],
    header: Annotated[
        bool, typer.Option("--header", help="Show what the file's header holds too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a model's card, and the facts about it or about a weights file.

    Examples:

        vdsr weights info vdvae-sr-x4
        vdsr weights info mine.safetensors
        vdsr weights info vdvae-sr-x4 --json
    """
    facts = _facts(model)
    if as_json:
        _print_json(facts)
        return
    card = Path(facts["path"]).with_suffix(".md") if facts.get("path") else None
    has_card = card is not None and card.is_file()
    if card is not None and has_card:
        typer.echo(card.read_text(encoding="utf-8", errors="replace").rstrip() + "\n")
    for key, value in facts.items():
        if key == "scores":
            for score in () if has_card else value:
                typer.echo(f"score: {score['value']} {score['metric']} on {score['data']}")
                typer.echo(f"    {score['command']}")
        elif value is not None and (header or key not in _HEADER):
            typer.echo(f"{key}: {value if isinstance(value, str) else json.dumps(value)}")


@app.command()
def path(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Name of a model.", autocompletion=complete_model),
    ],
) -> None:
    """Print where a model's file is on this disk; download nothing.

    Examples:

        vdsr weights path vdvae-sr-x4
        vdsr weights path openai/ffhq256
        vdsr weights path cvdvae-x4
    """
    found = locate(find_record(model))
    if found is None:
        raise WeightsError(
            f"the weights of {model} are not on this disk", hint=f"vdsr weights download {model}"
        )
    typer.echo(found)


@app.command()
def download(
    models: Models,
    offline: Annotated[
        bool, typer.Option("--offline", help="Make no request: succeed only if it is here.")
    ] = False,
    quiet: NoProgressOption = False,
    as_json: AsJson = False,
) -> None:
    """Download models, verify them, and print where they are.

    An interrupted download goes on where it stopped. Published pickles are converted to
    safetensors, running nothing of what they contain.

    Examples:

        vdsr weights download openai/ffhq256
        vdsr weights download hf://owner/repo/model.safetensors
        vdsr weights download openai/imagenet64 --offline
    """
    rows: list[dict[str, str]] = []
    errors: list[VdsrError] = []
    for model in models:
        try:
            with download_progress(model, quiet=quiet) as progress:
                found = resolve(model, offline=True if offline else None, progress=progress).path
            _tell_defect(model, read_header(found))
        except VdsrError as error:
            errors.append(error)
            continue
        rows.append({"model": model, "path": str(found)})
        if not as_json:
            typer.echo(found)
    if as_json:
        _print_json(rows)
    for earlier in errors[:-1]:
        print_error(str(earlier), earlier.hint)
    if errors:
        raise errors[-1]


@app.command()
def verify(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Names; all that are here if none is given.",
            autocompletion=complete_model,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hash the files on this disk and compare; change nothing.

    Ends with exit code 4 where a file is damaged, or one asked for by name is absent.

    Examples:

        vdsr weights verify
        vdsr weights verify vdvae-sr-x4
        vdsr weights verify --json
    """
    records = load_records()
    asked = [find_record(name, records) for name in models or records]
    rows = [{"name": record.name, "state": check(record)} for record in asked]
    rows = [row for row in rows if models or row["state"] != "absent"]
    if as_json:
        _print_json(rows)
    else:
        for row in rows:
            typer.echo(f"{row['state']:8} {row['name']}")
    if bad := [row["name"] for row in rows if row["state"] != "ok"]:
        fetched = [name for name in bad if not isinstance(records[name].location, Bundled)]
        hint = f"vdsr weights download {' '.join(fetched)}" if fetched else REINSTALL
        raise WeightsError(f"not verified: {', '.join(bad)}", hint=hint)


@app.command("convert")
def convert_file(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="A published VDVAE: a .th, .pt or .pth pickle.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT", help="The .safetensors file to write.")
    ],
    config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Configuration that the tensors must be of, such as ffhq256.",
            show_default="the published one that they fit",
        ),
    ] = None,
    overwrite: ReplaceOption = False,
    as_json: AsJson = False,
) -> None:
    """Convert a published pickle to safetensors, running nothing of what it contains.

    Options that take a model take the pickle itself too, and keep its conversion in the cache.

    Examples:

        vdsr weights convert ffhq256-iter-1700000-model-ema.th -o ffhq256.safetensors
        vdsr weights convert ema.th --config ffhq256 -o ffhq256.safetensors
        vdsr weights convert ema.th -o ffhq256.safetensors --overwrite --json
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"{out} does not end in .safetensors", hint="-o OUT.safetensors")
    check_outputs([out], existing_of(overwrite or None), inputs=[source])
    header = convert(source, out, config, replace=overwrite)
    _tell_defect(str(source), header)
    if as_json:
        _print_json({"path": str(out), **_header_facts(header)})
    else:
        print_line(out)


def _summary(record: WeightsRecord) -> dict[str, Any]:
    """The JSON of one line of ``list``."""
    found = locate(record)
    return {
        "name": record.name,
        "summary": record.summary,
        "scale": record.scale,
        "source": record.source,
        "bytes": found.stat().st_size if found else record.bytes,
        "path": str(found) if found else None,
    }


def _facts(model: str) -> dict[str, Any]:
    """The JSON of ``info``: of a record, of a file, or of both."""
    record = load_records().get(model)
    if record is None:
        found = resolve(model, offline=True).path
        return {"path": str(found), "bytes": found.stat().st_size} | _header_facts(
            read_header(found)
        )
    found_path = locate(record)
    facts = asdict(record) | {"path": str(found_path) if found_path else None}
    return facts | _header_facts(read_header(found_path)) if found_path else facts


def _tell_defect(name: str, header: Header) -> None:
    """Says on stderr what a published file lacks."""
    if header.architecture != PUBLISHED_ARCHITECTURE:
        return
    from vdsr_cli.models.upstream import published_defect

    defect = published_defect(header.architecture, header.config, header.tensors)
    if defect is not None:
        print(f"vdsr: {name}: {defect}", file=sys.stderr)


def _header_facts(header: Header) -> dict[str, Any]:
    return {
        "architecture": header.architecture,
        "config_in_file": header.config,
        "card": header.metadata,
        "tensors": len(header.tensors),
        "parameters": header.parameters,
    }


def _megabytes(size_bytes: int | None) -> str:
    return "?" if size_bytes is None else f"{size_bytes / 1e6:.1f} MB"


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))
