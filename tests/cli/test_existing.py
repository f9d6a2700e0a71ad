"""No command replaces a file unasked, and every command does when asked to."""

import os
import stat
from pathlib import Path

import pytest

WORDS = {
    "sample-diverse": ["PHOTO", "-n", 1, "-m", "TINY", "--pick", "mean", "-o", "OUT.png"],
    "sample-diverse --report": [
        "PHOTO", "-n", 1, "-m", "TINY", "--pick", "mean", "-o", "made/", "--report", "OUT.html",
    ],
    "upscale": ["PHOTO", "-m", "TINY", "-o", "OUT.png"],
    "upscale jpg": ["PHOTO", "-m", "TINY", "-o", "OUT.jpg"],
    "upscale tif": ["PHOTO", "-m", "TINY", "-o", "OUT.tif"],
    "compare": ["PHOTO", "PHOTO", "-o", "OUT.html"],
    "generate": ["-m", "PRIOR", "-n", 1, "--size", 16, "-o", "OUT.png"],
    "bench --csv": ["SET", "-m", "bicubic", "--metrics", "none", "--csv", "OUT.csv"],
    "bench --plot": [
        "SET", "-m", "TINY", "--metrics", "none", "--no-elbo", "--plot", "OUT.svg",
    ],
    "bench --crops": [
        "SET", "-m", "TINY", "--metrics", "none", "--no-elbo", "--crops", "OUT", "--worst", 1,
    ],
    "layers": [
        "-m", "PRIOR", "-n", 1, "--draws", 2, "--scales", 1, "--size", 16, "--every", 9,
        "--plot", "OUT.svg",
    ],
    "srvae super-resolve": ["SET", "-n", 1, "--samples", 0, "-o", "OUT.png"],
    "srvae generate": ["-n", 1, "-o", "OUT.png"],
    "srvae figure": ["SET", "-n", 1, "-o", "OUT.png"],
    "cnn-vae figure": ["--data", "FASHION", "-n", 1, "-o", "OUT.png"],
    "train export": ["set", "-o", "OUT.safetensors"],
    "weights convert": ["photo.png", "-o", "OUT.safetensors"],
}  # fmt: skip
REFUSED_ALONE = {
    "srvae super-resolve",
    "srvae generate",
    "srvae figure",
    "train export",
    "weights convert",
}
"""Their outputs are looked at elsewhere."""


@pytest.fixture
def words_of(tmp_path, tiny_path, tiny_prior_path, save_picture, monkeypatch):
    """``words_of(command)``: its words, and the file that they say to write."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VDSR_HOME", str(tmp_path / "home"))
    (tmp_path / "set").mkdir()
    places = {
        "PHOTO": save_picture(tmp_path / "photo.png"),
        "SET": save_picture(tmp_path / "set" / "b.png", 64, 64).parent,
        "TINY": tiny_path,
        "PRIOR": tiny_prior_path,
        "FASHION": Path(__file__).parents[1] / "data" / "fashion-mnist",
    }

    def make(command: str) -> tuple[list[object], Path]:
        plain = [
            word for word in command.split() if word not in ("jpg", "tif") and word[:2] != "--"
        ]
        (out,) = (Path(word) for word in map(str, WORDS[command]) if word.startswith("OUT"))
        if command == "bench --crops":
            out.mkdir()
            out = out / "set_b.png"
        out.write_bytes(b"precious")
        return [*plain, *(places.get(str(word), word) for word in WORDS[command])], out

    return make


@pytest.mark.parametrize("command", WORDS)
def test_6_a_file_that_is_there_is_kept(vdsr, words_of, command):
    words, out = words_of(command)
    ended = vdsr(*words)
    assert ended.code == 6, ended.err
    assert any(f"{out} exists already" in line for line in ended.lines), ended.err
    assert any("--overwrite" in line for line in ended.lines)
    assert out.read_bytes() == b"precious"


@pytest.mark.parametrize("command", sorted(WORDS.keys() - REFUSED_ALONE))
def test_a_file_that_is_there_is_replaced_on_request(vdsr, words_of, command):
    """It keeps its permissions; those of a new file follow the umask."""
    words, out = words_of(command)
    out.chmod(0o604)
    ended = vdsr(*words, "--overwrite")
    assert ended.code == 0, ended.err
    assert out.read_bytes() != b"precious"
    assert os.name == "nt" or stat.S_IMODE(out.stat().st_mode) == 0o604
    for made in out.parent.glob(f"{out.stem}*"):
        made.unlink()
    before = os.umask(0o027)
    try:
        assert vdsr(*words, "--overwrite").code == 0
    finally:
        os.umask(before)
    assert os.name == "nt" or stat.S_IMODE(out.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "words",
    [
        ["upscale", "photo.png", "-o", "alias.png"],
        ["sample-diverse", "photo.png", "-n", 1, "--pick", "mean", "-o", "alias.png"],
        ["sample-diverse", "photo.png", "-n", 1, "-o", "new/", "--report", "alias.png"],
        ["sample-diverse", "copy.png", "-n", 2, "--mask", "photo.png", "--report", "alias.png"],
        ["bench", "photo.png", "-m", "bicubic", "--csv", "alias.png"],
        ["srvae", "figure", "photo.png", "-n", 1, "-o", "alias.png"],
        ["weights", "convert", "run/last.safetensors", "-o", "other.safetensors"],
        ["train", "export", "run", "-o", "other.safetensors"],
        ["train", "export", "run/last.pt", "-o", "run/last.pt"],
    ],
)
def test_2_an_input_is_not_replaced_on_any_request(vdsr, words_of, tiny_path, words):
    words_of("upscale")
    Path("alias.png").symlink_to("photo.png")
    Path("run").mkdir()
    for name in ("last.pt", "last.safetensors"):
        Path("run", name).write_bytes(b"precious")
    source = "run/last.safetensors" if words[0] == "weights" else "run/last.pt"
    Path("other.safetensors").symlink_to(source)
    photo = Path("photo.png").read_bytes()
    Path("copy.png").write_bytes(photo)
    model = ["-m", tiny_path] if words[0] in ("upscale", "sample-diverse") else []
    ended = vdsr(*words, *model, "--overwrite")
    assert ended.code == 2 and "is an input of this run and would be replaced" in ended.lines[0]
    assert Path("photo.png").read_bytes() == photo
    assert Path("run/last.pt").read_bytes() == b"precious"
