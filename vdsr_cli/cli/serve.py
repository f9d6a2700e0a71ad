"""``vdsr serve``."""

import secrets
import time
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from importlib.util import find_spec
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer

from vdsr_cli.cli.console import bring, print_note
from vdsr_cli.cli.options import (
    INTERRUPTED,
    BatchOption,
    MachineOptions,
    complete_model,
    finite,
    parse_batch,
    refuse_prior,
)
from vdsr_cli.config import AUTO_MODEL, DEFAULT_SAMPLER
from vdsr_cli.errors import UsageError

if TYPE_CHECKING:
    from vdsr_cli.loading import LoadedModel, ModelSource
    from vdsr_cli.runtime import Runtime

_MB = 1_000_000
_MOST_MB = 1e6


def serve(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Offer this model, and others given so.",
            show_default="auto, which looks at each picture, and every bundled one",
            autocompletion=complete_model,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 opens it to the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")] = 8000,
    max_upload: Annotated[
        float,
        typer.Option(min=0.001, max=_MOST_MB, callback=finite, help="Refuse larger files (MB)."),
    ] = 20.0,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Reduce larger pictures to so many pixels.")
    ] = 1_200_000,
    queue: Annotated[
        int, typer.Option(min=1, help="Pictures waiting or drawn; more are refused.")
    ] = 8,
    keep: Annotated[
        float,
        typer.Option(
            min=0.0, max=_MOST_MB, callback=finite, help="Drop the oldest results beyond this (MB)."
        ),
    ] = 1000.0,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the page in this machine's browser.")
    ] = False,
    batch_size: BatchOption = "4",
    machine: MachineOptions,
) -> None:
    """Offer sampling in a browser, to this machine alone unless told otherwise.

    Pictures and results stay in memory. Ctrl-C ends it.

    Examples:

        vdsr serve --port 8000
        vdsr serve --model vdvae-sr-x4-tiny --max-upload 5
        vdsr serve --host 0.0.0.0 --queue 2
    """
    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise UsageError("vdsr serve needs its extra: pip install 'vdsr-cli[serve]'")

    from vdsr_cli.web.app import create_app
    from vdsr_cli.web.endpoint import Limits
    from vdsr_cli.web.server import address_of, is_loopback, listen, make_server, trusted_hosts

    limits = Limits(
        upload_bytes=round(max_upload * _MB),
        pixels=max_pixels,
        jobs=queue,
        kept_bytes=round(keep * _MB),
        batch_size=parse_batch(batch_size),
    )
    for name in model or ():
        refuse_prior(name)
    bring(*model or (), quiet=False)
    with listen(host, port) as sock:
        runtime = machine.runtime()
        token = "" if is_loopback(sock) else secrets.token_urlsafe(16)
        app = create_app(
            _load(model, runtime),
            runtime,
            limits,
            hosts=trusted_hosts(sock),
            token=token,
            log=_log,
        )
        if token:
            print_note(
                f"warning: listening on {host}: whoever has the address below can use it; "
                "there is no encryption"
            )
        address = address_of(sock, token)
        print(address, flush=True)
        if open_page:
            # It waits in the socket until the server answers, and some return when they are left.
            Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        try:
            make_server(app).run(sockets=[sock])
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def _log(line: str) -> None:
    print_note(f"{time.strftime('%H:%M:%S')} {line}")


def _load(names: list[str] | None, runtime: "Runtime") -> "Sequence[ModelSource]":
    """The models named, or auto and every bundled one that upscales."""
    from vdsr_cli.loading import load
    from vdsr_cli.models.protocol import Sampler
    from vdsr_cli.services.auto import auto_sampler
    from vdsr_cli.weights import load_records
    from vdsr_cli.weights.sources import Bundled

    load_sampler = cache(partial(load, runtime=runtime, expects=Sampler))
    if names:
        return [
            auto_sampler(4, load_sampler) if name == AUTO_MODEL else load_sampler(name)
            for name in names
        ]
    rows = load_records().values()
    bundled = [row.name for row in rows if row.scale and isinstance(row.location, Bundled)]
    loaded: list[LoadedModel] = []
    for name in sorted(bundled, key=lambda name: name != DEFAULT_SAMPLER):
        # Some systems of the papers have a scale but do not upscale whole pictures.
        with suppress(UsageError):
            loaded.append(load_sampler(name))
    return [auto_sampler(4, load_sampler), *loaded]
