"""Imports point one way, and what a person waits for imports nothing heavy."""

import ast
import graphlib
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vdsr_cli

PACKAGE = Path(vdsr_cli.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("torch", "numpy", "PIL", "safetensors", "huggingface_hub", "tqdm")

LAYERS = [
    {"__main__"},
    {"cli"},
    {"web"},
    {"api"},
    {"bench", "batch"},
    {"services"},
    {"diverse"},
    {"training"},
    {"sampling"},
    {"loading", "figures"},
    {"metrics", "inspection"},
    {"consistency", "images", "weights"},
    {"models"},
    {"paths", "cuda_graph", "background", "jpeg_tables", "runtime"},
    {"outputs"},
    {"files", "formats"},
    {"config"},
    {"errors"},
]
"""Top-level modules from top to bottom; a module may import from layers below its own.

``web`` is to a browser what ``cli`` is to a terminal, and ``vdsr serve`` starts it.
"""

ONLY = {
    "typer": {"cli"},
    "rich": {"cli"},
    "starlette": {"web"},
    "uvicorn": {"web"},
    "PIL": {"images", "figures"},
}
"""Packages and the rooms that alone import them."""

ROUNDS = {
    "images": "levels of pictures, and their files",
    "consistency": "LR pictures, as MATLAB rounds them",
    "figures": "places in a table of colours",
}
"""The rooms where numbers become 8 bits, and which."""

ROUNDING = re.compile(r"(\.round\(|rint\()[^\n]*(uint8|\.byte\(\))")


def top_of(path: Path) -> str:
    """The top-level module of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Every absolute module that a file imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "vdsr_cli":
                yield from (f"vdsr_cli.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def layer_of(top: str) -> int:
    return next((i for i, layer in enumerate(LAYERS) if top in layer), -1)


def test_every_module_has_its_layer():
    unplaced = {top_of(path) for path in MODULES} - {"__init__"} - set().union(*LAYERS)
    assert not unplaced, "give it a place in LAYERS"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    here = top_of(path)
    for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
        root, _, rest = name.partition(".")
        assert root != "click", "typer may bring its own: import from typer"
        assert here in ONLY.get(root, {here}), f"only {ONLY[root]} imports {root}"
        there = rest.partition(".")[0]
        if root != "vdsr_cli" or there in (here, "__version__", ""):
            continue
        assert layer_of(there) > layer_of(here), f"{here} imports {there}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_pictures_are_rounded_in_one_room(path):
    if top_of(path) not in ROUNDS:
        assert not ROUNDING.search(path.read_text(encoding="utf-8")), "see images/levels.py"


def module_of(path: Path) -> str:
    return ".".join(["vdsr_cli", *path.relative_to(PACKAGE).with_suffix("").parts])


def test_no_circle_of_files():
    """Not even one that only a type checker would go round."""
    needs = {module_of(path): set(files_imported(path)) for path in MODULES}
    order = graphlib.TopologicalSorter(needs)
    order.prepare()  # raises CycleError, which names them


def files_imported(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, ``from package import module`` too."""
    names = {module_of(path) for path in MODULES}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found = {f"{node.module}.{alias.name}" for alias in node.names} & names
            yield from found or ({node.module} & names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_prints(path):
    if top_of(path) == "cli":
        return
    calls = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)]
    assert "print" not in {call.func.id for call in calls if isinstance(call.func, ast.Name)}


def loaded_after(script: str) -> set[str]:
    """Which of the heavy modules a fresh interpreter has loaded after a script."""
    report = f"\nimport sys; sys.stderr.write(repr([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script + report], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(ast.literal_eval(done.stderr.splitlines()[-1]))


def test_importing_is_cheap():
    modules = "vdsr_cli, vdsr_cli.cli.app, vdsr_cli.errors, vdsr_cli.paths, vdsr_cli.weights"
    assert loaded_after(f"import {modules}") == set()


WAITED_FOR = [
    ["--help"],
    ["--version"],
    ["upscale", "--help"],
    ["serve", "--help"],
    ["train", "--help"],
    ["weights", "list"],
    ["upscale", "a.png", "--dry-run"],
]


def test_what_a_person_waits_for_is_cheap():
    script = f"""
import sys
from vdsr_cli.cli.app import main
for arguments in {WAITED_FOR!r}:
    sys.argv = ["vdsr", *arguments]
    try:
        main()
    except SystemExit as stopped:
        assert not stopped.code, (arguments, stopped.code)
"""
    assert loaded_after(script) == set()


NOT_FOR_A_BUNDLED_MODEL = ("huggingface_hub", "torch._dynamo", "torch._inductor", "sympy", "tqdm")


def test_upscaling_with_a_bundled_model_imports_no_more_than_it_needs(tmp_path):
    """Each of these takes as long to import as a small picture takes to upscale.

    What torch itself loads for a tensor on "meta" is not ours: sympy, in torch 2.6.
    """
    source = Path(__file__).parent / "data" / "street.png"
    arguments = ["vdsr", "upscale", str(source), "-o", str(tmp_path / "out.png"), "--quiet"]
    script = f"""
import sys
import torch
torch.zeros(1, device="meta")
with_torch = set(sys.modules)
from vdsr_cli.cli.app import main
sys.argv = {[*arguments, "--model", "vdvae-sr-x4-tiny"]!r}
try:
    main()
except SystemExit as stopped:
    assert not stopped.code
sys.stderr.write(repr(sorted(set({NOT_FOR_A_BUNDLED_MODEL!r}) & (set(sys.modules) - with_torch))))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "[]"


def test_the_version_is_told(vdsr):
    assert vdsr("--version").out.decode() == f"vdsr {vdsr_cli.__version__}\n"


PACKAGES = [p for p in MODULES if p.name == "__init__.py"]


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.parent.name)
def test_exports_are_complete_and_sorted(path):
    """A package's imports for others are in ``__all__``, and all of that is there."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    offered = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    name = ".".join(["vdsr_cli", *path.relative_to(PACKAGE).parent.parts])
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert offered <= set(exported)
    assert all(hasattr(module, export) for export in exported)

    def order(export: str) -> tuple[int, str]:
        return (0 if export.isupper() else 1 if export[0].isupper() else 2), export

    assert list(exported) == sorted(exported, key=order)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_docstrings_stand_alone(path):
    """In a tooltip, without the name beside them; those of constants and fields too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            assert not str(node.value.value).startswith(("What ", "Of ")), node.value.value


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is(path):
    source = path.read_text(encoding="utf-8")
    assert not source or ast.get_docstring(ast.parse(source)), "a module begins with a docstring"


def test_scripts_import_what_is_there():
    repository = Path(__file__).parents[1]
    for path in (*repository.glob("benchmarks/**/*.py"), *repository.glob("tools/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vdsr_cli"):
                module = importlib.import_module(node.module)
                names = {alias.name for alias in node.names} - set(vars(module))
                missing = {name for name in names if not importable(f"{node.module}.{name}")}
                assert not missing, f"{path.name}: {node.module} has no {missing}"


def importable(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True
