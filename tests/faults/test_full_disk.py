"""A disk that is full: outputs, the cache of weights, the folder of a training run.

Full is what a real, small disk says where one may be mounted, else the limit on a file's size.
"""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
"""
MAIN = """
import sys
from vdsr_cli.cli.app import main
sys.argv = ["vdsr", *sys.argv[1:]]
main()
"""


@pytest.fixture
def disk(tmp_path):
    """A folder on a disk of 24 KiB, and the line of Python that a child needs to find it full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24k", "vdsr-test", str(folder)]
    with contextlib.suppress(OSError):
        if subprocess.run(mount, capture_output=True).returncode == 0:
            yield folder, ""
            subprocess.run(["umount", str(folder)], check=True)
            return
    if sys.platform == "win32":
        pytest.skip("neither small disks nor limits on files")
    yield folder, LIMIT


def run(before: str, *words: object) -> tuple[int, str]:
    command = [sys.executable, "-c", before + MAIN, *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode, ended.stderr


def test_6_outputs_of_a_folder(disk, tmp_path, tiny_path, save_picture):
    """The small picture is there, the large one leaves nothing, the exit code says so."""
    folder, before = disk
    (tmp_path / "shots").mkdir()
    save_picture(tmp_path / "shots" / "small.png", 8, 8)
    save_picture(tmp_path / "shots" / "big.png", 90, 90)
    for format in ("png", "webp"):
        quality = ["--quality", 100] if format == "webp" else []
        words = ["upscale", tmp_path / "shots", "-o", folder, "-m", tiny_path, "-f", format]
        code, err = run(before, *words, *quality, "-q")
        assert code == 6 and "cannot be written" in err
        left = [path.name for path in folder.iterdir()]
        assert [name for name in left if "big" in name or "small" in name] == [f"small_x4.{format}"]
        (folder / f"small_x4.{format}").unlink()


def test_4_the_cache_of_a_conversion(disk, tmp_path, monkeypatch):
    from published_vdvae import TABLE, published_state, write_published

    folder, before = disk
    source = write_published(tmp_path / "a.th", published_state())
    here = Path(__file__).parents[1]
    table = f"import sys; sys.path.insert(0, {str(here)!r})\nimport published_vdvae\n"
    table += "import vdsr_cli.models.vdvae_config as c; c.PUBLISHED = published_vdvae.TABLE\n"
    assert TABLE
    monkeypatch.setenv("VDSR_HOME", str(folder / "home"))
    code, err = run(table + before, "bench", tmp_path, "--model", source, "-q")
    assert code == 4 and "free some space" in err
    left = [path.name for path in folder.rglob("*") if path.is_file()]
    assert all(name.endswith(".lock") for name in left), left


def test_6_the_folder_of_a_run(disk, tmp_path, tiny_path, save_picture):
    folder, before = disk
    save_picture(tmp_path / "a.png", 64, 64)
    words = ["train", "vdvae-sr", tmp_path / "a.png", "--from", tiny_path, "--steps", 1, "-q"]
    words += ["--batch", 1, "--lr-size", 8, "--val-every", 0, "--device", "cpu", "--workers", 1]
    code, err = run(before, *words, "--dtype", "float32", "--out", folder / "run")
    assert code == 6 and "last.pt" in err and "make room" in err
    assert not list(folder.rglob("*.pt")) and not list(folder.rglob(".vdsr-*"))
