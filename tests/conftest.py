"""Shared by the tests: a tiny model with weights that matter, and two ways to run `vdsr`."""

import importlib.util
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import published_vdvae
import pytest
import torch
from browser import Browser, find_chromium
from hypothesis import HealthCheck, settings
from PIL import Image
from safetensors.torch import save_file

from vdsr_cli.metrics.backbones import BACKBONES
from vdsr_cli.models.compact import CompactConfig, CompactHierarchy, CompactVDVAESR, Level
from vdsr_cli.models.compact_prior import CompactVDVAE
from vdsr_cli.models.registry import COMPACT_VDVAE_SR
from vdsr_cli.weights import Checkpoint, write_safetensors

if "PYTEST_XDIST_WORKER" in os.environ:  # two teams of threads on two processors slow each other
    torch.set_num_threads(1)

settings.register_profile(
    "vdsr",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
settings.register_profile(
    "fuzz",
    settings.get_profile("vdsr"),
    derandomize=False,
    max_examples=int(os.environ.get("VDSR_FUZZ_EXAMPLES", "1000")),
)
settings.load_profile("fuzz" if "VDSR_FUZZ_EXAMPLES" in os.environ else "vdsr")

TINY_CONFIG = CompactConfig(
    scale=4,
    levels=(
        Level(cell=16, width=8, blocks=1, latent_channels=3, lr_blocks=1),
        Level(cell=8, width=8, blocks=1, latent_channels=2, lr_blocks=1),
        Level(cell=4, width=8, blocks=2, latent_channels=2, lr_blocks=1),
        Level(cell=2, width=4, blocks=1, latent_channels=1),
    ),
)
SMALL_FACTORS = {
    "head.weight": 0.08,
    "prior.c2.weight": 0.4,
    "prior.c2.bias": 0.3,
    "resnet.c2.weight": 0.3,
    "z_proj.weight": 0.7,
}
"""Factors against amplification by random weights: a tenth of the grey range leaves the head."""


def build_tiny(*, seed: int = 0, config: CompactConfig = TINY_CONFIG) -> CompactVDVAESR:
    """A compact model whose every weight is random, so that no path hides behind a zero."""
    model = CompactVDVAESR(config)
    randomise(model, seed=seed)
    return model.eval().requires_grad_(False)


def randomise(model: CompactHierarchy, *, seed: int) -> None:
    """Gives every weight a random value that does not amplify, and opens every gate."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fan = parameter[0].numel() if parameter.dim() > 1 else 25
            factor = next((f for end, f in SMALL_FACTORS.items() if name.endswith(end)), 1.0)
            value = torch.randn(parameter.shape, generator=generator) * factor / fan**0.5
            parameter.copy_(value.abs() + 0.5 if name.endswith("gate_param") else value)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """No weights but the bundled ones, whatever whoever runs the tests has, and no network."""
    monkeypatch.setenv("VDSR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., CompactVDVAESR]:
    """:func:`build_tiny`, for tests that want a model of their own."""
    return build_tiny


@pytest.fixture(scope="session")
def tiny_model() -> CompactVDVAESR:
    """The model of the tests, x4, coarsest cell 16: shared, so not to be changed."""
    return build_tiny()


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory, tiny_model) -> Path:
    """Its checkpoint, for ``--model``; trained on "bicubic", so that results are projected."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    write_safetensors(
        path,
        Checkpoint(
            architecture=COMPACT_VDVAE_SR,
            config=asdict(TINY_CONFIG),
            state=dict(tiny_model.state_dict()),
            metadata={"degradation": "bicubic"},
        ),
    )
    return path


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """``load_script("tools/degraded_set.py")``: the script as a module, not run; it finds its
    neighbours."""

    def load(path: str) -> ModuleType:
        whole = Path(__file__).parents[1] / path
        sys.path.append(str(whole.parent))
        spec = importlib.util.spec_from_file_location(whole.stem, whole)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def small_published(monkeypatch) -> None:
    """The published table holds two small configurations, for this test."""
    monkeypatch.setattr("vdsr_cli.models.vdvae_config.PUBLISHED", published_vdvae.TABLE)


@pytest.fixture(scope="session")
def tiny_prior() -> CompactVDVAE:
    """An unconditional compact model, coarsest cell 16: shared, so not to be changed."""
    model = CompactVDVAE(TINY_CONFIG)
    randomise(model, seed=0)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_prior_path(tmp_path_factory, tiny_prior) -> Path:
    """Its checkpoint, for ``--model``."""
    path = tmp_path_factory.mktemp("prior") / "tiny-prior.safetensors"
    state = dict(tiny_prior.state_dict())
    config = asdict(TINY_CONFIG)
    write_safetensors(path, Checkpoint(architecture="compact-vdvae", config=config, state=state))
    return path


@pytest.fixture
def save_picture() -> Callable[..., Path]:
    """``save_picture(path, width=12, height=8, seed=0, mode="RGB")``: a smooth random picture."""

    def save(
        path: Path, width: int = 12, height: int = 8, *, seed: int = 0, mode: str = "RGB"
    ) -> Path:
        rng = np.random.default_rng(seed)
        rough = Image.fromarray(rng.integers(40, 216, (3, 4, 3), np.uint8))
        rough.resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(path)
        return path

    return save


@pytest.fixture
def kill_writer() -> Callable[[Path], None]:
    """``kill_writer(path)``: what SIGKILL within ``atomic_path`` leaves beside the path."""
    code = "import os, sys, pathlib; from vdsr_cli.files import atomic_path\n"
    code += "with atomic_path(pathlib.Path(sys.argv[1])) as new:\n"
    code += "    new.write_bytes(b'half'); os.kill(os.getpid(), 9)"

    def kill(path: Path) -> None:
        assert subprocess.run([sys.executable, "-c", code, path]).returncode

    return kill


@pytest.fixture
def lpips_weights(tmp_path) -> Callable[[str], Path]:
    """``lpips_weights("squeeze")``: random LPIPS weights of a network, heads not negative, in the
    test's folder under the name that ``--metric-weights`` looks for."""

    def make(net: str) -> Path:
        torch.manual_seed(0)
        backbone = BACKBONES[net]
        state = {f"features.{k}": v for k, v in backbone.build().state_dict().items()}
        for index, width in enumerate(backbone.widths):
            state[f"lin{index}.model.1.weight"] = torch.rand(1, width, 1, 1)
        save_file(state, tmp_path / f"lpips_{net}.safetensors")
        return tmp_path / f"lpips_{net}.safetensors"

    return make


@dataclass(frozen=True)
class Ended:
    """How a run of the command line ended."""

    code: int
    out: bytes
    err: str = field(repr=True)

    @property
    def lines(self) -> list[str]:
        """The lines on stderr."""
        return self.err.splitlines()


class _Stream(io.TextIOWrapper):
    """A standard stream in memory, bytes underneath as the real one has them."""

    def __init__(self, content: bytes = b"", errors: str = "strict") -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8", errors=errors, write_through=True)

    def taken(self) -> bytes:
        return self.buffer.getvalue()


@pytest.fixture
def vdsr(monkeypatch) -> Callable[..., Ended]:
    """``vdsr("upscale", path, ..., stdin=b"")``: the command line in this process."""

    def run(*arguments: object, stdin: bytes = b"") -> Ended:
        from vdsr_cli.cli.app import main

        out, err = _Stream(), _Stream(errors="backslashreplace")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["vdsr", *map(str, arguments)])
            patch.setattr(sys, "stdin", _Stream(stdin))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            try:
                main()
                code = 0
            except SystemExit as stopped:
                code = stopped.code if isinstance(stopped.code, int) else int(bool(stopped.code))
        return Ended(code or 0, out.taken(), err.taken().decode())

    return run


def child_environment() -> dict[str, str]:
    """The environment of a child: one thread, offline, the strict UTF-8 of most terminals."""
    settled = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8:strict"}
    return {**os.environ, **settled}


def _take_interrupts() -> None:
    """A child of a background job would ignore Ctrl-C, and so could not show what it does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def start_vdsr() -> Callable[..., "subprocess.Popen[bytes]"]:
    """``start_vdsr("upscale", ...)``: the command line as a child that is still running."""
    children: list[subprocess.Popen[bytes]] = []

    def start(*arguments: object, **options: object) -> "subprocess.Popen[bytes]":
        command: Sequence[object] = [sys.executable, "-m", "vdsr_cli", *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        settled = {**pipes, "env": child_environment(), "preexec_fn": _take_interrupts}
        child = subprocess.Popen(
            [os.fsencode(str(word)) for word in command], **{**settled, **options}
        )
        children.append(child)
        return child

    yield start
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()


@pytest.fixture
def run_vdsr(start_vdsr) -> Callable[..., Ended]:
    """``run_vdsr("upscale", ..., stdin=b"")``: the command line as a child, to its end."""

    def run(*arguments: object, stdin: bytes = b"", **options: object) -> Ended:
        child = start_vdsr(*arguments, **options)
        out, err = child.communicate(stdin, timeout=120)
        return Ended(child.returncode, out or b"", (err or b"").decode("utf-8", "replace"))

    return run


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    """A real browser, shared by the tests of pages."""
    found = find_chromium()
    if found is None:
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    started = Browser(*found, tmp_path_factory.mktemp("profile"))
    yield started
    started.close()
