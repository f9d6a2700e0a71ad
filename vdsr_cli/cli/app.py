"""The ``vdsr`` command: its sub-commands and the one error boundary."""

import os
import sys
from typing import Annotated, NoReturn

import typer

from vdsr_cli import __version__
from vdsr_cli.cli import (
    bench,
    cnn_vae,
    compare,
    generate,
    layers,
    sample_diverse,
    serve,
    settings,
    srvae,
    train,
    upscale,
    weights,
)
from vdsr_cli.cli.command import App
from vdsr_cli.cli.console import print_error
from vdsr_cli.cli.options import Debugging
from vdsr_cli.cli.signals import let_signals_come
from vdsr_cli.cli.streams import open_streams
from vdsr_cli.errors import OutputError, UsageError, VdsrError

app = App(
    name="vdsr",
    help="Super-resolution that samples, on hierarchical variational autoencoders.",
    pretty_exceptions_enable=False,
)
app.command("upscale")(upscale.upscale)
app.command("sample-diverse")(sample_diverse.sample_diverse)
app.command("compare")(compare.compare)
app.command("generate")(generate.generate)
app.command("serve")(serve.serve)
app.command("bench")(bench.bench)
app.command("layers")(layers.layers)
app.command("config")(settings.config)
app.add_typer(train.app, name="train")
app.add_typer(weights.app, name="weights")
app.add_typer(cnn_vae.app, name="cnn-vae")
app.add_typer(srvae.app, name="srvae")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vdsr {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Super-resolution that samples."""


def main() -> None:
    """Runs the command line; a VdsrError becomes one line on stderr and its exit code."""
    open_streams()
    try:
        _run()
    finally:
        _flush_results()


def _run() -> None:
    debugging = Debugging()
    try:
        app(obj=debugging, prog_name="vdsr")
    except VdsrError as error:
        let_signals_come(error)
        if debugging.is_on and error.details:
            print(error.details, file=sys.stderr, end="")
        _end_with(error)
    except OSError as error:
        if error.filename is None and not _is_somewhere():
            _end_with(UsageError("the working directory is gone", hint="cd to one that exists"))
        # A path that was only asked about; what reads and writes files says more itself.
        if error.filename is None:
            raise
        _end_with(UsageError(f"{os.fsdecode(error.filename)} cannot be used: {error.strerror}"))


def _flush_results() -> None:
    """Has what was printed written while it can still be said that this fails."""
    try:
        sys.stdout.flush()
    except OutputError as error:
        _end_with(error)


def _is_somewhere() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _end_with(error: VdsrError) -> NoReturn:
    print_error(str(error), error.hint)
    sys.exit(error.exit_code)
