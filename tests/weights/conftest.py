"""A hub of this machine, and commands that fetch from it."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import serve_hub

from vdsr_cli.weights import WeightsRecord, fetch

CLI = """
import sys
from vdsr_cli.cli.weights import app
from vdsr_cli.errors import VdsrError
try:
    app()
except VdsrError as error:
    sys.exit(print(f"error: {error}\\ntip: {error.hint}", file=sys.stderr) or error.exit_code)
"""

WORKER = """
import json, os, sys
from typer.testing import CliRunner
from vdsr_cli.cli.weights import app
from vdsr_cli.errors import VdsrError
for line in sys.stdin:
    os.environ["VDSR_HOME"], *arguments = json.loads(line)
    result = CliRunner().invoke(app, arguments)
    error = result.exception
    is_ours = isinstance(error, VdsrError)
    said = f"error: {error}\\ntip: {error.hint}" if is_ours else f"Traceback: {error!r}"
    code = error.exit_code if is_ours else result.exit_code
    print(json.dumps([code, result.stdout.strip(), said if error else ""]), flush=True)
"""


@pytest.fixture(scope="session")
def server():
    with serve_hub() as hub:
        yield hub


@pytest.fixture
def hub(server):
    """The server, with nothing on it."""
    for table in (server.files, server.errors, server.redirects, server.faults, server.requests):
        table.clear()
    return server


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache, no proxies, and no pauses between tries."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VDSR_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(fetch, "MAX_PAUSE_S", 0.01)
    return tmp_path / "home"


@pytest.fixture
def register(monkeypatch):
    """Put rows into the table of models, for this test."""

    def add(**facts: object) -> WeightsRecord:
        base = {"name": "test/model", "architecture": "tiny", "summary": "s", "licence": "MIT"}
        record = WeightsRecord(**(base | facts))
        monkeypatch.setattr("vdsr_cli.weights.store.load_records", lambda: {record.name: record})
        return record

    return add


@pytest.fixture(scope="session")
def environment(server, tmp_path_factory):
    """The environment of a process whose hub is the one of this machine."""
    inherited = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return inherited | {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path_factory.mktemp("hf")),
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


@pytest.fixture
def repo(request):
    """A repository that no other test uses: the hub's cache is one for them all."""
    return "someone/" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")


@pytest.fixture
def hub_cache(environment, repo):
    """Where the hub's cache keeps that repository."""
    return Path(environment["HF_HOME"]) / "hub" / f"models--{repo.replace('/', '--')}"


@pytest.fixture
def run_python(environment, home):
    """Run a script in a process of its own and return what it printed."""

    def run(script: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment | {"VDSR_HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def start_cli(environment, home):
    """Start `vdsr weights ARGUMENTS` in a process of its own."""

    def start(*arguments: str, limit_bytes: int | None = None, **variables: str):
        limit = (limit_bytes, limit_bytes)
        return subprocess.Popen(
            [sys.executable, "-c", CLI, *arguments],
            env=environment | {"VDSR_HOME": str(home)} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
            if limit_bytes
            else None,
        )

    return start


@pytest.fixture
def run_cli(start_cli):
    """Run `vdsr weights ARGUMENTS` in a process of its own: (exit code, stdout, stderr)."""

    def run(*arguments: str, **options):
        process = start_cli(*arguments, **options)
        out, err = process.communicate(timeout=60)
        return process.returncode, out.strip(), err

    return run


@pytest.fixture(scope="session")
def worker(environment):
    """One process for many commands: starting one takes a second, most of it imports."""
    command = [sys.executable, "-c", WORKER]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def vdsr_weights(worker, home):
    """Run `vdsr weights ARGUMENTS` in the worker: (exit code, stdout, error and tip)."""

    def run(*arguments: str):
        worker.stdin.write(json.dumps([str(home), *arguments]) + "\n")
        worker.stdin.flush()
        return tuple(json.loads(worker.stdout.readline()))

    return run
